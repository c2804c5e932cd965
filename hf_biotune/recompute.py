"""Gradient checkpointing of a model whose first blocks may be frozen.

With `use_reentrant=True` a checkpointed layer passes gradients on only if its input requires one,
which the output of a frozen embedding does not: 2 of 18 tensors trained, silently. Without it, an
input that requires gradients makes the backward pass go through the frozen prefix for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from torch import nn

from .exceptions import ConfigError

if TYPE_CHECKING:
    # transformers imports peft while it is imported itself, and so this module.
    from transformers import TrainingArguments


def enable_recomputation(
    model: nn.Module, options: Mapping[str, Any] | None, **kwargs: Any
) -> None:
    """Turn gradient checkpointing on, so that every trained tensor gets a gradient.

    Args:
        model: the base model.
        options: for `torch.utils.checkpoint.checkpoint`; default `{"use_reentrant": False}`.
        kwargs: further arguments of the model's own method.

    Raises:
        ConfigError: the model has no gradient checkpointing, or `use_reentrant=True` and it has no
            embedding whose output could be made to require gradients.
    """
    options = {"use_reentrant": False} if options is None else dict(options)
    # transformers 5 renamed the method, and warns about the old name.
    for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
        if hasattr(model, name):
            getattr(model, name)(options, **kwargs)
            let_inputs_require_grad(model)
            return
    if not hasattr(model, "set_grad_checkpointing"):
        raise ConfigError(f"{type(model).__name__} has no gradient checkpointing")
    if options.get("use_reentrant", True):
        raise ConfigError(
            f"{type(model).__name__} is a timm model, which can't train behind frozen blocks with "
            f"use_reentrant=True; pass use_reentrant=False"
        )
    cast(Any, model).set_grad_checkpointing(True)


def recompute_as_asked(model: nn.Module, args: TrainingArguments) -> None:
    """Turn gradient checkpointing on if the training arguments ask for it, as `Trainer` does.

    Args:
        model: the base model.
        args: `activation_checkpointing` and its older name `gradient_checkpointing` count alike.

    Raises:
        ConfigError: they ask for it, and the model has none; see [`enable_recomputation`].
    """
    for kind in ("activation_checkpointing", "gradient_checkpointing"):
        if getattr(args, kind, False):
            options = getattr(args, f"{kind}_kwargs")
            try:
                enable_recomputation(model, options)
            except ValueError as error:  # of transformers: this architecture has none
                raise ConfigError(f"{kind}: {error}") from error
            return


def let_inputs_require_grad(model: nn.Module) -> None:
    """Let embedded inputs require gradients exactly if checkpointing needs it.

    Raises:
        ConfigError: it does, and the model has no embedding.
    """
    functions = _checkpoint_functions(model)
    if not functions:
        return
    # Enabled twice can't be disabled: transformers remembers the last hooks only.
    if hasattr(model, "disable_input_require_grads"):
        cast(Any, model).disable_input_require_grads()
    # torch's own default is the reentrant one.
    if not any(getattr(f, "keywords", {}).get("use_reentrant", True) for f in functions):
        return
    if not _has_embedding(model):
        raise ConfigError(
            f"{type(model).__name__} has no input embedding, so use_reentrant=True would silently "
            f"train nothing behind a frozen block; pass use_reentrant=False"
        )
    cast(Any, model).enable_input_require_grads()


def _checkpoint_functions(model: nn.Module) -> list[Any]:
    return [
        module._gradient_checkpointing_func
        for module in model.modules()
        if getattr(module, "gradient_checkpointing", False)
        and hasattr(module, "_gradient_checkpointing_func")
    ]


def _has_embedding(model: nn.Module) -> bool:
    if not hasattr(model, "enable_input_require_grads"):
        return False
    try:
        return cast(Any, model).get_input_embeddings() is not None
    except (NotImplementedError, AttributeError):
        return False
