"""`BlockTuner`: decides what is frozen, and keeps what several adapters of one base need to swap.

The blocks are trained in place: no layer is replaced and no parameter is added. What another
adapter or `disable_adapter` needs is kept aside, once, in plain tensors outside of the model's
state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from .blocks import Partition, partition
from .config import BioTuneConfig
from .exceptions import ConfigError

_BATCH_NORM = nn.modules.batchnorm._NormBase


class BlockMarker(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """Stands for one block in PEFT's status calls; holds no parameter of its own.

    Args:
        tuner: the tuner that it belongs to.
        block: the block's name.
    """

    adapter_layer_names = ("tuned_blocks",)
    other_param_names = ()

    def __init__(self, tuner: BlockTuner, block: str) -> None:
        nn.Module.__init__(self)
        # Not as an attribute of a module: the tuner would become its own descendant.
        self.__dict__["_tuner_of_marker"] = tuner
        self.block = block
        self.merged_adapters: list[str] = []

    @property
    def _tuner(self) -> BlockTuner:
        tuner: BlockTuner = self.__dict__["_tuner_of_marker"]
        return tuner

    @property
    def tuned_blocks(self) -> nn.ModuleDict:
        """The block's own parameters under the active adapter's name."""
        holder = nn.Module()
        for index, parameter in enumerate(self._tuner.block_parameters(self.block)):
            holder.register_parameter(str(index), parameter)
        return nn.ModuleDict({self._tuner.active_adapter: holder})

    @property
    def active_adapter(self) -> str:
        """The name of the tuner's active adapter."""
        name: str = self._tuner.active_adapter
        return name

    @property
    def disable_adapters(self) -> bool:
        """Whether the base model's weights are in place at the moment."""
        return not self._tuner.enabled

    def _get_available_adapters(self) -> set[str]:
        return {
            name
            for name, config in self._tuner.peft_config.items()
            if self.block in config.lr_multipliers
        }


