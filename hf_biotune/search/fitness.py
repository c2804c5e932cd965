"""Fitness: train one genotype's phenotype for some seeds, and give it one number.

A lean loop on Accelerate. The final training uses `transformers.Trainer`; both share the wrapper,
the parameter groups and the training arguments, and a test holds that they give the same weights.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from peft import PeftModel
from torch import nn
from transformers import TrainingArguments, get_scheduler, set_seed

from ..classification import loss_of
from ..config import BioTuneConfig
from ..norm_statistics import restart_averages
from ..recompute import recompute_as_asked
from .data import EncodedSplit, SplitView
from .execution import Execution, precision_of
from .fitness_result import DIVERGED, EpochRecord, FitnessResult, SeedRun
from .forward import Forward
from .metrics import Metric
from .out_of_memory import part_of, with_smaller_batches
from .prefix_cache import PrefixCache
from .stopping import StoppingRule, best_index
from .task import evaluating, predict
from .team import ALONE, Team
from .training import Live, Training, training_of
from .weights import BaseModelPool

logger = logging.getLogger(__name__)

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
        stopping: when a training ends early. Default: `StoppingRule()`.
        execution: how trainings are computed; the pool's model must be in its memory layout.
            Default: as `args` say.
        cache: of the activations of frozen first blocks. Default: none.
        team: the processes that train together; all of them evaluate the same at the same time.
            Batches are as many times as large, as with `Trainer`. Default: this process alone.
    """

    def __init__(
        self,
        pool: BaseModelPool,
        train: EncodedSplit,
        validation: EncodedSplit,
        args: TrainingArguments,
        metric: Metric,
        stopping: StoppingRule | None = None,
        execution: Execution | None = None,
        cache: PrefixCache | None = None,
        team: Team = ALONE,
    ) -> None:
        self.pool = pool
        self.train = train
        self.validation = validation
        self.args = args
        self.metric = metric
        self.stopping = stopping or StoppingRule()
        self.execution = execution or Execution.of(args)
        self.cache = cache
        self.team = team
        self.epochs = math.ceil(args.num_train_epochs)
        self._has_told_of_nan = False

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
                training as halved, and the seeds after it. Of a team's, only the leader's counts.
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
        with self.team.together():
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
            with self.team.together():
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
        with self.team.together():
            model, optimizer, scheduler = self._prepare(training, wrapped, len(train))
            training.set_train_mode(model)
            forward: Forward = Forward(model, self._accelerator.device)
            if self.cache is not None and training.freezes_whole_blocks:
                forward = self.cache.forward(model, wrapped, seed, self._accelerator.device)
                self._make_ready(forward, train, validation, seed)
        settled_after = training.settled_after(self.epochs)
        curve: list[EpochRecord] = []
        for epoch in range(self.epochs):
            with self.team.together():
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
                restart_averages(model)
            train_loss = self._epoch(forward, optimizer, scheduler, samples, seed, epoch)
            rate = optimizer.param_groups[0]["lr"] / optimizer.param_groups[0]["lr_multiplier"]
            curve.append(self._record(forward, validation, train_loss, rate))
            if not math.isfinite(curve[-1].train_loss + curve[-1].validation_loss):
                return curve, DIVERGED
            scores = [e.score for e in curve]
            with self.team.together():
                if best_index(scores, self.metric) == epoch:
                    keeper.on_best_epoch(wrapped, curve[-1].score)
                goes_on = after_epoch is None or after_epoch(seed, curve)
            if not self.team.hear(goes_on):
                return curve, "halving"
            if self.stopping.is_over(scores, self.epochs, self.metric, settled_after):
                return curve, "patience" if epoch + 1 < self.epochs else ""
        return curve, ""

    def _make_ready(
        self, forward: Forward, train: SplitView, validation: SplitView, seed: int
    ) -> None:
        """Let the cache compute what it lacks, in the mode and precision that it is used in."""
        device = self._accelerator.device
        batches = torch.split(epoch_order(len(train), seed, 0), self._batch_size)
        parts = [part for batch in batches for part in self._own_parts(batch)]
        with self.execution.training_context(device):
            forward.prepare(train, parts)
        size = part_of(self.args.per_device_eval_batch_size, self._parts)
        with (
            self.execution.validation_context(device),
            torch.no_grad(),
            evaluating(forward.model),
        ):
            forward.prepare(validation, torch.split(self._scored_here(validation), size))

    def _prepare(
        self, training: Training, wrapped: PeftModel, n_samples: int
    ) -> tuple[nn.Module, Any, Any]:
        recompute_as_asked(wrapped.get_base_model(), self.args)
        optimizer = training.optimizer(wrapped, self.execution.arguments(self.args))
        steps = self.epochs * math.ceil(n_samples / self._batch_size)
        scheduler = get_scheduler(
            self.args.lr_scheduler_type,
            optimizer,
            num_warmup_steps=self.args.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=self.args.lr_scheduler_kwargs,
        )
        # The team adds gradients itself, so there is nothing to wrap for several processes.
        model = self._accelerator.prepare_model(wrapped, evaluation_mode=True)
        return model, *self._accelerator.prepare(optimizer, scheduler)

    @property
    def _batch_size(self) -> int:
        size: int = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return size * self.team.size

    def _own_parts(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """What this process computes of a batch, as much at a time as memory may hold."""
        part_size = part_of(self.args.per_device_train_batch_size, self._parts)
        shares = map(self.team.share, torch.split(batch, part_size * self.team.size))
        return [share for share in shares if len(share)]

    def _scored_here(self, validation: SplitView) -> torch.Tensor:
        """The positions of the samples that this process scores."""
        return self.team.share(torch.arange(len(validation)))

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
        trained = [p for p in forward.model.parameters() if p.requires_grad]
        total = torch.zeros((), device=self._accelerator.device)
        batches = torch.split(epoch_order(len(train), seed, epoch), self._batch_size)
        for batch in batches:
            with self.team.together():
                for part in self._own_parts(batch):
                    total += self._backward(forward, train, part, len(part) / len(batch))
            self.team.add_gradients(trained)
            with self.team.together():
                if self.args.max_grad_norm:
                    self._accelerator.clip_grad_norm_(trained, self.args.max_grad_norm)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        return float(self.team.total(total)) / len(batches)

    def _backward(
        self, forward: Forward, train: SplitView, positions: torch.Tensor, share: float
    ) -> torch.Tensor:
        """Add a part's gradients. Returns its loss, as its share of the batch's."""
        device = self._accelerator.device
        with self.execution.training_context(device):
            logits = forward(train, positions)
        labels = train.labels[positions].to(device)
        loss = loss_of(logits, labels, self.args.label_smoothing_factor) * share
        self._accelerator.backward(loss)
        return loss.detach()

    def _record(
        self, forward: Forward, validation: SplitView, train_loss: float, rate: float
    ) -> EpochRecord:
        self.team.share_statistics(forward.model)
        size = part_of(self.args.per_device_eval_batch_size, self._parts)
        with (
            self.team.together(),
            self.execution.validation_context(self._accelerator.device),
        ):
            logits = predict(forward, validation, size, self._scored_here(validation))
        logits = self.team.all_rows(logits)
        finite = bool(torch.isfinite(logits).all())
        return EpochRecord(
            train_loss=train_loss,
            validation_loss=float(loss_of(logits, validation.labels)) if finite else math.inf,
            score=self._score(logits, validation.labels) if finite else self.metric.worst,
            learning_rate=rate,
        )

    def _score(self, logits: torch.Tensor, labels: torch.Tensor) -> float:
        """The metric; its worst score where it is not a number, such as a precision of 0 / 0."""
        score = self.metric.compute(logits, labels)
        if not math.isnan(score):
            return score
        if not self._has_told_of_nan:
            logger.warning(
                "%s is not a number for some predictions; it counts as %s there",
                self.metric.name,
                self.metric.worst,
            )
        self._has_told_of_nan = True
        return self.metric.worst


def accelerator_for(args: TrainingArguments) -> Accelerator:
    """The Accelerator that runs trainings with these arguments: device and scaling of gradients.

    Its precision is that of the arguments: a process has one, for `Trainer` and the search alike.
    What the search computes in bf16 beyond that is up to an [`Execution`].
    """
    precision = precision_of(args)
    return Accelerator(
        cpu=args.use_cpu,
        mixed_precision="no" if precision == "fp32" else precision,
        # Schedules count the steps of a team, not of its processes.
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )


def epoch_order(n_samples: int, seed: int, epoch: int) -> torch.Tensor:
    """The order of the samples in one epoch: a function of seed and epoch alone."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n_samples))
