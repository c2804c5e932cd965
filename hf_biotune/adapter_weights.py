"""The weights of several adapters of one base model, of which one at a time is in place.

What is not in place is kept in plain tensors outside of the model's state: the base model's, once,
in main memory, and those of every adapter but the active one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.autograd.graph import increment_version

from .exceptions import ConfigError


class AdapterWeights:
    """Puts weights in place and aside.

    Args:
        model: whose weights they are.
        keeps_base: whether the base model's are kept, which changing the adapter needs.

    Attributes:
        base: tensor name -> the base model's value, for every tensor that some adapter trains.
        aside: adapter name -> its tensors, while they are not in place.
    """

    def __init__(self, model: nn.Module, keeps_base: bool) -> None:
        self._model = model
        self.keeps_base = keeps_base
        self.base: dict[str, torch.Tensor] = {}
        self.aside: dict[str, dict[str, torch.Tensor]] = {}
        # While an adapter is lent: name -> its own memory, and what puts back autograd's count.
        self._lent: dict[str, torch.Tensor] = {}
        self._counts: dict[str, _unsafe_preserve_version_counter] = {}

    def keep_base(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy the base model's weights, but those that were copied before.

        Args:
            tensors: name and value, as they are in place now.
        """
        for name, tensor in tensors:
            self.base.setdefault(name, tensor.detach().cpu().clone())

    def require_base(self, action: str) -> None:
        """Check that the base model's weights are kept.

        Args:
            action: what needs them, for the message.

        Raises:
            ConfigError: they are not.
        """
        if not self.keeps_base:
            raise ConfigError(
                f"{action} needs the base model's weights, but keep_base_weights=False; call "
                f"get_biotune_model(..., keep_base_weights=True)"
            )

    def write(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put tensors in place, by name."""
        current = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        with torch.no_grad():
            for name, value in tensors.items():
                current[name].copy_(value)

    def take_out(self, adapter_name: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Put an adapter's weights aside and the base model's in place.

        Args:
            adapter_name: which one is in place.
            tensors: name and value of its tensors.
        """
        own = {name: tensor.detach().clone() for name, tensor in tensors}
        self.aside[adapter_name] = own
        self.write({name: self.base[name] for name in own})

    def lend(self, adapter_name: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """The same for a while, until [`~AdapterWeights.put_in`].

        Memory is swapped, and nothing is copied: what autograd has kept for a backward pass is
        valid again afterwards, so that the base model may be asked in between. A backward pass
        meanwhile is refused by autograd, as after any change.

        Args:
            adapter_name: which one is in place.
            tensors: name and value of its tensors.
        """
        self.aside[adapter_name] = self._lent = {}
        # What is made in inference mode could never be trained.
        with torch.inference_mode(False), torch.no_grad():
            for name, tensor in tensors:
                self._lent[name] = tensor.data
                self._counts[name] = _unsafe_preserve_version_counter(tensor)
                tensor.data = torch.empty_like(tensor).copy_(self.base[name])
                increment_version(tensor)

    def put_in(self, adapter_name: str) -> None:
        """Put in place what lies aside of an adapter; of one that was never trained, nothing."""
        values = self.aside.pop(adapter_name, {})
        current = dict(self._model.named_parameters()) | dict(self._model.named_buffers())
        if values is self._lent:
            for name in [name for name, own in values.items() if _is_alike(own, current[name])]:
                current[name].data = values.pop(name)
                self._counts[name].__exit__()
        # Of a model that was moved or cast meanwhile, too.
        self.write(values)
        self._lent, self._counts = {}, {}

    def forget(self, adapter_name: str, needed: set[str]) -> None:
        """Drop what an adapter has aside.

        Args:
            adapter_name: which one.
            needed: names of the tensors that other adapters train.
        """
        self.aside.pop(adapter_name, None)
        self.base = {name: tensor for name, tensor in self.base.items() if name in needed}


def _is_alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether the memory of one tensor will do for the other."""
    return (one.device, one.dtype, one.stride()) == (other.device, other.dtype, other.stride())
