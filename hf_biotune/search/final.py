"""The final fine-tuning of one configuration, by an unmodified `transformers.Trainer`."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Callable, Mapping
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
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from ..classification import takes_names
from ..config import BioTuneConfig
from ..model import BioTuneModel, get_biotune_model
from ..trainer import biotune_trainer_kwargs
from .data import EncodedSplit
from .data_splits import DataSplits
from .execution import Execution
from .fitness_result import SeedRun
from .forward import Forward
from .metrics import Metric, resolve_metric
from .out_of_memory import part_of, with_smaller_batches
from .stopping import StoppingRule, best_index
from .task import predict
from .team import check_is_no_team
from .tracking import LOG_DIRECTORY


@dataclass(frozen=True)
class FineTuneResult:
    """One final model.

    Args:
        model: with the weights of the best epoch.
        seed: of initialisation and data order.
        validation_score: of the best epoch; NaN if validation samples were trained on.
        test_logits: of the best epoch, if there is a test split. Shape: (samples, classes).
        test_score: the metric on them; `None` without a test split.
        epochs: that were trained.
        best_epoch: whose weights these are, from 1.
        seconds: of the final training, evaluation each epoch included; 0 if there was none.
    """

    model: BioTuneModel = field(repr=False)
    seed: int
    validation_score: float
    test_logits: torch.Tensor | None = field(repr=False)
    test_score: float | None
    epochs: int
    best_epoch: int
    seconds: float


class FineTuner:
    """Fine-tunes configurations, keeps the best epoch by validation, and tests that once.

    Args:
        model_init: makes the base model; called once per training, under its seed.
        data: samples to train on, to choose the epoch by, and perhaps to test on.
        args: of every training; what concerns saving, evaluating and logging is set here.
        metric: the score, or the name of one; see [`resolve_metric`].
        stopping: when a training ends early. Default: `StoppingRule()`.
        execution: memory layout and optimizer kernel are taken from it; the precision is that of
            `args`, whatever the search used. Default: as `args` say.
    """

    def __init__(
        self,
        model_init: Callable[[], nn.Module],
        data: DataSplits,
        args: TrainingArguments,
        metric: Metric | str,
        stopping: StoppingRule | None = None,
        execution: Execution | None = None,
    ) -> None:
        check_is_no_team("FineTuner")
        self._model_init = model_init
        self._data = data
        self._execution = execution or Execution()
        self._args = self._execution.arguments(args)
        self._metric = resolve_metric(metric)
        self._stopping = stopping or StoppingRule()
        self._number = 0

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
            curve = _Curve(self._metric, self._stopping, on_epoch)
            model, seconds = self._train(config, seed, self._data.train, curve, _CHOOSING, parts)
            best = best_index(curve.scores, self._metric)
            score = curve.scores[best]
            return self._result(model, seed, score, len(curve.scores), best + 1, seconds)

        return with_smaller_batches(attempt, self._args.per_device_train_batch_size)

    def fit_on_all(
        self,
        config: BioTuneConfig,
        seed: int,
        epochs: int,
        on_epoch: Callable[[int, int], None] | None = None,
    ) -> FineTuneResult:
        """Train once on training and validation samples together.

        There is nothing left to choose an epoch by, so the training ends after a given number.

        Args:
            config: which blocks, at which rates.
            seed: of initialisation and data order.
            epochs: to train, of the same schedule; the best epochs of trainings by
                [`~FineTuner.fit`] tell how many.
            on_epoch: called with the number of finished epochs and of all epochs.
        """
        samples = self._data.train.joined(self._data.validation)

        def attempt(parts: int) -> FineTuneResult:
            end = _EndAfter(epochs, on_epoch)
            model, seconds = self._train(config, seed, samples, end, _NOT_CHOOSING, parts)
            return self._result(model, seed, math.nan, epochs, epochs, seconds)

        return with_smaller_batches(attempt, self._args.per_device_train_batch_size)

    def test(self, model: BioTuneModel, run: SeedRun) -> FineTuneResult:
        """A model that the search trained, as a final one.

        Args:
            model: with the weights of the best epoch.
            run: its training.
        """
        best = best_index([epoch.score for epoch in run.curve], self._metric)
        model.to(self._args.device)
        return self._result(model, run.seed, run.score, run.epochs, best + 1, 0.0)

    def scores_of(self, model: nn.Module) -> tuple[float, float | None]:
        """The scores of any classifier on the validation and the test samples.

        Args:
            model: see [`logits_of`]; it is moved to where trainings are.
        """
        model.to(self._args.device)
        test = self._data.test
        validation = self._metric.compute(
            self._predict(model, self._data.validation), self._data.validation.labels
        )
        if test is None:
            return validation, None
        return validation, self._metric.compute(self._predict(model, test), test.labels)

    def _train(
        self,
        config: BioTuneConfig,
        seed: int,
        samples: EncodedSplit,
        callback: TrainerCallback,
        choosing: Mapping[str, Any],
        parts: int,
    ) -> tuple[BioTuneModel, float]:
        """The trained model, and the seconds that it took."""
        set_seed(seed)
        base = self._model_init()
        self._execution.lay_out(base)
        # Some transformers classifiers say that they use the number of items in a batch and don't:
        # with gradient accumulation, `Trainer` would then scale their gradients up.
        setattr(base, "accepts_loss_kwargs", False)  # noqa: B010 - not a tensor or module
        if hasattr(base, "config"):
            # Of a checkpoint for several classes a sample, say: the search has one for each.
            setattr(base.config, "problem_type", "single_label_classification")  # noqa: B010
        model = get_biotune_model(base, config, keep_base_weights=False)
        output_dir = self._args.output_dir
        parent = output_dir if output_dir and Path(output_dir).is_dir() else None
        with tempfile.TemporaryDirectory(prefix="checkpoints-", dir=parent) as directory:
            args = _arguments(self._args, directory, self._metric, seed, choosing, parts)
            if not takes_names(base):
                # Trainer would ask the model's own configuration how to smooth.
                model.label_smoothing = args.label_smoothing_factor
                args.label_smoothing_factor = 0.0
            trainer = Trainer(
                model,
                args,
                data_collator=default_data_collator,
                train_dataset=samples.for_trainer(seed),
                eval_dataset=self._data.validation,
                compute_metrics=_compute_metrics(self._metric),
                **biotune_trainer_kwargs(model, callbacks=[callback]),
            )
            for printing in (PrinterCallback, ProgressCallback):
                trainer.remove_callback(printing)
            self._number += 1
            _keep_logs(trainer, self._args, f"final-{self._number}-seed-{seed}")
            started = time.perf_counter()
            trainer.train()
            return model, time.perf_counter() - started

    def _result(
        self,
        model: BioTuneModel,
        seed: int,
        validation_score: float,
        epochs: int,
        best_epoch: int,
        seconds: float,
    ) -> FineTuneResult:
        test = self._data.test
        logits = None if test is None else self._predict(model, test)
        score = None
        if test is not None and logits is not None:
            score = self._metric.compute(logits, test.labels)
        return FineTuneResult(
            model=model,
            seed=seed,
            validation_score=validation_score,
            test_logits=logits,
            test_score=score,
            epochs=epochs,
            best_epoch=best_epoch,
            seconds=seconds,
        )

    def _predict(self, model: nn.Module, split: EncodedSplit) -> torch.Tensor:
        forward = Forward(model, self._args.device)
        return predict(forward, split.view(), self._args.per_device_eval_batch_size)


# Whether the weights of the best epoch are taken in the end, or the last.
_CHOOSING: dict[str, Any] = {
    "eval_strategy": IntervalStrategy.EPOCH,
    "save_strategy": SaveStrategy.EPOCH,
    "load_best_model_at_end": True,
}
_NOT_CHOOSING: dict[str, Any] = {
    "eval_strategy": IntervalStrategy.NO,
    "save_strategy": SaveStrategy.NO,
    "load_best_model_at_end": False,
}


def _arguments(
    args: TrainingArguments,
    directory: str,
    metric: Metric,
    seed: int,
    choosing: Mapping[str, Any],
    parts: int,
) -> TrainingArguments:
    changed = copy.copy(args)
    settings: dict[str, Any] = {
        **choosing,
        "per_device_train_batch_size": part_of(args.per_device_train_batch_size, parts),
        "per_device_eval_batch_size": part_of(args.per_device_eval_batch_size, parts),
        "gradient_accumulation_steps": args.gradient_accumulation_steps * parts,
        "output_dir": directory,
        "seed": seed,
        "data_seed": seed,
        "logging_strategy": IntervalStrategy.EPOCH,
        "save_total_limit": 1,
        "save_only_model": True,
        "metric_for_best_model": metric.name,
        "greater_is_better": metric.greater_is_better,
        "label_names": ["labels"],
        # Samples hold what the model takes, which a timm model's forward does not tell.
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "push_to_hub": False,
        # As the search does it: whole epochs, all samples, one score for each epoch.
        "num_train_epochs": math.ceil(args.num_train_epochs),
        "dataloader_drop_last": False,
        "eval_on_start": False,
        "eval_delay": 0,
    }
    for name, value in settings.items():
        setattr(changed, name, value)
    # With more than one, Trainer would make batches as many times as large as the search's.
    changed._n_gpu = min(1, args.n_gpu)
    return changed


def _keep_logs(trainer: Trainer, args: TrainingArguments, name: str) -> None:
    """TensorBoard's files would else lie among the checkpoints, which are thrown away."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and not callback.logging_dir:
            callback.logging_dir = str(Path(args.output_dir or ".") / LOG_DIRECTORY / name)


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


class _EndAfter(TrainerCallback):  # type: ignore[misc]
    """Ends a training early, its schedule unchanged."""

    def __init__(self, epochs: int, on_epoch: Callable[[int, int], None] | None) -> None:
        self._epochs = epochs
        self._on_epoch = on_epoch

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        finished = round(state.epoch)
        if self._on_epoch is not None:
            self._on_epoch(finished, self._epochs)
        if finished >= self._epochs:
            control.should_training_stop = True
