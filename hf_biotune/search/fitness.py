"""Fitness: train one genotype's phenotype for some seeds, and give it one number.

A lean loop on Accelerate. The final training uses `transformers.Trainer`; both share the wrapper,
the parameter groups and the training arguments, and a test holds that they give the same weights.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from torch import nn
from transformers import TrainingArguments, get_scheduler, set_seed

from ..classification import loss_of
from ..config import BioTuneConfig
from .data import EncodedSplit, SplitView
from .execution import Execution, precision_of
from .forward import Forward
from .metrics import Metric
from .out_of_memory import part_of, with_smaller_batches
from .prefix_cache import PrefixCache
from .task import batches_in_order, evaluating, predict
from .training import Live, Training, training_of
from .weights import BaseModelPool

# Why a training ended with the metric's worst score.
DIVERGED, FAILED = "diverged", "failed"


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of a learning curve.

    Args:
        train_loss: mean over the epoch's steps.
        validation_loss: mean cross-entropy on the validation samples.
        score: the metric on the validation samples.
        learning_rate: the base rate at the end of the epoch, before any multiplier.
    """

    train_loss: float
    validation_loss: float
    score: float
    learning_rate: float


@dataclass(frozen=True)
class SeedRun:
    """One training: one phenotype, one seed, one fold.

    Args:
        seed: of initialisation, data order and dropout.
        curve: one record per epoch that was trained.
        score: the best epoch's score, the metric's worst one if the run diverged.
        seconds: wall time, evaluation included.
        stopped: why it ended early: `""`, `"patience"`, `"halving"`, `"diverged"` or `"failed"`,
            in which case nothing is known of its curve.
        batch_parts: into so many parts batches were divided, because memory did not suffice for
            them; see [`with_smaller_batches`].
        reason: why it diverged or failed.
    """

    seed: int
    curve: tuple[EpochRecord, ...]
    score: float
    seconds: float
    stopped: str = ""
    batch_parts: int = 1
    reason: str = ""

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.curve)


