"""The final models of a search and of the usual methods, side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import pandas as pd

from .config import BioTuneConfig
from .search import (
    BioTuneEnsemble,
    FineTuner,
    FineTuneResult,
    Metric,
    SearchListener,
    SearchResult,
)

OURS = "BioTune"
ON_ALL = f"{OURS} on train + validation"
RETRAIN = ("none", "train", "train+validation")


def final_runs(
    method: str,
    config: BioTuneConfig,
    tuner: FineTuner,
    seeds: Sequence[int],
    listener: SearchListener,
) -> list[FineTuneResult]:
    """Train a method to its end, once with each seed."""
    runs = []
    for number, seed in enumerate(seeds, start=1):
        listener.on_stage(f"{method}: final training {number} of {len(seeds)}")
        runs.append(tuner.fit(config, seed))
    return runs


def runs_on_all(
    result: SearchResult,
    tuner: FineTuner,
    runs: Sequence[FineTuneResult],
    listener: SearchListener,
) -> list[FineTuneResult]:
    """Train the winner on training and validation samples, as long as was best without these.

    Args:
        result: of the search.
        tuner: trains.
        runs: of the winner on the training samples; their best epochs are averaged.
        listener: is told of each training.
    """
    epochs = round(statistics.fmean(run.best_epoch for run in runs))
    trained = []
    for number, run in enumerate(runs, start=1):
        listener.on_stage(f"{ON_ALL}: final training {number} of {len(runs)}")
        trained.append(tuner.fit_on_all(result.best_config, run.seed, epochs))
    return trained


def kept_runs(result: SearchResult, tuner: FineTuner, seeds: Sequence[int]) -> list[FineTuneResult]:
    """The winner as the search trained it, tested.

    Raises:
        ConfigError: the search kept no weights, or did not train the winner with such a seed.
        CheckpointError: the weights are not there.
    """
    return [tuner.test(result.kept_model(seed=seed), result.best_run(seed)) for seed in seeds]


def row_of(
    method: str,
    config: BioTuneConfig,
    runs: Sequence[FineTuneResult],
    result: SearchResult,
    lr: float,
    *,
    is_kept: bool = False,
) -> dict[str, object]:
    """One row of the comparison: a method, with the score of every seed.

    Args:
        method: its name.
        config: what it trains.
        runs: its final models.
        result: of the search, whose cost stands in rows of BioTune.
        lr: the base learning rate.
        is_kept: whether the models are those that the search trained.
    """
    trained = sum(result.partition[block].n_parameters for block in config.lr_multipliers)
    return {
        "method": method,
        "seeds": [run.seed for run in runs],
        "test_scores": [run.test_score for run in runs if run.test_score is not None],
        "validation_scores": [
            run.validation_score for run in runs if not math.isnan(run.validation_score)
        ],
        "trained_parameters": trained,
        "trained_share": trained / result.partition.n_parameters,
        "weights": "kept" if is_kept else "trained",
        "seconds": sum(run.seconds for run in runs) / len(runs),
        **_cost(method, result),
        "lr": lr,
    }


def row_of_ensemble(
    ensemble: BioTuneEnsemble, tuner: FineTuner, result: SearchResult, lr: float
) -> dict[str, object]:
    """The row of the best individuals as one model; its sizes are those of all members together."""
    method = f"{OURS} ensemble of {len(ensemble.members)}"
    validation, test = tuner.scores_of(ensemble)
    trained = sum(
        result.partition[block].n_parameters
        for member in ensemble.members
        for block in member.config.lr_multipliers
    )
    return {
        "method": method,
        "seeds": [],
        "test_scores": [] if test is None else [test],
        "validation_scores": [validation],
        "trained_parameters": trained,
        "trained_share": trained / result.partition.n_parameters,
        "weights": "kept",
        "seconds": 0.0,
        **_cost(method, result),
        "lr": lr,
    }


def _cost(method: str, result: SearchResult) -> dict[str, float]:
    is_ours = method.startswith(OURS)
    return {
        "search_seconds": result.seconds if is_ours else 0.0,
        "search_trainings": round(result.trainings, 2) if is_ours else 0,
    }


def best_run(runs: Sequence[FineTuneResult], metric: Metric) -> FineTuneResult:
    """The run of the seed with the best validation score; of equal ones, or without, the first."""
    best = runs[0]
    for run in runs[1:]:
        if metric.is_better(run.validation_score, best.validation_score):
            best = run
    return best


def frame_of(rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """The comparison; see [`ReportData`] for its columns."""
    return pd.DataFrame([dict(row) for row in rows])
