"""Baselines that are a choice of blocks and rates: one entry a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..blocks import Partition
from ..config import BioTuneConfig
from ..exceptions import ConfigError
from ..search.starts import full_fine_tuning, last_half, linear_probe

BASELINES: dict[str, Callable[[Partition], dict[str, float]]] = {
    "linear probe": linear_probe,
    "full fine-tuning": full_fine_tuning,
    "last half": last_half,
}


def baseline_config(method: str, partition: Partition, **kwargs: Any) -> BioTuneConfig:
    """The configuration of a baseline.

    Args:
        method: a key of `BASELINES`.
        partition: the model's blocks.
        kwargs: further arguments of [`BioTuneConfig`].

    Raises:
        ConfigError: an unknown method.
    """
    if method not in BASELINES:
        raise ConfigError(f"method must be one of {', '.join(BASELINES)}, got {method!r}")
    return BioTuneConfig(
        lr_multipliers=BASELINES[method](partition),
        partition=partition.to_patterns(),
        saved_blocks=[],
        **kwargs,
    )
