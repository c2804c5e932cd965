"""How a training is computed, apart from what: memory layout, precision, optimizer kernel."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.training_args import OptimizerNames

from ..exceptions import ConfigError

if TYPE_CHECKING:
    from transformers import TrainingArguments

MEMORY_LAYOUTS = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
PRECISIONS: dict[str, torch.dtype | None] = {
    "fp32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
_FUSED = {False: OptimizerNames.ADAMW_TORCH, True: OptimizerNames.ADAMW_TORCH_FUSED}


@dataclass(frozen=True)
class Execution:
    """How the trainings of a search are computed.

    Two executions of the same training differ in the last bits of its results, or, in half
    precision, in more of them. So a study has one, which [`choose_execution`] chooses.

    Args:
        memory_layout: of convolutions' weights, `"contiguous"` or `"channels_last"`.
        training_precision: `"fp32"`, or `"bf16"` or `"fp16"` for mixed precision by autocast.
        validation_precision: the same for scoring.
        fused_optimizer: whether AdamW updates all weights in one kernel; `None`: as
            `TrainingArguments.optim` says.
    """

    memory_layout: str = "contiguous"
    training_precision: str = "fp32"
    validation_precision: str = "fp32"
    fused_optimizer: bool | None = None

    @classmethod
    def of(cls, args: TrainingArguments) -> Execution:
        """What `Trainer` does with these arguments."""
        precision = precision_of(args)
        return cls(training_precision=precision, validation_precision=precision)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Execution:
        """The inverse of [`~Execution.to_dict`]."""
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        parts = [f"{self.memory_layout} convolutions", f"{self.training_precision} training"]
        if self.validation_precision != self.training_precision:
            parts.append(f"{self.validation_precision} validation")
        if self.fused_optimizer is not None:
            parts.append("fused optimizer" if self.fused_optimizer else "plain optimizer")
        return ", ".join(parts)

    @property
    def training_way(self) -> str:
        """What a timing of a training step calls it."""
        return f"{self.memory_layout} {self.training_precision}"

    def lay_out(self, model: nn.Module) -> None:
        """Put a model's weights into the memory layout, in place."""
        model.to(memory_format=MEMORY_LAYOUTS[self.memory_layout])

    def training_context(self, device: torch.device) -> torch.autocast:
        """The context of a forward pass in training."""
        return autocast(self.training_precision, device)

    def validation_context(self, device: torch.device) -> torch.autocast:
        """The context of a forward pass in scoring."""
        return autocast(self.validation_precision, device)

    def arguments(self, args: TrainingArguments) -> TrainingArguments:
        """The same training arguments with the optimizer's kernel."""
        if self.fused_optimizer is None:
            return args
        changed = copy.copy(args)
        changed.optim = _FUSED[self.fused_optimizer]
        return changed


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Mixed precision on a device; the context of single precision turns it off."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def precision_of(args: TrainingArguments) -> str:
    """What training arguments ask for."""
    return "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32"


@dataclass(frozen=True)
class Candidates:
    """The executions that a search may choose among; the plainest value of each comes first.

    Args:
        memory_layouts: see [`Execution`].
        training_precisions: see [`Execution`].
        validation_precisions: see [`Execution`].
        fused: see [`Execution`].
    """

    memory_layouts: tuple[str, ...]
    training_precisions: tuple[str, ...]
    validation_precisions: tuple[str, ...]
    fused: tuple[bool | None, ...]

    @property
    def plainest(self) -> Execution:
        """What the others must agree with."""
        return Execution(
            self.memory_layouts[0],
            self.training_precisions[0],
            self.validation_precisions[0],
            self.fused[0],
        )

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing to choose."""
        sizes = map(len, vars(self).values())
        return all(size == 1 for size in sizes)


def candidates_of(
    args: TrainingArguments, memory_layout: str, precision: str, fused_optimizer: bool | str
) -> Candidates:
    """What training arguments and the switches of a search leave open.

    Args:
        args: `bf16`, `fp16` and `optim` are respected.
        memory_layout: `"auto"` or one of [`Execution`]'s.
        precision: `"auto"`, or one for training and validation.
        fused_optimizer: `"auto"`, or whether it is.

    Raises:
        ConfigError: `precision` contradicts `args`, or `fused_optimizer=True` is given for an
            optimizer that is no AdamW.
    """
    layouts = tuple(MEMORY_LAYOUTS) if memory_layout == "auto" else (memory_layout,)
    precisions = _precisions(args, precision)
    return Candidates(layouts, precisions, precisions, _fused(args, fused_optimizer))


def _precisions(args: TrainingArguments, precision: str) -> tuple[str, ...]:
    asked = precision_of(args)
    if asked != "fp32":
        if precision not in ("auto", asked):
            raise ConfigError(
                f"the search has precision={precision!r}, but TrainingArguments have {asked}=True; "
                f"leave one of them out"
            )
        return (asked,)
    if precision != "auto":
        return (precision,)
    return ("fp32", "bf16") if _has_bf16(args.device) else ("fp32",)


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu"


def _fused(args: TrainingArguments, fused_optimizer: bool | str) -> tuple[bool | None, ...]:
    if args.optim not in _FUSED.values():
        if fused_optimizer is True:
            raise ConfigError(
                f"fused_optimizer=True is for optim='adamw_torch' and 'adamw_torch_fused', but "
                f"TrainingArguments have optim={args.optim.value!r}; leave fused_optimizer out"
            )
        return (None,)
    if isinstance(fused_optimizer, bool):
        return (fused_optimizer,)
    # The fused kernel was never the slower one; where it is asked for there is nothing to measure.
    return (None,) if args.optim == OptimizerNames.ADAMW_TORCH_FUSED else (False, True)
