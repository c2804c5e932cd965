"""Penalties that hold trained weights back: L2-SP, the pull towards the pre-trained weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from .exceptions import ConfigError
from .untrusted import as_float, shown

# As of `torch.optim.Optimizer.register_step_pre_hook`.
StepHook = Callable[..., None]


@dataclass(frozen=True)
class L2SP:
    """`strength / 2 ||w - w0||^2` of pre-trained weights, `new_strength / 2 ||w||^2` of new ones.

    `w0` are the weights that a block had before any training. All trained parameters count, as in
    the paper; frozen ones don't move.

    Args:
        strength: of the pull towards the pre-trained weights, at least 0.
        new_strength: of the pull towards 0, for blocks without pre-trained weights, at least 0.
            Default: `strength`.
        new_blocks: which these are, such as a freshly initialised head.

    Raises:
        ConfigError: a strength is not a finite number of at least 0.

    Example:
        >>> L2SP(0.01, new_blocks=("head",)).strength_of("head")
        0.01

    Source: Li, Grandvalet and Davoine, Explicit Inductive Bias for Transfer Learning with
    Convolutional Networks (arXiv 1802.01483), equation 2.
    """

    strength: float
    new_strength: float | None = None
    new_blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_strength("strength", self.strength)
        if self.new_strength is not None:
            _check_strength("new_strength", self.new_strength)
        object.__setattr__(self, "new_blocks", tuple(self.new_blocks))

    def strength_of(self, block: str) -> float:
        """How strongly the weights of a block are pulled."""
        if block in self.new_blocks and self.new_strength is not None:
            return self.new_strength
        return self.strength

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "new_blocks": list(self.new_blocks)}

    @classmethod
    def from_dict(cls, data: Any) -> L2SP:
        """The inverse of [`~L2SP.to_dict`], of what a stranger may have written.

        Raises:
            ConfigError: it is something else.
        """
        known = {"strength", "new_strength", "new_blocks"}
        if not isinstance(data, Mapping) or "strength" not in data or not set(data) <= known:
            raise ConfigError(
                f"l2sp must be a dict with strength, and perhaps new_strength and new_blocks, got "
                f"{shown(data)}"
            )
        blocks = data.get("new_blocks", ())
        if not isinstance(blocks, (list, tuple)) or not all(isinstance(b, str) for b in blocks):
            raise ConfigError(f"l2sp: new_blocks must be a list of names, got {shown(blocks)}")
        return cls(data["strength"], data.get("new_strength"), tuple(blocks))


class Pull(NamedTuple):
    """Where one parameter is pulled to, and how strongly.

    Args:
        parameter: a trained one.
        target: of its shape; `None` for 0.
        strength: greater than 0.
        norm: 2 for a penalty of `strength / 2 ||w - target||^2`, 1 for one of
            `strength ||w - target||_1`.
    """

    parameter: nn.Parameter
    target: torch.Tensor | None
    strength: float
    norm: int = 2


def step_hook(pulls: Iterable[Pull]) -> StepHook:
    """What adds the gradient of a penalty before each step of an optimizer.

    The gradient is that of a loss with the penalty in it, but added once per step: after gradients
    were accumulated, averaged over processes, unscaled and clipped. So the search, `Trainer` and
    any other loop do the same, and clipping is about the data alone.

    Args:
        pulls: one for each parameter.

    Returns:
        For [`~torch.optim.Optimizer.register_step_pre_hook`].
    """
    pulls = [
        pull._replace(target=None if pull.target is None else pull.target.to(pull.parameter))
        for pull in pulls
    ]

    @torch.no_grad()
    def add_gradients(optimizer: Any, *_: Any) -> None:
        # A fused optimizer divides the gradients by the scale of a GradScaler only in its step.
        scale = getattr(optimizer, "grad_scale", None)
        factor = 1.0 if scale is None else float(scale)
        for parameter, target, strength, norm in pulls:
            if parameter.grad is not None:
                away = parameter if target is None else parameter - target
                parameter.grad.add_(away if norm == 2 else away.sign(), alpha=strength * factor)

    return add_gradients


def _check_strength(name: str, value: Any) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(as_float(value)) or value < 0:
        raise ConfigError(f"l2sp: {name} must be a finite number of at least 0, got {shown(value)}")