@dataclass(frozen=True)
class FitnessResult:
    """What the trainings of one phenotype gave.

    Args:
        runs: one per seed that was trained.
        trained_parameters: numbers in trained blocks.
        trainings: cost in units of one full training: all samples, all epochs.
    """

    runs: tuple[SeedRun, ...]
    trained_parameters: int
    trainings: float

    @property
    def score(self) -> float:
        """Mean of the runs' scores."""
        return statistics.fmean(run.score for run in self.runs)

    @property
    def score_std(self) -> float:
        """Sample standard deviation over seeds; NaN for a single one."""
        if len(self.runs) < 2:
            return math.nan
        return statistics.stdev(run.score for run in self.runs)

    @property
    def seconds(self) -> float:
        """Wall time of all runs."""
        return sum(run.seconds for run in self.runs)

    @property
    def epochs(self) -> int:
        """Epochs of all runs."""
        return sum(run.epochs for run in self.runs)

    @property
    def was_halved(self) -> bool:
        """Whether a run was stopped for being worse than its peers at the rung."""
        return any(run.stopped == "halving" for run in self.runs)

    def joined(self, further: FitnessResult) -> FitnessResult:
        """This and further trainings of the same phenotype, with other seeds."""
        return replace(
            self, runs=self.runs + further.runs, trainings=self.trainings + further.trainings
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FitnessResult:
        """The inverse of [`~FitnessResult.to_dict`]."""
        runs = tuple(
            SeedRun(**{**run, "curve": tuple(EpochRecord(**epoch) for epoch in run["curve"])})
            for run in data["runs"]
        )
        return cls(runs, data["trained_parameters"], data["trainings"])


@dataclass(frozen=True)
class StoppingRule:
    """When a training ends before its last epoch.

    Args:
        patience: epochs without a better score; `None`: never.
        patience_from: share of the epochs before which patience doesn't stop.
    """

    patience: int | None = 3
    patience_from: float = 1 / 3

    def is_over(
        self, scores: Sequence[float], epochs: int, metric: Metric, settled_after: int = 0
    ) -> bool:
        """Whether the training should end after the epochs that have these scores.

        Args:
            scores: one per finished epoch.
            epochs: of the whole training.
            metric: of the scores.
            settled_after: so many epochs change what is trained; patience counts from there.
        """
        if self.patience is None or len(scores) < math.ceil(self.patience_from * epochs):
            return False
        last_news = max(best_index(scores, metric), settled_after - 1)
        return len(scores) - 1 - last_news >= self.patience


EpochHook = Callable[[int, Sequence[EpochRecord]], bool]


class RunKeeper:
    """What is done with the weights of trainings; nothing here."""

    def on_best_epoch(self, model: PeftModel, score: float) -> None:
        """The model has its best weights so far."""

    def on_run_end(self, model: PeftModel, run: SeedRun) -> None:
        """The training is over; the model has its last weights, and is taken apart next."""


class FitnessEvaluator:
    """Trains phenotypes on one data set, one after the other, on one device.

    Args:
        pool: the base model.
        train: samples to train on.
        validation: samples to score on.
        args: learning rate, epochs, batch size, optimizer, schedule, precision, as for `Trainer`.
        metric: the score.
        stopping: when a training ends early.
        execution: how trainings are computed; the pool's model must be in its memory layout.
            Default: as `args` say.
        cache: of the activations of frozen first blocks. Default: none.
    """

    def __init__(
        self,
        pool: BaseModelPool,
        train: EncodedSplit,
        validation: EncodedSplit,
        args: TrainingArguments,
        metric: Metric,
        stopping: StoppingRule = StoppingRule(),
        execution: Execution | None = None,
        cache: PrefixCache | None = None,
    ) -> None:
        self.pool = pool
        self.train = train
        self.validation = validation
        self.args = args
        self.metric = metric
        self.stopping = stopping
        self.execution = execution or Execution.of(args)
        self.cache = cache
        self.epochs = math.ceil(args.num_train_epochs)

    def evaluate(
        self,
        config: BioTuneConfig | Training,
        seeds: Sequence[int],
        train_indices: np.ndarray | None = None,
        validation_indices: np.ndarray | None = None,
        after_epoch: EpochHook | None = None,
        keeper: RunKeeper | None = None,
    ) -> FitnessResult:
        """Train and score one phenotype.

        Args:
            config: which blocks, at which rates; or any other way to train.
            seeds: one training each.
            train_indices: the fold's training samples. Default: all.
            validation_indices: the fold's validation samples. Default: all.
            after_epoch: called with the seed and the curve so far; returning `False` stops the
                training as halved, and the seeds after it.
            keeper: is shown the weights. Default: they are lost.

        Returns:
            Every run's curve and score. A run that diverged has the metric's worst score.
        """
        train, validation = self.train.view(train_indices), self.validation.view(validation_indices)
        training = training_of(config)
        runs: list[SeedRun] = []
        for seed in seeds:
            runs.append(
                self._run(training, seed, train, validation, after_epoch, keeper or RunKeeper())
            )
            if runs[-1].stopped == "halving":
                break
        share = len(train) / len(self.train) / self.epochs
        return FitnessResult(
            runs=tuple(runs),
            trained_parameters=self._trained_parameters,
            trainings=share * sum(run.epochs for run in runs),
        )

    def _run(
        self,
        training: Training,
        seed: int,
        train: SplitView,
        validation: SplitView,
        after_epoch: EpochHook | None,
        keeper: RunKeeper,
    ) -> SeedRun:
        started = time.perf_counter()

        def attempt(parts: int) -> SeedRun:
            self._parts = parts
            return self._attempt(training, seed, train, validation, after_epoch, keeper, started)

        return with_smaller_batches(attempt, self.args.per_device_train_batch_size)

    def _attempt(
        self,
        training: Training,
        seed: int,
        train: SplitView,
        validation: SplitView,
        after_epoch: EpochHook | None,
        keeper: RunKeeper,
        started: float,
    ) -> SeedRun:
        base = self.pool.restore(seed)
        set_seed(seed)
        wrapped = training.wrap(base)
        # A new one each time: it holds on to what it prepares, and letting it go costs less than
        # the garbage collection of `free_memory`.
        self._accelerator = accelerator_for(self.args)
        self._trained_parameters = wrapped.get_nb_trainable_parameters()[0]
        try:
            curve, stopped = self._train(
                training, wrapped, seed, train, validation, after_epoch, keeper
            )
            scores = [epoch.score for epoch in curve]
            score, reason = self.metric.worst, ""
            if stopped == DIVERGED:
                reason = f"diverged: its loss was no finite number in epoch {len(curve)}"
            else:
                score = scores[best_index(scores, self.metric)]
            seconds = time.perf_counter() - started
            run = SeedRun(seed, tuple(curve), score, seconds, stopped, self._parts, reason)
            keeper.on_run_end(wrapped, run)
        finally:
            training.unwrap(wrapped)
        return run

    def _train(
        self,
        training: Training,
        wrapped: PeftModel,
        seed: int,
        train: SplitView,
        validation: SplitView,
        after_epoch: EpochHook | None,
        keeper: RunKeeper,
    ) -> tuple[list[EpochRecord], str]:
        model, optimizer, scheduler = self._prepare(training, wrapped, len(train))
        training.set_train_mode(model)
        forward: Forward = Forward(model, self._accelerator.device)
        if self.cache is not None and training.freezes_whole_blocks:
            forward = self.cache.forward(model, wrapped, seed, self._accelerator.device)
            self._make_ready(forward, train, validation, seed)
        settled_after = training.settled_after(self.epochs)
        curve: list[EpochRecord] = []
        for epoch in range(self.epochs):
            samples = train.at_epoch(seed, epoch)
            training.on_epoch_begin(
                Live(
                    wrapped,
                    getattr(optimizer, "optimizer", optimizer),
                    forward,
                    samples,
                    self.args,
                    self.execution,
                    part_of(self.args.per_device_train_batch_size, self._parts),
                    seed,
                    epoch,
                    self.epochs,
                )
            )
            train_loss = self._epoch(forward, optimizer, scheduler, samples, seed, epoch)
            rate = optimizer.param_groups[0]["lr"] / optimizer.param_groups[0]["lr_multiplier"]
            curve.append(self._record(forward, validation, train_loss, rate))
            if not math.isfinite(curve[-1].train_loss + curve[-1].validation_loss):
                return curve, DIVERGED
            if best_index([e.score for e in curve], self.metric) == epoch:
                keeper.on_best_epoch(wrapped, curve[-1].score)
            if after_epoch is not None and not after_epoch(seed, curve):
                return curve, "halving"
            scores = [e.score for e in curve]
            if self.stopping.is_over(scores, self.epochs, self.metric, settled_after):
                return curve, "patience" if epoch + 1 < self.epochs else ""
        return curve, ""

    def _make_ready(
        self, forward: Forward, train: SplitView, validation: SplitView, seed: int
    ) -> None:
        """Let the cache compute what it lacks, in the mode and precision that it is used in."""
        device = self._accelerator.device
        order = epoch_order(len(train), seed, 0)
        part_size = part_of(self.args.per_device_train_batch_size, self._parts)
        parts = [p for b in torch.split(order, self._batch_size) for p in torch.split(b, part_size)]
        with self.execution.training_context(device):
            forward.prepare(train, parts)
        size = part_of(self.args.per_device_eval_batch_size, self._parts)
        with (
            self.execution.validation_context(device),
            torch.no_grad(),
            evaluating(forward.model),
        ):
            forward.prepare(validation, batches_in_order(len(validation), size))

    def _prepare(
        self, training: Training, wrapped: PeftModel, n_samples: int
    ) -> tuple[nn.Module, Any, Any]:
        optimizer = training.optimizer(wrapped, self.execution.arguments(self.args))
        steps = self.epochs * math.ceil(n_samples / self._batch_size)
        scheduler = get_scheduler(
            self.args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=self.args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=self.args.lr_scheduler_kwargs,
        )
        prepared: tuple[nn.Module, Any, Any] = self._accelerator.prepare(
            wrapped, optimizer, scheduler
        )
        return prepared

    @property
    def _batch_size(self) -> int:
        size: int = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return size

    def _epoch(
        self,
        forward: Forward,
        optimizer: Any,
        scheduler: Any,
        train: SplitView,
        seed: int,
        epoch: int,
    ) -> float:
        """One pass over the training samples. Returns the mean loss of its steps."""
        part_size = part_of(self.args.per_device_train_batch_size, self._parts)
        device = self._accelerator.device
        trained = [p for p in forward.model.parameters() if p.requires_grad]
        total = torch.zeros((), device=device)
        batches = torch.split(epoch_order(len(train), seed, epoch), self._batch_size)
        for indices in batches:
            for micro in torch.split(indices, part_size):
                with self.execution.training_context(device):
                    logits = forward(train, micro)
                labels = train.labels[micro].to(device)
                loss = loss_of(logits, labels, self.args.label_smoothing_factor)
                loss = loss * (len(micro) / len(indices))
                self._accelerator.backward(loss)
                total += loss.detach()
            if self.args.max_grad_norm:
                self._accelerator.clip_grad_norm_(trained, self.args.max_grad_norm)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        return float(total) / len(batches)

    def _record(
        self, forward: Forward, validation: SplitView, train_loss: float, rate: float
    ) -> EpochRecord:
        with self.execution.validation_context(self._accelerator.device):
            size = part_of(self.args.per_device_eval_batch_size, self._parts)
            logits = predict(forward, validation, size)
        finite = bool(torch.isfinite(logits).all())
        return EpochRecord(
            train_loss=train_loss,
            validation_loss=float(loss_of(logits, validation.labels)) if finite else math.inf,
            score=self.metric.compute(logits, validation.labels) if finite else self.metric.worst,
            learning_rate=rate,
        )


def accelerator_for(args: TrainingArguments) -> Accelerator:
    """The Accelerator that runs trainings with these arguments: device and scaling of gradients.

    Its precision is that of the arguments: a process has one, for `Trainer` and the search alike.
    What the search computes in bf16 beyond that is up to an [`Execution`].
    """
    precision = precision_of(args)
    return Accelerator(cpu=args.use_cpu, mixed_precision="no" if precision == "fp32" else precision)


def epoch_order(n_samples: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of the samples in one epoch: a function of seed and epoch alone."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n_samples))


def best_index(scores: Sequence[float], metric: Metric) -> int:
    """The first of the best scores."""
    best = 0
    for index, score in enumerate(scores):
        if metric.is_better(score, scores[best]):
            best = index
    return best
