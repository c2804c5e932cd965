"""The final fine-tuning of one configuration, by an unmodified `transformers.Trainer`."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..config import BioTuneConfig
from ..model import BioTuneModel, get_biotune_model
from ..trainer import biotune_trainer_kwargs
from .data import DataSplits
from .execution import Execution
from .fitness import StoppingRule
from .forward import Forward
from .metrics import Metric
from .out_of_memory import part_of, with_smaller_batches
from .task import predict


@dataclass(frozen=True)
class FineTuneResult:
    """One final training.

    Args:
        model: with the weights of the best epoch.
        seed: of initialisation and data order.
        validation_score: of the best epoch.
        test_logits: of the best epoch, if there is a test split. Shape: (samples, classes).
        test_score: the metric on them; `None` without a test split.
        epochs: that were trained.
        seconds: of training, evaluation each epoch included.
    """

    model: BioTuneModel = field(repr=False)
    seed: int
    validation_score: float
    test_logits: torch.Tensor | None = field(repr=False)
    test_score: float | None
    epochs: int
    seconds: float


class FineTuner:
    """Fine-tunes configurations, keeps the best epoch by validation, and tests that once.

    Args:
        model_init: makes the base model; called once per training, under its seed.
        data: samples to train on, to choose the epoch by, and perhaps to test on.
        args: of every training; what concerns saving, evaluating and logging is set here.
        metric: the score.
        stopping: when a training ends early.
        execution: memory layout and optimizer kernel are taken from it; the precision is that of
            `args`, whatever the search used. Default: as `args` say.
    """

    def __init__(
        self,
        model_init: Callable[[], nn.Module],
        data: DataSplits,
        args: TrainingArguments,
        metric: Metric,
        stopping: StoppingRule,
        execution: Execution | None = None,
    ) -> None:
        self._model_init = model_init
        self._data = data
        self._execution = execution or Execution()
        self._args = self._execution.arguments(args)
        self._metric = metric
        self._stopping = stopping

    def fit(
        self,
        config: BioTuneConfig,
        seed: int,
        on_epoch: Callable[[int, int], None] | None = None,
    ) -> FineTuneResult:
        """Train once.

        Args:
            config: which blocks, at which rates.
            seed: of initialisation and data order.
            on_epoch: called with the number of finished epochs and of all epochs.
        """

        def attempt(parts: int) -> FineTuneResult:
            return self._fit(config, seed, on_epoch, parts)

        return with_smaller_batches(attempt, self._args.per_device_train_batch_size)

    def _fit(
        self,
        config: BioTuneConfig,
        seed: int,
        on_epoch: Callable[[int, int], None] | None,
        parts: int,
    ) -> FineTuneResult:
        set_seed(seed)
        base = self._model_init()
        self._execution.lay_out(base)
        # Some transformers classifiers say that they use the number of items in a batch and don't:
        # with gradient accumulation, `Trainer` would then scale their gradients up.
        setattr(base, "accepts_loss_kwargs", False)  # noqa: B010 - not a tensor or module
        model = get_biotune_model(base, copy.deepcopy(config), keep_base_weights=False)
        curve = _Curve(self._metric, self._stopping, on_epoch)
        output_dir = self._args.output_dir
        parent = output_dir if output_dir and Path(output_dir).is_dir() else None
        with tempfile.TemporaryDirectory(prefix="checkpoints-", dir=parent) as directory:
            args = _arguments(self._args, directory, self._metric, seed, parts)
            trainer = self._trainer(model, args, curve)
            started = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - started
        test_logits, test_score = self._test(model, trainer.args.device)
        return FineTuneResult(
            model=model,
            seed=seed,
            validation_score=float(trainer.state.best_metric),
            test_logits=test_logits,
            test_score=test_score,
            epochs=len(curve.scores),
            seconds=seconds,
        )

    def _trainer(self, model: BioTuneModel, args: TrainingArguments, curve: _Curve) -> Trainer:
        trainer = Trainer(
            model,
            args,
            data_collator=default_data_collator,
            train_dataset=self._data.train.for_trainer(args.seed),
            eval_dataset=self._data.validation,
            compute_metrics=_compute_metrics(self._metric),
            **biotune_trainer_kwargs(model, callbacks=[curve]),
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        return trainer

    def _test(
        self, model: BioTuneModel, device: torch.device
    ) -> tuple[torch.Tensor | None, float | None]:
        if self._data.test is None:
            return None, None
        logits = predict(
            Forward(model, device), self._data.test.view(), self._args.per_device_eval_batch_size
        )
        return logits, self._metric.compute(logits, self._data.test.labels)


def _arguments(
    args: TrainingArguments, directory: str, metric: Metric, seed: int, parts: int
) -> TrainingArguments:
    changed = copy.copy(args)
    settings: dict[str, Any] = {
        "per_device_train_batch_size": part_of(args.per_device_train_batch_size, parts),
        "per_device_eval_batch_size": part_of(args.per_device_eval_batch_size, parts),
        "gradient_accumulation_steps": args.gradient_accumulation_steps * parts,
        "output_dir": directory,
        "seed": seed,
        "data_seed": seed,
        "eval_strategy": IntervalStrategy.EPOCH,
        "save_strategy": SaveStrategy.EPOCH,
        "logging_strategy": IntervalStrategy.EPOCH,
        "save_total_limit": 1,
        "save_only_model": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric.name,
        "greater_is_better": metric.greater_is_better,
        "label_names": ["labels"],
        "disable_tqdm": True,
        "push_to_hub": False,
    }
    for name, value in settings.items():
        setattr(changed, name, value)
    return changed


def _compute_metrics(metric: Metric) -> Callable[[EvalPrediction], dict[str, float]]:
    def compute(prediction: EvalPrediction) -> dict[str, float]:
        predicted = prediction.predictions
        logits = torch.as_tensor(predicted[0] if isinstance(predicted, tuple) else predicted)
        return {metric.name: metric.compute(logits, torch.as_tensor(prediction.label_ids))}

    return compute


class _Curve(TrainerCallback):  # type: ignore[misc]
    """Follows the score of each epoch, and stops by the same rule as the search."""

    def __init__(
        self,
        metric: Metric,
        stopping: StoppingRule,
        on_epoch: Callable[[int, int], None] | None,
    ) -> None:
        self.scores: list[float] = []
        self._metric = metric
        self._stopping = stopping
        self._on_epoch = on_epoch

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        self.scores.append(metrics[f"eval_{self._metric.name}"])
        epochs = int(args.num_train_epochs)
        if self._on_epoch is not None:
            self._on_epoch(len(self.scores), epochs)
        if self._stopping.is_over(self.scores, epochs, self._metric):
            control.should_training_stop = True
