"""One live model for all trainings: its weights are put back instead of loading it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from transformers import set_seed

from ..blocks import Partition
from ..exceptions import ConfigError


class BaseModelPool:
    """A base model that can be put back to how `model_init` makes it under a given seed.

    `model_init` is called once per seed; only the tensors that differ between seeds (a freshly
    initialised head) are kept for each.

    Args:
        model_init: makes the base model, untrained, as for `Trainer`.
        device: where the model lives.
    """

    def __init__(
        self,
        model_init: Callable[[], nn.Module],
        device: torch.device | str = "cpu",
    ) -> None:
        self._model_init = model_init
        self._of_seed: dict[int, dict[str, torch.Tensor]] = {}
        self.model = self._initialise(0).to(device)
        self._base = {name: t.detach().clone() for name, t in self._tensors().items()}

    def _tensors(self) -> dict[str, torch.Tensor]:
        return {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}

    def _initialise(self, seed: int) -> nn.Module:
        set_seed(seed)
        model = self._model_init()
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"model_init must return a torch.nn.Module, got {type(model).__name__}"
            )
        return model

    def _differences(self, seed: int) -> dict[str, torch.Tensor]:
        if seed not in self._of_seed:
            fresh = self._initialise(seed)
            if fresh is self.model:
                raise ConfigError(
                    "model_init must make the model anew at each call, got the same one twice; "
                    "load it inside of the function"
                )
            tensors = {**dict(fresh.named_parameters()), **dict(fresh.named_buffers())}
            if tensors.keys() != self._base.keys():
                raise ConfigError("model_init must return the same architecture at every call")
            self._of_seed[seed] = {
                name: tensor.detach().clone()
                for name, tensor in tensors.items()
                if not torch.equal(tensor.cpu(), self._base[name].cpu())
            }
        return self._of_seed[seed]

    def restore(self, seed: int) -> nn.Module:
        """The live model, with the weights that `model_init` gives under `seed`."""
        differences = self._differences(seed)
        with torch.no_grad():
            for name, tensor in self._tensors().items():
                tensor.copy_(differences.get(name, self._base[name]))
                tensor.grad = None
        return self.model

    def seeded_tensors(self, seed: int) -> frozenset[str]:
        """Names of the parameters and buffers that are others under this seed than by default."""
        return frozenset(self._differences(seed))

    def seeded_blocks(self, partition: Partition, seeds: Sequence[int]) -> list[str]:
        """The blocks whose initial weights depend on the seed, so that no checkpoint holds them.

        Args:
            partition: the model's blocks.
            seeds: the seeds to compare, beside an arbitrary first one.
        """
        # Under seed 0 nothing differs: that is how the first model was made.
        names = {name for seed in {*seeds, 1} for name in self._differences(seed)}
        parameters = {name for block in partition for name in block.parameters}
        found = {partition.block_of_parameter(name) for name in names & parameters}
        return [block.name for block in partition if block.name in found]
