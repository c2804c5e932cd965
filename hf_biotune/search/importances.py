"""Which blocks matter for a task: how much of the scores' variance each block explains.

The genes can't be asked directly: the importance of a frozen block means nothing, and whether it is
frozen is a matter of the threshold. So Optuna is asked about what was trained: one parameter a
block, its log10 multiplier, and for a frozen block a value apart, below all rates.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import (
    FanovaImportanceEvaluator,
    PedAnovaImportanceEvaluator,
    get_param_importances,
)
from optuna.importance._base import BaseImportanceEvaluator

from ..evolution import minimised_fitness
from ..exceptions import ConfigError

# With fewer, a forest of regression trees says what chance did.
MINIMUM_INDIVIDUALS = 10

# Rates are in [-1, 1], or beyond with a gene for the base rate. Trees part frozen from trained
# half-way between the lowest rate and this, or lower.
_FROZEN = -2.0
_MARGIN = 1.0

# PED-ANOVA looks at what the best have in common, which must be more than two or three of them.
_BEST_SHARE = 0.25
_EVALUATORS: dict[str, Callable[[], BaseImportanceEvaluator]] = {
    "fanova": lambda: FanovaImportanceEvaluator(seed=0),
    "ped-anova": lambda: PedAnovaImportanceEvaluator(target_quantile=_BEST_SHARE),
}


def block_importances(
    history: pd.DataFrame,
    block_names: Sequence[str],
    *,
    greater_is_better: bool,
    evaluator: str = "fanova",
) -> pd.Series[float]:
    """How much each block matters for the score: whether it is trained, and at which rate.

    Only individuals that were trained to their end count, each with its score relative to the mean
    of its fold. They are few and were not drawn at random: take the first places for a hint, and
    the order of the rest for chance.

    Args:
        history: of a search; see [`history_of`].
        block_names: of the partition.
        greater_is_better: whether a greater score is a better one.
        evaluator: `"fanova"` (share of the variance of all scores) or `"ped-anova"` (how much the
            best quarter differs from all).

    Returns:
        By block, the largest first, with sum 1.

    Raises:
        ConfigError: an unknown evaluator, fewer than 10 individuals, or all have the same score.

    Source: Hutter, Hoos and Leyton-Brown (2014), and Watanabe, Bansal and Hutter (2023), both as in
    `optuna.importance`.
    """
    if evaluator not in _EVALUATORS:
        raise ConfigError(f"evaluator must be one of {', '.join(_EVALUATORS)}, got {evaluator!r}")
    trained = history[history["state"] == "complete"]
    if len(trained) < MINIMUM_INDIVIDUALS:
        raise ConfigError(
            f"block importances need at least {MINIMUM_INDIVIDUALS} individuals that were trained "
            f"to their end, got {len(trained)}; search with a larger budget, or without halving"
        )
    fitness = minimised_fitness(trained["score"].to_numpy(), maximize=greater_is_better)
    centred = pd.Series(fitness).groupby(trained["fold"].to_numpy()).transform(_minus_mean)
    if np.ptp(centred) < 1e-12:
        raise ConfigError(
            f"all {len(trained)} individuals have the same score, so no block matters more than "
            f"another; the metric may be too coarse for the validation set"
        )
    study = _derived_study(trained, block_names, centred.tolist())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        found = get_param_importances(study, evaluator=_EVALUATORS[evaluator](), normalize=False)
    values = pd.Series(found, dtype=float).reindex(list(block_names)).fillna(0.0)
    total = float(values.sum())
    # An evaluator that finds nothing: no block matters more than another.
    shares = values / total if total > 0 else values + 1.0 / len(values)
    return shares.sort_values(ascending=False, kind="stable").rename_axis("block")


def _derived_study(
    trained: pd.DataFrame, block_names: Sequence[str], values: Sequence[float]
) -> optuna.Study:
    """A study in memory with what was trained as its parameters."""
    multipliers = trained[[f"multiplier:{name}" for name in block_names]].to_numpy(dtype=float)
    logs = np.log10(multipliers)
    frozen = min(_FROZEN, float(np.nanmin(logs)) - _MARGIN)
    rates = np.where(np.isnan(multipliers), frozen, logs)
    highest = max(1.5, float(np.nanmax(logs)))
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), direction="minimize")
    for row, value in zip(rates.tolist(), values, strict=True):
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(block_names, row, strict=True)),
                distributions=dict.fromkeys(
                    block_names, FloatDistribution(frozen - _MARGIN, highest)
                ),
                value=value,
            )
        )
    return study


def _minus_mean(scores: pd.Series[float]) -> pd.Series[float]:
    return scores - scores.mean()