class BlockTuner(BaseTuner):  # type: ignore[misc]
    """Trains the selected blocks of a model in place and freezes the rest.

    Args:
        model: the base model; changed in place.
        peft_config: one configuration, or `{adapter name: configuration}` with one entry.
        adapter_name: the name of the adapter.
        keep_base_weights: whether to keep a copy of the selected blocks as they are now, which
            `disable_adapter`, `unload` and further adapters need. Default: `True`.

    Raises:
        ConfigError: the configuration names no block, or one that the model doesn't have.
    """

    prefix: str = "biotune_"
    tuner_layer_cls = BlockMarker
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 - PEFT's own declaration

    def __init__(
        self,
        model: nn.Module,
        peft_config: PeftConfig | dict[str, PeftConfig],
        adapter_name: str,
        keep_base_weights: bool = True,
        **kwargs: Any,
    ) -> None:
        nn.Module.__init__(self)
        config = peft_config if isinstance(peft_config, PeftConfig) else peft_config[adapter_name]
        self.model = model
        self.peft_config: dict[str, BioTuneConfig] = {}
        self.partitions: dict[str, Partition] = {}
        self.targeted_module_names: list[str] = []
        self.targeted_parameter_names: list[str] = []
        self.active_adapter = adapter_name
        self.enabled = True
        self._keeps_base = keep_base_weights
        # Tensor name -> value, for every tensor that some adapter trains.
        self._base_tensors: dict[str, torch.Tensor] = {}
        # The same for the tensors of each adapter that is not in place at the moment.
        self._stored: dict[str, dict[str, torch.Tensor]] = {}
        self.register(adapter_name, config)
        self._apply_requires_grad(adapter_name, not config.inference_mode)
        self._rebuild_markers()
        # Where PEFT and transformers look for it.
        setattr(model, "peft_config", self.peft_config)  # noqa: B010 - not a tensor or module

    # -- what belongs to an adapter -----------------------------------------------------------

    def register(self, adapter_name: str, config: BioTuneConfig) -> None:
        """Make an adapter known: find its blocks, check its configuration, keep the base's weights.

        Raises:
            ConfigError: the configuration names no block, or one that the model doesn't have.
        """
        found = partition(self.model, config.partition or config.blocks)
        _check_block_names(config, found)
        if config.saved_blocks is None:
            config.saved_blocks = self._fresh_head(config, found)
        config.partition = found.to_patterns()
        self.partitions[adapter_name] = found
        self.peft_config[adapter_name] = config
        if self._keeps_base:
            for name, tensor in self._tensors(adapter_name):
                self._base_tensors.setdefault(name, tensor.detach().cpu().clone())

    def is_trained_parameter(self, name: str, adapter_name: str | None = None) -> bool:
        """Whether the (active) adapter trains the parameter of that name."""
        adapter_name = adapter_name or self.active_adapter
        block = self.partitions[adapter_name].block_of_parameter(name)
        return block in self.peft_config[adapter_name].lr_multipliers

    def tensor_names(self, adapter_name: str | None = None) -> list[str]:
        """Names of all tensors of an adapter: parameters and buffers of its saved blocks."""
        return [name for name, _ in self._tensors(adapter_name or self.active_adapter)]

    def block_parameters(self, block: str) -> list[nn.Parameter]:
        """The parameters of a block of the active adapter's partition."""
        names = set(self.partitions[self.active_adapter][block].parameters)
        return [p for name, p in self.model.named_parameters() if name in names]

    def _tensors(self, adapter_name: str) -> Iterator[tuple[str, torch.Tensor]]:
        found, config = self.partitions[adapter_name], self.peft_config[adapter_name]
        saved = {*config.lr_multipliers, *(config.saved_blocks or ())}
        for name, parameter in self.model.named_parameters():
            if found.block_of_parameter(name) in saved:
                yield name, parameter
        persistent = self.model.state_dict(keep_vars=True)
        for name, buffer in self.model.named_buffers():
            block = found.block_of_module(name.rpartition(".")[0])
            if block in saved and name in persistent:
                yield name, buffer

    def _fresh_head(self, config: BioTuneConfig, found: Partition) -> list[str]:
        """The last block, if it is frozen although it looks freshly initialised.

        All libraries initialise the biases of a new classifier with zeros, and training moves them.
        """
        head = found[-1]
        if head.name in config.lr_multipliers:
            return []
        parameters = dict(self.model.named_parameters())
        biases = [parameters[name] for name in head.parameters if name.endswith("bias")]
        fresh = bool(biases) and not any(bias.count_nonzero() for bias in biases)
        return [head.name] if fresh else []

    # -- frozen means frozen --------------------------------------------------------------------

    def frozen_modules(self) -> Iterator[nn.Module]:
        """Every module that stays in eval mode: no dropout, no drop-path, no moving statistics."""
        config = self.peft_config[self.active_adapter]
        found = self.partitions[self.active_adapter]
        for name, module in self.model.named_modules():
            block = found.block_of_module(name)
            if block is None:
                continue
            if block not in config.lr_multipliers or (
                config.norm_statistics == "frozen" and isinstance(module, _BATCH_NORM)
            ):
                yield module

    def train(self, mode: bool = True) -> BlockTuner:
        """As `nn.Module.train`, but frozen blocks stay in eval mode."""
        super().train(mode)
        if mode and self.enabled:
            for module in self.frozen_modules():
                module.training = False
        return self

    def _apply_requires_grad(self, adapter_name: str, trainable: bool) -> None:
        for name, parameter in self.model.named_parameters():
            trained = trainable and self.is_trained_parameter(name, adapter_name)
            parameter.requires_grad_(trained)

    # -- swapping -------------------------------------------------------------------------------

    @torch.no_grad()
    def _write(self, tensors: Mapping[str, torch.Tensor]) -> None:
        current = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        for name, value in tensors.items():
            current[name].copy_(value)

    def _require_base(self, action: str) -> None:
        if not self._keeps_base:
            raise ConfigError(
                f"{action} needs the base model's weights, but keep_base_weights=False; call "
                f"get_biotune_model(..., keep_base_weights=True)"
            )

    def _take_out(self) -> None:
        """Put the active adapter's weights aside and the base model's in place."""
        active = self.active_adapter
        tensors = {name: tensor.detach().clone() for name, tensor in self._tensors(active)}
        self._stored[active] = tensors
        self._write({name: self._base_tensors[name] for name in tensors})

    def _put_in(self, adapter_name: str) -> None:
        self._write(self._stored.pop(adapter_name, {}))

    def store(self, adapter_name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Give an adapter its weights, in the model if it is active, aside otherwise."""
        if adapter_name == self.active_adapter and self.enabled:
            self._write(tensors)
        else:
            self._stored[adapter_name] = {name: value.clone() for name, value in tensors.items()}

    def adapter_tensors(self, adapter_name: str) -> dict[str, torch.Tensor]:
        """The weights of an adapter, wherever they are at the moment."""
        if adapter_name in self._stored:
            return self._stored[adapter_name]
        if adapter_name != self.active_adapter:  # registered, never activated or loaded
            return {name: self._base_tensors[name] for name in self.tensor_names(adapter_name)}
        return {name: tensor.detach() for name, tensor in self._tensors(adapter_name)}

    def disable_adapter_layers(self) -> None:
        """Put the base model's weights in place; the adapter's are kept aside."""
        if self.enabled:
            self._require_base("disabling the adapter")
            self._take_out()
            self.enabled = False
            self._was_trainable = [p.requires_grad for p in self.model.parameters()]
            self.model.requires_grad_(False)

    def enable_adapter_layers(self) -> None:
        """Put the active adapter's weights back in place."""
        if not self.enabled:
            self._put_in(self.active_adapter)
            self.enabled = True
            for parameter, trainable in zip(
                self.model.parameters(), self._was_trainable, strict=True
            ):
                parameter.requires_grad_(trainable)

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Make an adapter the active one: swap its blocks in, freeze the rest.

        Raises:
            ConfigError: more than one adapter, or an unknown one.
        """
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        if len(names) != 1:
            raise ConfigError(
                f"exactly one adapter can be active, got {names}: BioTune trains blocks in place, "
                f"so adapters can't be mixed"
            )
        if names[0] not in self.peft_config:
            raise ConfigError(
                f"no adapter is named {names[0]!r}; this model's adapters are: "
                f"{', '.join(self.peft_config)}"
            )
        self.enable_adapter_layers()
        if names[0] != self.active_adapter:
            self._require_base("changing the adapter")
            self._take_out()
            self.active_adapter = names[0]
            self._put_in(names[0])
            self._rebuild_markers()
        self._apply_requires_grad(names[0], not inference_mode)
        self.train(self.training)

    def set_requires_grad(
        self, adapter_names: str | Sequence[str], requires_grad: bool = True
    ) -> None:
        """Let the active adapter's blocks get gradients or not; inactive adapters hold none."""
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        if self.active_adapter in names:
            self._apply_requires_grad(self.active_adapter, requires_grad)

    def delete_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; if it is active, the first remaining one becomes active.

        Raises:
            ConfigError: the adapter is unknown, or the only one.
        """
        if adapter_name not in self.peft_config:
            raise ConfigError(f"no adapter is named {adapter_name!r}")
        others = [name for name in self.peft_config if name != adapter_name]
        if not others:
            raise ConfigError(
                f"{adapter_name!r} is the only adapter; call unload() for the base model"
            )
        if adapter_name == self.active_adapter:
            self.set_adapter(others[0])
        for of_adapters in (self.peft_config, self.partitions, self._stored):
            of_adapters.pop(adapter_name, None)
        needed = {name for other in others for name in self.tensor_names(other)}
        self._base_tensors = {n: t for n, t in self._base_tensors.items() if n in needed}

    # -- PEFT's remaining contract ----------------------------------------------------------------

    def _rebuild_markers(self) -> None:
        names = self.peft_config[self.active_adapter].lr_multipliers
        self.markers = nn.ModuleDict({name: BlockMarker(self, name) for name in names})
        active = self.partitions[self.active_adapter]
        self.targeted_module_names = [m for name in names for m in active[name].modules]
        self.targeted_parameter_names = [p for name in names for p in active[name].parameters]

    def _create_and_replace(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is created or replaced: blocks are trained in place."""

    def _cast_adapter_dtype(self, *args: Any, **kwargs: Any) -> None:
        """Blocks keep the base model's dtype."""

    def _unload_and_optionally_merge(
        self, merge: bool = True, *args: Any, **kwargs: Any
    ) -> nn.Module:
        if merge:
            self.enable_adapter_layers()
        elif self.enabled:
            self._require_base("unload")
            self._take_out()
        model: nn.Module = self.model
        if "peft_config" in model.__dict__:
            del model.peft_config
        return model

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Tuned blocks are always merged: they are the model's own weights."""

    def unmerge_adapter(self) -> None:
        """See [`~BlockTuner.disable_adapter_layers`] for the base model's weights."""
        raise ConfigError(
            "tuned blocks are the model's own weights and can't be unmerged; use disable_adapter() "
            "for the base model's outputs, or unload() for the base model"
        )


def _check_block_names(config: BioTuneConfig, found: Partition) -> None:
    names = ", ".join(found.names)
    if not config.lr_multipliers:
        raise ConfigError(
            f"lr_multipliers is empty, so nothing would be trained; name at least one of this "
            f"model's blocks: {names}"
        )
    for field_name in ("lr_multipliers", "saved_blocks"):
        for block in getattr(config, field_name) or ():
            if block not in found.names:
                raise ConfigError(
                    f"{field_name}: no block is named {block!r}; this model's blocks are: {names}"
                )
