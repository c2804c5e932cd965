"""The fastest way to compute a training whose results agree, by measurement and not by belief.

Agreement is judged by the loss and its gradient at the same weights, in eval mode. Losses after
some steps of Adam would not do: two layouts in single precision differ by 2 to 5 per cent after
three steps of EfficientNet-Lite0, since Adam's first steps turn the signs of tiny gradients into
whole steps. Nor would the loss alone: in bf16 on a CPU that model's loss is right to 0.2 per cent
while its gradient is off by more than its own length.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import optuna
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from ..classification import logits_of, loss_of
from .data import EncodedSplit
from .execution import Candidates, Execution, autocast
from .out_of_memory import is_out_of_memory, part_of, with_smaller_batches
from .race import OPTIMIZER_STEP, TRAINING_STEP, VALIDATION_BATCH, Outcome, Timing, Way, race
from .weights import BaseModelPool

logger = logging.getLogger(__name__)

EXECUTION_KEY = "execution"
# Relative to single precision. Layouts differ by less than 1e-5; the gradient of bf16 by 0.005
# (vision transformers, ConvNeXt), 0.03 to 0.06 (ResNet-50), 0.3 to 1.4 (EfficientNet-Lite0).
GRADIENT_TOLERANCE = 0.05
LOGITS_TOLERANCE = 0.02
UPDATE_TOLERANCE = 0.001
# In pixels. On a CPU torch 2.14 leaves the gradients of such strided convolutions in bf16 partly
# uninitialised: they are right in one step, and wrong or not finite in the next.
TOO_SMALL = 2


@dataclass(frozen=True)
class Choice:
    """How the trainings of a study are computed, and what that was chosen from.

    Args:
        execution: the choice.
        timings: what was measured; empty if there was nothing to choose.
    """

    execution: Execution
    timings: tuple[Timing, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Choice:
        """The inverse of [`~Choice.to_dict`]."""
        timings = tuple(Timing(**timing) for timing in values["timings"])
        return cls(Execution.from_dict(values["execution"]), timings)


def choose_execution(
    study: optuna.Study,
    candidates: Candidates,
    pool: BaseModelPool,
    train: EncodedSplit,
    validation: EncodedSplit,
    args: TrainingArguments,
) -> Choice:
    """The study's own choice; a new study gets the fastest candidate.

    Measured once per study: another choice after a restart would change last bits.

    Args:
        study: keeps the choice.
        candidates: to choose among.
        pool: see [`Calibration`].
        train: see [`Calibration`].
        validation: see [`Calibration`].
        args: see [`Calibration`].
    """
    if candidates.is_settled:
        return Choice(candidates.plainest)
    if EXECUTION_KEY not in study.user_attrs:

        def attempt(parts: int) -> Choice:
            return Calibration(pool, train, validation, args, parts).fastest(candidates)

        try:
            choice = with_smaller_batches(attempt, args.per_device_train_batch_size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # Individuals that train less may fit.
            logger.warning(
                "training every block does not fit into memory, so nothing could be timed; "
                "trainings are computed with %s",
                candidates.plainest,
            )
            choice = Choice(candidates.plainest)
        study.set_user_attr(EXECUTION_KEY, choice.to_dict())
    return Choice.from_dict(study.user_attrs[EXECUTION_KEY])


class Calibration:
    """Times real steps of a real model; its weights and statistics stay as they are.

    Args:
        pool: of the model, which is put back afterwards.
        train: samples to take a training batch from.
        validation: samples to take a scoring batch from.
        args: batch sizes, optimizer, device.
        parts: into so many each batch is divided, of which one is timed.
    """

    def __init__(
        self,
        pool: BaseModelPool,
        train: EncodedSplit,
        validation: EncodedSplit,
        args: TrainingArguments,
        parts: int = 1,
    ) -> None:
        self._pool = pool
        self._args = args
        self._device = args.device
        self._training = self._batch(train, part_of(args.per_device_train_batch_size, parts))
        self._scoring = self._batch(validation, part_of(args.per_device_eval_batch_size, parts))

    def _batch(self, split: EncodedSplit, size: int) -> dict[str, torch.Tensor]:
        return split.batch(torch.arange(min(size, len(split))), device=self._device)

    def fastest(self, candidates: Candidates) -> Choice:
        """The fastest candidate that agrees with the plainest one, part by part.

        Of those that take nearly the same time, it is the plainest.
        """
        with self._untouched() as model:
            training = race(TRAINING_STEP, self._training_ways(model, candidates))
            layout, precision = training.winner
            self._training_step(model, layout, precision)
            optimizer = race(
                OPTIMIZER_STEP, self._optimizer_ways(model, candidates.fused), training.seconds
            )
            validation = race(
                VALIDATION_BATCH,
                self._validation_ways(model, layout, candidates.validation_precisions),
            )
        return Choice(
            Execution(layout, precision, validation.winner[1], optimizer.winner),
            (*training.timings, *optimizer.timings, *validation.timings),
        )

    @contextmanager
    def _untouched(self) -> Iterator[nn.Module]:
        """The model in eval mode, where no statistics move and no random numbers are drawn."""
        model = self._pool.restore(0)
        was_training = model.training
        model.eval()
        try:
            with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
                yield model
        finally:
            model.to(memory_format=torch.contiguous_format)
            model.train(was_training)
            self._pool.restore(0)

    def _training_ways(
        self, model: nn.Module, candidates: Candidates
    ) -> list[Way[tuple[str, str]]]:
        # Nothing but convolutions has a layout.
        has_layout = any(isinstance(module, nn.Conv2d) for module in model.modules())
        layouts = candidates.memory_layouts if has_layout else candidates.memory_layouts[:1]
        precisions = candidates.training_precisions
        if (
            len(precisions) > 1
            and self._device.type == "cpu"
            and self._smallest(model) <= TOO_SMALL
        ):
            precisions = precisions[:1]
        return [
            Way(
                (layout, precision),
                Execution(layout, precision).training_way,
                partial(self._training_step, model, layout, precision),
                GRADIENT_TOLERANCE,
            )
            for layout in layouts
            for precision in precisions
        ]

    @torch.no_grad()
    def _smallest(self, model: nn.Module) -> float:
        """The smallest edge of what a strided convolution puts out; infinite without one."""
        edges: list[int] = []

        def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            edges.extend(output.shape[-2:])

        strided = [m for m in model.modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1]
        handles = [module.register_forward_hook(note) for module in strided]
        try:
            logits_of(model, _split_off_labels(self._training)[0])
        finally:
            for handle in handles:
                handle.remove()
        return min(edges, default=math.inf)

    def _training_step(self, model: nn.Module, layout: str, precision: str) -> Outcome:
        """Forward and backward; what must agree is the gradient, and the loss."""
        Execution(layout).lay_out(model)
        model.zero_grad(set_to_none=True)
        inputs, labels = _split_off_labels(self._training)
        started = self._now()
        with autocast(precision, self._device):
            logits = logits_of(model, inputs)
        loss = loss_of(logits, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        seconds = self._now() - started
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        return Outcome(seconds, _flat(gradients), loss.item())

    def _optimizer_ways(
        self, model: nn.Module, fused: Sequence[bool | None]
    ) -> list[Way[bool | None]]:
        """Steps with the gradients that the last training step left."""
        gradients = {p: p.grad for p in model.parameters() if p.grad is not None}
        ways = []
        for kernel in fused:
            optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(
                Execution(fused_optimizer=kernel).arguments(self._args), model
            )
            optimizer = optimizer_class(list(gradients), **kwargs)
            step = partial(self._optimizer_step, optimizer, gradients)
            ways.append(Way(kernel, "fused" if kernel else "plain", step, UPDATE_TOLERANCE))
        return ways

    def _optimizer_step(
        self,
        optimizer: torch.optim.Optimizer,
        gradients: Mapping[nn.Parameter, torch.Tensor | None],
    ) -> Outcome:
        self._pool.restore(0)
        before = _flat(gradients)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        started = self._now()
        optimizer.step()
        seconds = self._now() - started
        return Outcome(seconds, _flat(gradients) - before)

    def _validation_ways(
        self, model: nn.Module, layout: str, precisions: Sequence[str]
    ) -> list[Way[tuple[str, str]]]:
        self._pool.restore(0)
        return [
            Way(
                (layout, precision),
                f"{layout} {precision}",
                partial(self._validation_batch, model, layout, precision),
                LOGITS_TOLERANCE,
            )
            for precision in precisions
        ]

    @torch.no_grad()
    def _validation_batch(self, model: nn.Module, layout: str, precision: str) -> Outcome:
        """What must agree are the logits, up to a constant per sample, and most predictions."""
        Execution(layout).lay_out(model)
        inputs, labels = _split_off_labels(self._scoring)
        started = self._now()
        with autocast(precision, self._device):
            logits = logits_of(model, inputs)
        seconds = self._now() - started
        logits = logits.float()
        centred = logits - logits.mean(1, keepdim=True)
        loss = loss_of(logits, labels).item()
        return Outcome(seconds, centred.flatten(), loss, logits.argmax(1))

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def _split_off_labels(
    batch: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    inputs = dict(batch)
    return inputs, inputs.pop("labels")


def _flat(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """A copy of all numbers, in one row."""
    return torch.cat([tensor.detach().flatten().float() for tensor in tensors])
