"""Where the activations of frozen prefixes are kept: in memory, then in a file, within limits."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from .mapped import mapped_tensor

# Of what is free when the cache is made; several searches may run on one machine.
SHARE_OF_MEMORY = 0.25
SHARE_OF_DISK = 0.25


@dataclass(frozen=True)
class RowLayout:
    """How the rows of a tensor lie in memory, so that they come back as they were.

    Args:
        shape: of one sample's part, its first dimension the rows that belong to it; a constant has
            its own shape.
        strides: of that, if a sample's numbers lie side by side; otherwise those of a copy.
        is_constant: whether there is one tensor for all samples.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    is_constant: bool

    @classmethod
    def of(cls, tensor: torch.Tensor, rows: int) -> RowLayout:
        """The layout of a tensor that has so many rows for each sample; 0: it is a constant."""
        shape = tuple(tensor.shape) if rows == 0 else (rows, *tensor.shape[1:])
        dense = tensor if _is_dense(tensor) else tensor.contiguous()
        return cls(shape, dense.stride(), rows == 0)

    @property
    def numel(self) -> int:
        """How many numbers a sample has."""
        return torch.Size(self.shape).numel()

    def flat(self, tensor: torch.Tensor) -> torch.Tensor:
        """The numbers of a tensor, in their order in memory. Shape: (samples, numel)."""
        if tensor.stride() != self.strides:
            strided = torch.empty_strided(
                tensor.shape, self.strides, dtype=tensor.dtype, device=tensor.device
            )
            tensor = strided.copy_(tensor)
        samples = 1 if self.is_constant else len(tensor) // self.shape[0]
        return tensor.as_strided((samples, self.numel), (self.numel, 1))

    def tensor(self, flat: torch.Tensor) -> torch.Tensor:
        """The inverse of [`~RowLayout.flat`], without a copy."""
        shape = self.shape if self.is_constant else (len(flat) * self.shape[0], *self.shape[1:])
        return flat.as_strided(shape, self.strides)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether numbers lie side by side, sample after sample, in any order within a sample."""
    expected = 1
    inner = zip(tensor.stride()[1:], tensor.shape[1:], strict=True)
    for stride, size in sorted(inner):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return tensor.ndim > 0 and tensor.stride(0) == expected


class PrefixRows:
    """The activations of one boundary for the samples of one split.

    Args:
        n_samples: of the split.
        bytes_per_sample: see [`PrefixPlan`].
        n_blocks: that are left out.
        asked: how many trainings could have used it.
    """

    def __init__(self, n_samples: int, bytes_per_sample: int, n_blocks: int, asked: int) -> None:
        self.bytes = n_samples * bytes_per_sample
        self.n_blocks = n_blocks
        self.asked = asked
        self.seconds_per_sample = 0.0
        self.in_file = False
        self.directory: Path | None = None
        self.is_filled = torch.zeros(n_samples, dtype=torch.bool)
        self._layouts: tuple[RowLayout, ...] = ()
        self._tensors: list[torch.Tensor] = []

    @property
    def value(self) -> float:
        """How much work it saves for the space that it takes, by how often it was asked for."""
        return self.asked * self.n_blocks / max(1, self.bytes)

    def missing(self, rows: torch.Tensor) -> torch.Tensor:
        """Those of the rows that are not there yet."""
        return rows[~self.is_filled[rows]]

    def put(
        self, rows: torch.Tensor, tensors: Sequence[torch.Tensor], per_sample: Sequence[int]
    ) -> bool:
        """Keep the activations of some samples.

        Args:
            rows: numbers of the samples.
            tensors: what is kept of them.
            per_sample: rows of each tensor that belong to a sample; 0: a constant.

        Returns:
            Whether what does not depend on the samples is as it was before.

        Raises:
            OSError: the file can't be made.
        """
        if not self._tensors:
            self._layouts = tuple(map(RowLayout.of, tensors, per_sample))
            self._tensors = [
                self._space(layout, tensor)
                for layout, tensor in zip(self._layouts, tensors, strict=True)
            ]
        for layout, place, tensor in zip(self._layouts, self._tensors, tensors, strict=True):
            flat = layout.flat(tensor).cpu()
            if not layout.is_constant:
                place[rows] = flat
            elif not self.is_filled.any():
                place.copy_(flat)
            elif not torch.equal(place, flat):
                return False
        self.is_filled[rows] = True
        return True

    def take(self, rows: torch.Tensor, device: torch.device | str) -> list[torch.Tensor]:
        """The activations of some samples, as copies that may be changed in place."""
        return [
            layout.tensor(
                (place.clone() if layout.is_constant else place.index_select(0, rows)).to(device)
            )
            for layout, place in zip(self._layouts, self._tensors, strict=True)
        ]

    def _space(self, layout: RowLayout, tensor: torch.Tensor) -> torch.Tensor:
        shape = (1 if layout.is_constant else len(self.is_filled), layout.numel)
        if not self.in_file:
            return torch.empty(shape, dtype=tensor.dtype)
        return mapped_tensor(shape, tensor.dtype, self.directory)


@dataclass
class PrefixStore:
    """All activations that are kept, within limits of memory and disk space.

    Args:
        memory: bytes. Default: a quarter of the memory that is free now.
        directory: where a temporary directory for files may be made. Default: the system's.
        disk: bytes. Default: a quarter of the free space there; asked when a file is first needed.
    """

    memory: int | None = None
    directory: Path | None = None
    disk: int | None = None
    peak_memory: int = 0
    peak_disk: int = 0
    _kept: dict[Hashable, PrefixRows] = field(default_factory=dict)
    _asked: dict[Hashable, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.memory is None:
            self.memory = int(psutil.virtual_memory().available * SHARE_OF_MEMORY)

    def get(self, key: Hashable) -> PrefixRows | None:
        """What is kept under a key."""
        return self._kept.get(key)

    def ask(self, key: Hashable) -> None:
        """Note that a training could use this; what is asked for more often is kept rather."""
        self._asked[key] = self._asked.get(key, 0) + 1
        if key in self._kept:
            self._kept[key].asked = self._asked[key]

    def make_room(
        self,
        key: Hashable,
        n_samples: int,
        bytes_per_sample: int,
        n_blocks: int,
        in_use: Collection[PrefixRows] = (),
    ) -> PrefixRows | None:
        """A place for the activations of a boundary, or `None` if there is none.

        What is worth less makes room for it.

        Args:
            key: of what is to be kept.
            n_samples: see [`PrefixRows`].
            bytes_per_sample: see [`PrefixRows`].
            n_blocks: see [`PrefixRows`].
            in_use: what must stay.
        """
        rows = PrefixRows(n_samples, bytes_per_sample, n_blocks, self._asked.get(key, 1))
        rows.directory = self.directory
        assert self.memory is not None
        if not self._fits(rows, self.memory, in_use):
            rows.in_file = True
            if not self._fits(rows, self._disk_limit(), in_use):
                return None
        self._kept[key] = rows
        self.peak_memory = max(self.peak_memory, self.used(in_file=False))
        self.peak_disk = max(self.peak_disk, self.used(in_file=True))
        return rows

    def discard(self, key: Hashable) -> None:
        """Forget what is kept under a key."""
        self._kept.pop(key, None)

    def close(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def used(self, in_file: bool) -> int:
        """Bytes in memory, or in files."""
        return sum(rows.bytes for rows in self._kept.values() if rows.in_file == in_file)

    def _fits(self, rows: PrefixRows, limit: int, in_use: Collection[PrefixRows]) -> bool:
        """Whether there is room where the rows shall be, once what is worth less has gone."""
        lesser = sorted(
            (
                (other.value, key)
                for key, other in self._kept.items()
                if other.in_file == rows.in_file
                and other.value < rows.value
                and not any(other is used for used in in_use)
            ),
            key=lambda pair: pair[0],
        )
        free = limit - self.used(rows.in_file)
        going: list[Hashable] = []
        for _, key in lesser:
            if free >= rows.bytes:
                break
            free += self._kept[key].bytes
            going.append(key)
        if free < rows.bytes:
            return False
        for key in going:
            self.discard(key)
        return True

    def _disk_limit(self) -> int:
        if self.directory is not None:
            self.directory.mkdir(parents=True, exist_ok=True)
        if self.disk is None:
            place = self.directory or Path(tempfile.gettempdir())
            self.disk = int(shutil.disk_usage(place).free * SHARE_OF_DISK)
        return self.disk
