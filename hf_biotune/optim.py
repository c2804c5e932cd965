"""Parameter groups: the one place that turns blocks and multipliers into learning rates."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from .checkpoint import KEY_PREFIX
from .config import BioTuneConfig
from .exceptions import ConfigError
from .model import BioTuneModel
from .penalties import L2SP, Pull, step_hook

# What torch.compile and FSDP put into the names of what they wrap; DDP is outside of our model.
_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module")
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.modules.batchnorm._NormBase)
# Tensors of two and more dimensions that are positions or tokens, not weights of a linear map.
_NO_DECAY_NAMES = (
    "cls_token",
    "dist_token",
    "mask_token",
    "reg_token",
    "register_tokens",
    "pos_embed",
    "position_embedding",
    "position_embeddings",
    "pos_embedding",
    "class_embedding",
    "class_token",
    "relative_position_bias_table",
)


def find_biotune_model(model: nn.Module) -> BioTuneModel:
    """The `BioTuneModel` inside of a model that DDP, FSDP or `torch.compile` may have wrapped.

    Raises:
        ConfigError: there is none.
    """
    for module in model.modules():
        if isinstance(module, BioTuneModel):
            return module
    raise ConfigError(
        f"the model holds no BioTuneModel, got {type(model).__name__}; wrap it with "
        f"get_biotune_model(model, config) first"
    )


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm layer, of torch or of another library."""
    # HF and timm have norm classes of their own (`LlamaRMSNorm`, `LayerNorm2d`, ...).
    return isinstance(module, _NORMS) or "norm" in type(module).__name__.lower()


def no_decay_names(model: nn.Module, dimensions: Mapping[str, int] | None = None) -> set[str]:
    """Names of the parameters that must not decay.

    These are: parameters of norm layers, those of at most one dimension (biases, layer scales),
    and positional and class tokens.

    Args:
        model: any model.
        dimensions: of parameters by name, as they were before anything sharded them. Default: those
            that they have now.

    Returns:
        Names as in `model.named_parameters()`.
    """
    names = set()
    for module_name, module in model.named_modules():
        norm = is_norm(module)
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{module_name}.{name}" if module_name else name
            parts = full_name.split(".")
            known = (dimensions or {}).get(_without_wrappers(full_name), parameter.ndim)
            if norm or known <= 1 or any(part in _NO_DECAY_NAMES for part in parts):
                names.add(full_name)
    return names


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float = 0.0
) -> list[dict[str, Any]]:
    """One decaying and one not decaying parameter group per trained block.

    Args:
        model: a [`BioTuneModel`], bare or wrapped by DDP, FSDP or `torch.compile`.
        lr: the base learning rate, which each block's multiplier scales.
        weight_decay: for weights, unless the configuration names one; norms, biases, positions and
            tokens never decay.

    Returns:
        Groups for any `torch.optim.Optimizer`, in block order, empty ones left out. Beside
        `params`, `lr` and `weight_decay` each holds `block` and `lr_multiplier`, which a checkpoint
        of the optimizer keeps. For a configuration with `l2sp`, call [`add_penalty`] as well.

    Raises:
        ConfigError: the model holds no `BioTuneModel`, or nothing in it can be trained.
    """
    wrapped = find_biotune_model(model)
    config = wrapped.active_peft_config
    if config.weight_decay is not None:
        weight_decay = config.weight_decay
    blocks = wrapped.base_model.partitions[wrapped.active_adapter]
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for block in blocks:
        for decays in (True, False):
            multiplier = config.lr_multipliers.get(block.name)
            if multiplier is not None:
                groups[block.name, decays] = {
                    "params": [],
                    "lr": lr * multiplier,
                    "weight_decay": weight_decay if decays else 0.0,
                    "block": block.name,
                    "lr_multiplier": multiplier,
                }
    base, dimensions = wrapped.get_base_model(), wrapped.base_model.dimensions
    exempt = {_without_wrappers(name) for name in no_decay_names(base, dimensions)}
    for name, parameter in _base_parameters(wrapped):
        if parameter.requires_grad:
            key = blocks.block_of_parameter(name), name not in exempt
            groups[key]["params"].append(parameter)
    if not any(group["params"] for group in groups.values()):
        raise ConfigError(
            "nothing requires gradients, so there is nothing to train; load the adapter with "
            "is_trainable=True, or enable it"
        )
    return [group for group in groups.values() if group["params"]]


