"""A training that does not fit into memory is tried once more, with batches in parts.

The gradients of the parts are accumulated, so the optimizer makes the same number of steps with the
same number of samples each. BatchNorm in trained blocks sees half as many samples at once, and sums
are added in another order: the result is not that of the whole batch, but the same in every run
that comes to this. What a training needs depends on its own blocks, so nothing is remembered for
the next one: that the same individual gives the same result must not depend on what was trained
before. To fail takes one step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device, or the machine, has too little memory for what was computed."""
    return isinstance(error, torch.OutOfMemoryError) or bool(should_reduce_batch_size(error))


def with_smaller_batches(attempt: Callable[[int], Result], batch_size: int) -> Result:
    """Compute something, and if memory doesn't suffice once more with batches half as large.

    Args:
        attempt: computes it, with each batch divided into so many parts: 1, then perhaps 2 (of an
            odd batch: the smallest number that divides it).
        batch_size: in one part. A batch of 1 sample can't be divided.

    Raises:
        torch.OutOfMemoryError: or what else the second attempt raises.
    """
    try:
        return attempt(1)
    except Exception as error:
        if batch_size < 2 or not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0]
    # Only here is the error gone, and with it all that its traceback held on to.
    clear_device_cache(garbage_collection=True)
    parts = next(n for n in range(2, batch_size + 1) if batch_size % n == 0)
    logger.warning(
        "batches of %d samples do not fit into memory (%s); each is now computed in %d parts, "
        "whose gradients are accumulated",
        batch_size,
        reason,
        parts,
    )
    return attempt(parts)


def part_of(batch_size: int, parts: int) -> int:
    """How many samples are in a part of a batch."""
    return -(-batch_size // parts)
