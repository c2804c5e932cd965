"""What each process of searches by a team runs: `team_worker.py OUTPUT`.

Writes what it saw of each search to `OUTPUT/rank<r>.json`, by mode. Trainings take milliseconds and
the start of a process takes seconds, so the same processes make all searches.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import nn

from hf_biotune import SearchConfig, SearchResult, biotune_search
from hf_biotune.exceptions import TrainingError
from hf_biotune.search import EncodedSplit, SearchListener, default_training_arguments
from hf_biotune.search.fitness_result import EpochRecord
from hf_biotune.search.history import MULTIPLIERS_KEY, finished_trials, fitness_of

RANK = int(os.environ.get("RANK", 0))
SAMPLES, BATCH, CLASSES = 24, 12, 3
SEARCH = SearchConfig(
    budget=14,
    population_size=5,
    n_elites=1,
    seeds=(1, 2),
    n_finalists=2,
    memory_layout="contiguous",
    precision="fp32",
    fused_optimizer=False,
    surrogate=False,
    # The gradients that inform one of them are those of the leader's part of a batch.
    seeded_start=False,
)


class Small(nn.Module):
    """Two convolutions and a head."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6) if norm else nn.Identity())
        self.head = nn.Linear(6, CLASSES)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        features = self.body(self.stem(pixel_values).relu()).relu().mean((2, 3))
        return self.head(features)


class Broken(Small):
    """The second process can't compute when the stem is trained."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if RANK == 1 and self.training and self.stem.weight.requires_grad:
            raise RuntimeError("the stem is too hot")
        return super().forward(pixel_values)


class Narrow(Small):
    """The second process has no memory for more than 5 samples at a time."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        if RANK == 1 and self.training and len(pixel_values) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().forward(pixel_values)


class Agreement:
    """A metric of one's own."""

    def __init__(self, unsendable: Any = None) -> None:
        self.unsendable = unsendable

    def compute(self, predictions: Sequence[int], references: Sequence[int]) -> dict[str, float]:
        pairs = zip(predictions, references, strict=True)
        return {"agreement": sum(a == b for a, b in pairs) / len(references)}


class Deaf(SearchListener):
    """Fails in mid-training."""

    def on_epoch_end(self, seed: int, curve: Sequence[EpochRecord], epochs: int) -> None:
        if len(curve) == 3:
            raise ValueError("what did you say?")


def norm() -> nn.Module:
    return Small(norm=True)


def different() -> nn.Module:
    model = Small()
    nn.init.constant_(model.stem.bias, RANK)
    return model


def samples(seed: int) -> EncodedSplit:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(SAMPLES) % CLASSES
    images = torch.randn(SAMPLES, 1, 6, 6, generator=generator) + labels[:, None, None, None]
    return EncodedSplit({"pixel_values": images}, labels, ("a", "b", "c"))


def search(
    output: Path,
    config: SearchConfig = SEARCH,
    model_init: Callable[[], nn.Module] = Small,
    batch_size: int = BATCH // int(os.environ.get("WORLD_SIZE", 1)),
    **kwargs: Any,
) -> SearchResult:
    """A search whose batches have the same size with any number of processes."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    args = default_training_arguments(
        str(output / "study"),
        num_train_epochs=4,
        # Adam would make whole steps of the last bits of tiny gradients.
        optim="sgd",
        learning_rate=0.3,
        per_device_train_batch_size=batch_size,
        use_cpu=True,
    )
    return biotune_search(
        model_init,
        samples(1),
        samples(2),
        args,
        config,
        blocks=("stem", "body", "head"),
        **kwargs,
    )


def resumed(output: Path) -> SearchResult:
    """A search whose leader fails, and which is then gone on with."""
    try:
        search(output, listener=Deaf())
    except (ValueError, TrainingError):
        return search(output)
    raise AssertionError("it did not fail")


MODES: dict[str, Callable[[Path], SearchResult]] = {
    "plain": search,
    "in memory": lambda output: search(output, storage="memory"),
    "norm": lambda output: search(output, model_init=norm),
    "norm, not cached": lambda output: search(
        output, replace(SEARCH, prefix_cache=False), model_init=norm
    ),
    "broken": lambda output: search(
        output, replace(SEARCH, max_failed_share=1.0), model_init=Broken
    ),
    "narrow": lambda output: search(output, model_init=Narrow),
    "different": lambda output: search(output, model_init=different),
    "own metric": lambda output: search(output, replace(SEARCH, metric=Agreement())),
    "unsendable": lambda output: search(
        output, replace(SEARCH, metric=Agreement(unsendable=lambda: None))
    ),
    "two workers": lambda output: search(output, workers=2),
    "deaf": lambda output: search(output, listener=Deaf()),
    "resumed": resumed,
    # There is a study of one process already.
    "other": search,
}


def seen(result: SearchResult) -> dict[str, Any]:
    """What this process has of the search."""
    trials = finished_trials(result.study)
    runs = [run for trial in trials for run in fitness_of(trial).runs]
    images = samples(3).view().batch(torch.arange(SAMPLES))["pixel_values"]
    with torch.no_grad():
        logits = result.best_model.eval()(images)
    return {
        "winner": result.best_config.lr_multipliers,
        "score": result.best_score,
        "scores": result.history.score.tolist(),
        "states": result.history.state.tolist(),
        "multipliers": [trial.user_attrs[MULTIPLIERS_KEY] for trial in trials],
        "losses": [epoch.train_loss for run in runs for epoch in run.curve],
        "reasons": [run.reason for run in runs],
        "parts": [run.batch_parts for run in runs],
        "cached": result.cache_statistics.share if result.cache_statistics else 0.0,
        "logits": logits.tolist(),
    }


def report_of(mode: str, output: Path) -> dict[str, Any]:
    """What this process saw of one search."""
    try:
        return seen(MODES[mode](output / mode))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main() -> None:
    output = Path(sys.argv[1])
    torch.set_num_threads(1)
    reports = {mode: report_of(mode, output) for mode in MODES}
    (output / f"rank{RANK}.json").write_text(json.dumps(reports))


if __name__ == "__main__":
    main()
