"""Processes that train one individual together, as `torchrun` and `accelerate launch` start them.

Each has a copy of the model, computes its share of every batch, and adds its gradients to those of
the others, as DDP does. DDP itself would not do: it wraps the call of a whole model, and a search
also calls what is left of one behind its cached blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import DistributedType, PartialState
from accelerate.utils import broadcast, broadcast_object_list, gather_object, reduce
from torch import nn
from transformers import TrainingArguments

from ..exceptions import ConfigError
from .out_of_memory import is_out_of_memory

# What a process tells the others at the end of a part of the work.
_WELL, _FAILED, _OUT_OF_MEMORY = 0, 1, 2
_PLAIN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)

Item = TypeVar("Item")


class Team:
    """This process among those that train together; alone by default.

    What one method does, all processes must do at the same time.

    Args:
        number: of this process, from 0, which leads.
        size: of the team, at least 1.
        device: where this process computes.
    """

    def __init__(self, number: int = 0, size: int = 1, device: torch.device | str = "cpu") -> None:
        self.number = number
        self.size = size
        self.device = torch.device(device)

    @classmethod
    def of(cls, args: TrainingArguments) -> Team:
        """The team that this process was started in, by itself in an ordinary program.

        Args:
            args: of the trainings; they choose the device, and begin to talk to the others.

        Raises:
            ConfigError: the model would be divided among the processes, as FSDP and DeepSpeed do;
                or the processes would not train together.
        """
        device = args.device
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return cls(device=device)
        state = PartialState()
        sharded = "ACCELERATE_USE_FSDP" in os.environ or args.fsdp or args.deepspeed
        if sharded or state.distributed_type not in _PLAIN:
            raise ConfigError(
                "a search trains with a whole model in each process and divides batches among "
                "them, as DDP does; it can't divide the model (FSDP, DeepSpeed). Leave that out, "
                "or search on a smaller model and fine-tune the winner with Trainer, which can"
            )
        if state.num_processes == 1:
            # What Accelerate makes of several processes without GPUs that nobody wants on the CPU.
            raise ConfigError(
                f"WORLD_SIZE={os.environ['WORLD_SIZE']}, but this process knows of no other: "
                f"without GPUs give TrainingArguments(use_cpu=True, ...)"
            )
        return cls(state.process_index, state.num_processes, device)

    @property
    def is_leader(self) -> bool:
        """Whether this process decides for all."""
        return self.number == 0

    def share(self, positions: torch.Tensor) -> torch.Tensor:
        """What this process computes of a batch; shares differ by one sample at most.

        Args:
            positions: of all samples of the batch, the same in each process.
        """
        return torch.tensor_split(positions, self.size)[self.number]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around a part of the work: if one process fails in it, all of them do.

        Raises:
            RuntimeError: another process failed.
            torch.OutOfMemoryError: another process has too little memory.
        """
        if self.size == 1:
            yield
            return
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        state = _WELL
        if error is not None:
            state = _OUT_OF_MEMORY if is_out_of_memory(error) else _FAILED
        states = self._sum(nn.functional.one_hot(torch.tensor(state), 3))
        if int(states[_WELL]) == self.size:
            return
        reasons = self.all_of("" if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        number, reason = next((n, said) for n, said in enumerate(reasons) if said)
        if states[_FAILED]:
            raise RuntimeError(f"process {number} of this training failed: {reason}")
        raise torch.OutOfMemoryError(f"process {number} of this training: {reason}")

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients in all processes, in place."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                # This process had no sample of the batch.
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        total = self._sum(torch.cat([gradient.flatten() for gradient in gradients]))
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, torch.split(total, sizes), strict=True):
            gradient.copy_(part.view_as(gradient))

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes."""
        return value if self.size == 1 else self._sum(value)

    def all_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of all processes, in the order of their shares; on the CPU."""
        if self.size == 1:
            return rows
        return torch.cat(gather_object([rows.cpu()]))

    def share_statistics(self, model: nn.Module) -> None:
        """Give the running statistics of what is in train mode those of the leader, as DDP does."""
        if self.size == 1:
            return
        for module in model.modules():
            if module.training:
                for buffer in module.buffers(recurse=False):
                    broadcast(buffer)

    def hear(self, said: Item | None = None) -> Item:
        """What the leader says.

        Args:
            said: by this process; only the leader's is heard.
        """
        if self.size == 1:
            return said  # type: ignore[return-value]
        heard: Item = broadcast_object_list([said])[0]
        return heard

    def all_of(self, item: Item) -> list[Item]:
        """What each process says, in their order."""
        if self.size == 1:
            return [item]
        said: list[Item] = gather_object([item])
        return said

    def _sum(self, tensor: torch.Tensor) -> torch.Tensor:
        total: Any = reduce(tensor.to(self.device), "sum")
        return torch.as_tensor(total)


ALONE = Team()


def check_is_no_team(what: str) -> None:
    """Check that this process was not started as one of several that train together.

    Args:
        what: trains in one process only, as the message begins.

    Raises:
        ConfigError: it was.
    """
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1":
        raise ConfigError(
            f"{what} trains in one process, but torchrun or accelerate launch started several "
            f"(WORLD_SIZE={world}); start it without them. What can be spread over processes is "
            f"biotune_search in a program of yours, and Trainer with biotune_trainer_kwargs"
        )
