"""`BlockTuner`: decides what is frozen, and which adapter is in place.

The blocks are trained in place: no layer is replaced and no parameter is added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from .adapter_weights import AdapterWeights
from .blocks import Partition, partition
from .compatibility import check_base_model, check_block_names, check_stored_names, fresh_head
from .config import BioTuneConfig
from .exceptions import ConfigError
from .markers import MARKERS, BlockMarker, markers_of
from .module_blocks import blocks_below, blocks_of_module, fixed_parameters
from .norm_statistics import BATCH_NORM, EpochStatistics


class BlockTuner(BaseTuner):  # type: ignore[misc]
    """Trains the selected blocks of a model in place and freezes the rest.

    Args:
        model: the base model; changed in place.
        peft_config: one configuration, or `{adapter name: configuration}` with one entry.
        adapter_name: the name of the adapter.
        keep_base_weights: whether to keep a copy of the selected blocks as they are now, which
            `disable_adapter`, `unload` and further adapters need. Default: `True`.
        inject: whether there is no `BioTuneModel` around. `peft.inject_adapter_in_model` makes such
            a tuner, and so does transformers' `model.load_adapter`. Default: `True`.

    Raises:
        ConfigError: the configuration names no block, or one that the model doesn't have; the model
            is quantised, or holds an injected adapter already.
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
        inject: bool = True,
        **kwargs: Any,
    ) -> None:
        nn.Module.__init__(self)
        check_base_model(model)
        config = peft_config if isinstance(peft_config, PeftConfig) else peft_config[adapter_name]
        self.model = model
        self.peft_config: dict[str, BioTuneConfig] = {}
        self.partitions: dict[str, Partition] = {}
        self._blocks_below: dict[str, dict[str, set[str]]] = {}
        self._fixed: dict[str, set[str]] = {}
        self.targeted_module_names: list[str] = []
        self.targeted_parameter_names: list[str] = []
        self.active_adapter = adapter_name
        self.enabled = True
        self.is_injected = inject
        self.weights = AdapterWeights(model, keep_base_weights)
        # What shards parameters later may leave flat pieces of them.
        self.dimensions = {name: parameter.ndim for name, parameter in model.named_parameters()}
        self._learnable = {name: p.requires_grad for name, p in model.named_parameters()}
        self._held: frozenset[str] = frozenset()
        self.statistics = EpochStatistics()
        self.register(adapter_name, config)
        self._apply_requires_grad(adapter_name, not config.inference_mode)
        self._rebuild_markers()
        # Where PEFT and transformers look for it.
        setattr(model, "peft_config", self.peft_config)  # noqa: B010 - not a tensor or module
        if inject:
            # Last, so that `model.train()` comes to them when all other modules are in train mode.
            model.add_module(MARKERS, self.markers)

    # -- what belongs to an adapter -----------------------------------------------------------

    def register(self, adapter_name: str, config: BioTuneConfig) -> None:
        """Make an adapter known: find its blocks, check its configuration, keep the base's weights.

        Raises:
            ConfigError: the configuration names no block, or one that the model doesn't have.
        """
        if config.partition:
            check_stored_names(self.model, config.partition)
        found = partition(self.model, config.partition or config.blocks)
        check_block_names(config, found)
        if config.saved_blocks is None:
            config.saved_blocks = fresh_head(self.model, config, found)
        config.partition = found.to_patterns()
        self.partitions[adapter_name] = found
        self.peft_config[adapter_name] = config
        self._blocks_below[adapter_name] = blocks_below(self.model, found)
        self._fixed[adapter_name] = fixed_parameters(found, self._learnable)
        # A pull towards the start needs it too, also after a checkpoint has been loaded.
        if self.weights.keeps_base or config.l2sp is not None:
            self.weights.keep_base(self._tensors(adapter_name))

    def is_trained_parameter(self, name: str, adapter_name: str | None = None) -> bool:
        """Whether the (active) adapter trains the parameter of that name."""
        adapter_name = adapter_name or self.active_adapter
        block = self.partitions[adapter_name].block_of_parameter(name)
        return (
            block in self.peft_config[adapter_name].lr_multipliers
            and name not in self._fixed[adapter_name]
        )

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
            owner = name.rpartition(".")[0]
            blocks = blocks_of_module(found, owner, self.model.get_submodule(owner))
            if blocks & saved and name in persistent:
                yield name, buffer

    def hold(self, blocks: Iterable[str]) -> None:
        """Freeze blocks for the time being, though the active adapter trains them.

        They are part of the adapter as before. An optimizer that knows them leaves them as they
        are, since they get no gradient. Another call replaces this one, and so do
        [`~BlockTuner.set_adapter`] and [`~BlockTuner.set_requires_grad`].

        Args:
            blocks: names of trained blocks; none to let all be trained.

        Raises:
            ConfigError: one is not trained by the active adapter.
        """
        self._held = frozenset(blocks)
        trained = self.peft_config[self.active_adapter].lr_multipliers
        if unknown := sorted(self._held - trained.keys()):
            self._held = frozenset()
            raise ConfigError(
                f"only trained blocks can be held, which are {', '.join(trained)}, got "
                f"{', '.join(unknown)}"
            )
        self._apply_requires_grad(self.active_adapter, True)
        for block in self._held:
            for parameter in self.block_parameters(block):
                parameter.requires_grad_(False)
        self.train(self.training)

    # -- frozen means frozen --------------------------------------------------------------------

    def frozen_modules(self) -> Iterator[nn.Module]:
        """Every module that stays in eval mode: no dropout, no drop-path, no moving statistics."""
        config = self.peft_config[self.active_adapter]
        found = self.partitions[self.active_adapter]
        trained = config.lr_multipliers.keys() - self._held
        below = self._blocks_below[self.active_adapter]
        for name, module in self.model.named_modules():
            # Of a container of several blocks, all of them count: its own dropout is frozen if
            # everything in it is.
            blocks = blocks_of_module(found, name, module) or below.get(name, set())
            if not blocks:
                continue
            if not blocks & trained or (
                config.norm_statistics == "frozen" and isinstance(module, BATCH_NORM)
            ):
                yield module

    def train(self, mode: bool = True) -> BlockTuner:
        """As `nn.Module.train`, but frozen blocks stay in eval mode."""
        super().train(mode)
        if mode:
            if self.statistics.is_about_others(self.model):
                self._follow_statistics(any(p.requires_grad for p in self.model.parameters()))
            self.keep_frozen()
        else:
            self.statistics.on_evaluation()
        return self

    def keep_frozen(self) -> None:
        """Put what is frozen into eval mode, also while the adapter is disabled."""
        for module in self.frozen_modules():
            module.training = False

    def _follow_statistics(self, trainable: bool) -> None:
        config = self.peft_config[self.active_adapter]
        found = self.partitions[self.active_adapter]
        averaged = trainable and config.norm_statistics == "epoch"
        self.statistics.follow(
            module
            for name, module in self.model.named_modules()
            if averaged and blocks_of_module(found, name, module) & config.lr_multipliers.keys()
        )

    def freeze_parameters(self) -> None:
        """Freeze what the active adapter doesn't train.

        transformers makes new parameters of the tensors in a checkpoint, and these want gradients.
        """
        for name, parameter in self.model.named_parameters():
            if not self.is_trained_parameter(name):
                parameter.requires_grad_(False)

    def _apply_requires_grad(self, adapter_name: str, trainable: bool) -> None:
        for name, parameter in self.model.named_parameters():
            trained = trainable and self.is_trained_parameter(name, adapter_name)
            parameter.requires_grad_(trained)
        self._follow_statistics(trainable)

    # -- swapping -------------------------------------------------------------------------------

    def take_out(self) -> None:
        """Put the active adapter's weights aside and the base model's in place."""
        self.weights.take_out(self.active_adapter, self._tensors(self.active_adapter))

    def store(self, adapter_name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Give an adapter its weights, in the model if it is active, aside otherwise."""
        if adapter_name == self.active_adapter and self.enabled:
            self.weights.write(tensors)
        else:
            self.weights.aside[adapter_name] = {
                name: value.clone() for name, value in tensors.items()
            }

    def base_tensors(self) -> dict[str, torch.Tensor]:
        """The base model's weights, as far as they are kept."""
        return dict(self.weights.base)

    def adapter_tensors(self, adapter_name: str) -> dict[str, torch.Tensor]:
        """The weights of an adapter, wherever they are at the moment."""
        if adapter_name in self.weights.aside:
            return self.weights.aside[adapter_name]
        if adapter_name != self.active_adapter:  # registered, never activated or loaded
            return {name: self.weights.base[name] for name in self.tensor_names(adapter_name)}
        return {name: tensor.detach() for name, tensor in self._tensors(adapter_name)}

    def disable_adapter_layers(self) -> None:
        """Put the base model's weights in place; the adapter's are kept aside."""
        if self.enabled:
            self.weights.require_base("disabling the adapter")
            self.weights.lend(self.active_adapter, self._tensors(self.active_adapter))
            self.enabled = False
            self.statistics.is_suspended = True
            self._was_trainable = [p.requires_grad for p in self.model.parameters()]
            self.model.requires_grad_(False)

    def enable_adapter_layers(self) -> None:
        """Put the active adapter's weights back in place."""
        if not self.enabled:
            self.weights.put_in(self.active_adapter)
            self.enabled = True
            self.statistics.is_suspended = False
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
        self._held = frozenset()
        if names[0] != self.active_adapter:
            self.weights.require_base("changing the adapter")
            self.take_out()
            self.active_adapter = names[0]
            self.weights.put_in(names[0])
            self._rebuild_markers()
        self._apply_requires_grad(names[0], not inference_mode)
        (self.model if self.is_injected else self).train(self.model.training)

    def set_requires_grad(
        self, adapter_names: str | Sequence[str], requires_grad: bool = True
    ) -> None:
        """Let the active adapter's blocks get gradients or not; inactive adapters hold none."""
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        if self.active_adapter in names:
            self._held = frozenset()
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
        del self.peft_config[adapter_name], self.partitions[adapter_name]
        del self._blocks_below[adapter_name], self._fixed[adapter_name]
        needed = {name for other in others for name in self.tensor_names(other)}
        self.weights.forget(adapter_name, needed)
        self._rebuild_markers()

    # -- PEFT's remaining contract ----------------------------------------------------------------

    def _rebuild_markers(self) -> None:
        names = self.peft_config[self.active_adapter].lr_multipliers
        of_all = {block: None for c in self.peft_config.values() for block in c.lr_multipliers}
        self.markers = markers_of(self, of_all)
        active = self.partitions[self.active_adapter]
        self.targeted_module_names = [m for name in names for m in active[name].modules]
        self.targeted_parameter_names = [p for name in names for p in active[name].parameters]

    def _create_and_replace(self, *args: Any, **kwargs: Any) -> None:
        """Nothing is created or replaced: blocks are trained in place."""

    def _cast_adapter_dtype(self, *args: Any, **kwargs: Any) -> None:
        """Blocks keep the base model's dtype."""

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> nn.Module:
        if merge:
            self.enable_adapter_layers()
            if adapter_names is not None:
                self.set_adapter(adapter_names)
            if safe_merge:
                self._check_finite()
        elif self.enabled:
            self.weights.require_base("unload")
            self.take_out()
        self.statistics.leave()
        model: nn.Module = self.model
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self._learnable.get(name, True))
        if "peft_config" in model.__dict__:
            del model.peft_config
        return model

    def _check_finite(self) -> None:
        for name, tensor in self._tensors(self.active_adapter):
            if not tensor.isfinite().all():
                raise ConfigError(
                    f"safe_merge: {name} of adapter {self.active_adapter!r} holds NaN or infinity; "
                    f"the training diverged, so take an earlier checkpoint"
                )

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Tuned blocks are always merged: they are the model's own weights."""

    def unmerge_adapter(self) -> None:
        """See [`~BlockTuner.disable_adapter_layers`] for the base model's weights."""
        raise ConfigError(
            "tuned blocks are the model's own weights and can't be unmerged; use disable_adapter() "
            "for the base model's outputs, or unload() for the base model"
        )

    # What `peft.get_peft_model_state_dict` and its counterpart ask; the FSDP checkpoints of
    # Accelerate and `save_pretrained` of a model with an injected adapter go through them.

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, torch.Tensor]:
        names = set(tuner_of(model).tensor_names(adapter_name))
        return {
            key: value
            for key, value in state_dict.items()
            if key.removeprefix("base_model.model.") in names
        }

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        return key

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls,
        model: nn.Module,
        config: PeftConfig,
        adapter_name: str,
        state_dict: dict[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        return state_dict


def tuner_of(model: nn.Module) -> BlockTuner:
    """The tuner of a `BioTuneModel`, or of a model that an adapter was injected into.

    Raises:
        ConfigError: the model holds no BioTune adapter.
    """
    for module in model.modules():
        if isinstance(module, BlockTuner):
            return module
        if isinstance(module, BlockMarker):
            return module._tuner
    raise ConfigError(f"{type(model).__name__} holds no BioTune adapter")