def _base_parameters(model: BioTuneModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters by their names in the base model, whatever wraps it or parts of it."""
    for name, parameter in model.named_parameters():
        yield _without_wrappers(name).removeprefix(KEY_PREFIX), parameter


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def add_penalty(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Let an optimizer pull the trained weights as the configuration says; see [`L2SP`].

    Args:
        optimizer: of [`parameter_groups`].
        model: a [`BioTuneModel`], bare or wrapped; without `l2sp` nothing is added.

    Raises:
        ConfigError: the parameters are sharded over processes.
    """
    wrapped = find_biotune_model(model)
    config = wrapped.active_peft_config
    if config.l2sp is None:
        return
    penalty = L2SP.from_dict(config.l2sp)
    blocks = wrapped.base_model.partitions[wrapped.active_adapter]
    start = wrapped.base_model.base_tensors()
    pulls = []
    for name, parameter in _base_parameters(wrapped):
        block = blocks.block_of_parameter(name)
        if not parameter.requires_grad or not penalty.strength_of(block):
            continue
        # FSDP's shards are tensors on a mesh of devices.
        if hasattr(parameter, "device_mesh") or parameter.shape != start[name].shape:
            raise ConfigError(
                f"l2sp needs whole parameters, but {name} is sharded over processes; train with "
                f"DDP, or leave l2sp out"
            )
        target = None if block in penalty.new_blocks else start[name]
        pulls.append(Pull(parameter, target, penalty.strength_of(block)))
    optimizer.register_step_pre_hook(step_hook(pulls))


def optimizer_of(
    groups: list[dict[str, Any]], model: nn.Module, args: TrainingArguments
) -> torch.optim.Optimizer:
    """The optimizer of `args.optim` with these parameter groups.

    Args:
        groups: with `lr` and `weight_decay` in each.
        model: that the parameters are of.
        args: which optimizer, and its settings.

    Raises:
        ConfigError: `args.optim` builds its own parameter groups (GaLore, LOMO, Apollo).
    """
    optimizer_cls, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    if {"params", "model", "optimizer_dict"} & set(kwargs):
        raise ConfigError(
            f"optim={args.optim!r} makes parameter groups of its own, which can't hold a "
            f"learning rate per block; use adamw_torch, adamw_torch_fused, sgd or adafactor"
        )
    optimizer: torch.optim.Optimizer = optimizer_cls(groups, **kwargs)
    return optimizer


class BioTuneOptimizerFactory:
    """Builds `Trainer`'s optimizer with a learning rate per block; see [`biotune_trainer_kwargs`].

    `Trainer` makes an instance without arguments and calls it with the model and the keyword
    arguments that stand beside it in `optimizer_cls_and_kwargs`.
    """

    def __call__(self, model: nn.Module, arguments: ArgumentsHolder) -> torch.optim.Optimizer:
        """An optimizer of `args.optim`, `args.learning_rate` and `args.weight_decay`.

        Raises:
            ConfigError: `args.optim` builds its own parameter groups (GaLore, LOMO, Apollo).
        """
        args = arguments.get()
        _warn_of_another_rate(find_biotune_model(model).active_peft_config, args.learning_rate)
        groups = parameter_groups(model, lr=args.learning_rate, weight_decay=args.weight_decay)
        optimizer = optimizer_of(groups, model, args)
        add_penalty(optimizer, model)
        return optimizer


def _warn_of_another_rate(config: BioTuneConfig, lr: float) -> None:
    """Multipliers that were found at one base rate mean something else at another."""
    found_at = config.base_learning_rate
    if found_at is not None and not math.isclose(found_at, lr, rel_tol=1e-6):
        warnings.warn(
            f"learning_rate is {lr:g}, but the multipliers were found with {found_at:g}; give "
            f"learning_rate={found_at:g}, or set the configuration's base_learning_rate to None if "
            f"you mean it",
            stacklevel=3,
        )


class ArgumentsHolder:
    """Carries `TrainingArguments` from `Trainer.__init__` to the optimizer factory."""

    def __init__(self) -> None:
        self.args: TrainingArguments | None = None

    def get(self) -> TrainingArguments:
        """The arguments of the `Trainer` that the callback was given to.

        Raises:
            ConfigError: no `Trainer` was made with the callback.
        """
        if self.args is None:
            raise ConfigError(
                "the optimizer factory knows no TrainingArguments: pass all of "
                "**biotune_trainer_kwargs(model) to Trainer, its callbacks included"
            )
        return self.args
