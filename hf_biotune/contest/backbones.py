"""Which of several pre-trained models is promising for a data set, told before any training."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..blocks import partition
from ..exceptions import ConfigError
from ..features import head_inputs, logme
from .arena import Arena, LoadedArena


@dataclass(frozen=True)
class BackboneScore:
    """One pre-trained model on a data set.

    Args:
        model: its name.
        logme: the greater, the better a head on its frozen features is expected to do.
        n_features: that reach its head.
        seconds: wall time of the forward passes and of LogME.
    """

    model: str
    logme: float
    n_features: int
    seconds: float


def rank_backbones(models: Sequence[str], dataset: str, **options: Any) -> list[BackboneScore]:
    """Rank pre-trained models by LogME on the training samples, without training.

    Args:
        models: Hub ids or local directories, at least one.
        dataset: Hub id or local path.
        options: further arguments of [`Arena`], such as `image_size`.

    Returns:
        The most promising first.

    Raises:
        ConfigError: there is no model, one is named twice, or one can't be loaded.
        DataError: the data can't be read.

    Source: You et al., LogME (arXiv 2102.11005).
    """
    if not models or len(set(models)) != len(models):
        raise ConfigError(f"models must be distinct and at least one, got {list(models)}")
    scores = [_score(Arena(model, dataset, **options)) for model in models]
    return sorted(scores, key=lambda score: -score.logme)


def _score(arena: Arena) -> BackboneScore:
    loaded = LoadedArena(arena)
    data = loaded.split(0)
    args = arena.arguments(None)
    model = loaded.model_init(data)().to(args.device)
    started = time.perf_counter()
    features = head_inputs(model, data.train, partition(model, arena.blocks))
    score = logme(features, data.train.labels.numpy())
    return BackboneScore(arena.model, score, features.shape[1], time.perf_counter() - started)
