"""Tensors that need no memory: their numbers are in a file that nobody else sees."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

# Of the memory that is free: trainings need some too.
SHARE_OF_MEMORY = 0.5


def mapped_tensor(
    shape: Sequence[int], dtype: torch.dtype, directory: Path | None = None
) -> torch.Tensor:
    """A tensor of zeros in a file, which goes when the tensor does, or when the process is killed.

    Args:
        shape: of the tensor.
        dtype: of the tensor.
        directory: where the file is made. Default: the system's place for temporary files.

    Raises:
        OSError: there is no space for it.
    """
    numel = torch.Size(shape).numel()
    # What is mapped stays there when its name is gone.
    with tempfile.TemporaryDirectory(
        prefix="hf-biotune-", dir=directory, ignore_cleanup_errors=True
    ) as place:
        path = Path(place) / "tensor"
        with path.open("wb") as file:
            # Writing into a mapped file that the disk has no space for would kill the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(1, numel * dtype.itemsize))
        mapped = torch.from_file(str(path), shared=True, size=numel, dtype=dtype)
    return mapped.view(*shape)


def is_mapped(tensor: torch.Tensor) -> bool:
    """Whether a tensor is in a file, which can't be sent to another process."""
    return tensor.untyped_storage().filename is not None


def fits_memory(n_bytes: int) -> bool:
    """Whether a tensor leaves half of the free memory to others."""
    free: int = psutil.virtual_memory().available
    return n_bytes <= free * SHARE_OF_MEMORY
