"""`BlockMarker`: what PEFT and transformers see of a block that is trained in place.

Their status calls, `disable_adapter` and transformers' own adapter methods look for modules of
class `BaseTunerLayer`. Nothing is wrapped here, so each trained block has a marker that answers for
it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from .exceptions import ConfigError

if TYPE_CHECKING:
    from .tuner import BlockTuner

MARKERS = "tuned_block_markers"
"""The sub-module that an injected adapter adds to the base model; it holds no tensor.

PEFT passes over modules whose name contains the method's prefix, `biotune_`, so this one must not.
"""


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
        """The block's own parameters under the active adapter's name, if that trains the block."""
        active = self._tuner.active_adapter
        if active not in self._get_available_adapters():
            return nn.ModuleDict()
        holder = nn.Module()
        for index, parameter in enumerate(self._tuner.block_parameters(self.block)):
            holder.register_parameter(str(index), parameter)
        held = nn.ModuleDict()
        held._modules[active] = holder  # an adapter may be called `keys`, which add_module refuses
        return held

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

    # -- what transformers' adapter methods call on every layer; the tuner does it for all --------

    def enable_adapters(self, enabled: bool) -> None:
        """Put the active adapter's weights, or the base model's, in place: of all blocks."""
        if enabled:
            self._tuner.enable_adapter_layers()
        else:
            self._tuner.disable_adapter_layers()

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make an adapter the active one, in all blocks."""
        self._tuner.set_adapter(adapter_names, inference_mode=inference_mode)

    def set_requires_grad(
        self, adapter_names: str | Sequence[str], requires_grad: bool = True
    ) -> None:
        """Let all blocks of the active adapter get gradients, or none."""
        self._tuner.set_requires_grad(adapter_names, requires_grad)

    def requires_grad_(self, requires_grad: bool = True) -> BlockMarker:
        """Let all blocks of the active adapter get gradients, or none."""
        self._tuner.set_requires_grad(self._tuner.active_adapter, requires_grad)
        return self

    def delete_adapter(self, adapter_name: str) -> None:
        """Not possible where transformers loaded the adapter.

        Raises:
            ConfigError: always; `BioTuneModel.delete_adapter` goes another way.
        """
        raise ConfigError(
            f"adapter {adapter_name!r} can't be deleted from a model that transformers loaded it "
            f"into; call disable_adapters() for the base model's weights, or load the adapter with "
            f"BioTuneModel.from_pretrained(base_model, ...)"
        )

    def train(self, mode: bool = True) -> BlockMarker:
        """As `nn.Module.train`; where no wrapper does it, frozen blocks are kept in eval mode."""
        super().train(mode)
        if mode and self._tuner.is_injected:
            self._tuner.keep_frozen()
            self._tuner.freeze_parameters()
        return self


def markers_of(tuner: BlockTuner, blocks: Iterable[str]) -> nn.ModuleDict:
    """A marker for each of the blocks, under their names."""
    markers = nn.ModuleDict()
    # Not through add_module, which refuses names such as `train` that modules have otherwise.
    markers._modules.update({block: BlockMarker(tuner, block) for block in blocks})
    return markers
