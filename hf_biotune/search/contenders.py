"""Who may win: the best individuals, and the few of them that are worth further seeds.

The best individuals of a search are often neighbours of one that was lucky, and as lucky. So
finalists must differ, in their blocks or noticeably in a rate, and descend from different
individuals; and one of them is the best of what people do by hand, so that the winner is no worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import optuna
from optuna.trial import FrozenTrial

from ..evolution import plan_of
from .history import fitness_of, phenotype_of, was_trained
from .metrics import Metric

# In log10 of a rate, as far as phenotypes are rounded for reuse: less is below the noise of seeds.
SMALLEST_DIFFERENCE = 0.25


def contenders(study: optuna.Study, metric: Metric, n: int) -> list[FrozenTrial]:
    """The best `n` trials that were trained to their end, with different blocks or rates.

    Only trials of the newest fold that has `n` of them (or the most) are compared: scores of
    different folds are not comparable.

    Args:
        study: with at least one such trial.
        metric: the score.
        n: how many, at least 1.
    """
    by_fold = trained_by_fold(study)
    newest_first = sorted(by_fold.values(), key=lambda trials: -trials[-1].number)
    trials = max(newest_first, key=lambda trials: min(n, len(trials)), default=[])
    return distinct_best(trials, metric)[:n]


def trained_by_fold(study: optuna.Study) -> dict[int, list[FrozenTrial]]:
    """The trials that were trained to their end, oldest first, by the number of their fold."""
    by_fold: dict[int, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        if was_trained(trial):
            by_fold.setdefault(plan_of(trial).fold, []).append(trial)
    return by_fold


def distinct_best(trials: Sequence[FrozenTrial], metric: Metric) -> list[FrozenTrial]:
    """Trials of one fold, best first; of those with the same blocks and rates only the best."""
    # Stable: of equal scores the older trial comes first.
    ranked = sorted(trials, key=lambda t: fitness_of(t).score, reverse=metric.greater_is_better)
    found: list[FrozenTrial] = []
    for trial in ranked:
        if phenotype_of(trial) not in [phenotype_of(other) for other in found]:
            found.append(trial)
    return found


def finalist_trials(
    study: optuna.Study, metric: Metric, n: int, n_starts: int = 0
) -> list[FrozenTrial]:
    """The best `n` trials that differ, one of them the best of the seeded start.

    Families are different as far as possible; if there are fewer, their next best members follow.

    Args:
        study: with at least one individual that was trained to its end.
        metric: the score.
        n: how many, at least 1. With 1, the best trial alone.
        n_starts: how many of the first individuals are what people do by hand.
    """
    ranked = contenders(study, metric, len(study.get_trials(deepcopy=False)))
    best_start = _best_start(study, metric, n_starts) if n > 1 else None
    trials = study.get_trials(deepcopy=False)
    found: list[FrozenTrial] = []
    for of_new_families in (True, False):
        for trial in ranked:
            families = {family_of(other, trials) for other in found}
            if all(differ(trial, other) for other in found) and not (
                of_new_families and family_of(trial, trials) in families
            ):
                found.append(trial)
    found = found[:n]
    # With folds, a start that was scored again is no start, but trains the same.
    if best_start is None or any(
        _is_start(trial, n_starts) or phenotype_of(trial) == phenotype_of(best_start)
        for trial in found
    ):
        return found
    return [*found[: n - 1], best_start]


def differ(some: FrozenTrial, other: FrozenTrial) -> bool:
    """Whether two trials train different blocks, or one at rates a quarter of a decade apart."""
    first, second = phenotype_of(some), phenotype_of(other)
    if first.keys() != second.keys():
        return True
    apart = [abs(math.log10(first[name] / second[name])) for name in first]
    return max(apart, default=0.0) >= SMALLEST_DIFFERENCE


def family_of(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> int:
    """The number of the trial whose neighbour, or neighbour's neighbour, a trial is.

    Args:
        trial: whose family.
        trials: all of the study, by number.
    """
    numbers: list[int] = [ancestor.number for ancestor in _ancestors(trial, trials)]
    return numbers[-1]


def _ancestors(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> Iterator[FrozenTrial]:
    yield trial
    plan = plan_of(trial)
    if plan.role in ("exploit", "rescore"):
        yield from _ancestors(trials[plan.parents[0]], trials)


def _best_start(study: optuna.Study, metric: Metric, n_starts: int) -> FrozenTrial | None:
    trained = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if was_trained(trial) and _is_start(trial, n_starts)
    ]
    return next(iter(distinct_best(trained, metric)), None)


def _is_start(trial: FrozenTrial, n_starts: int) -> bool:
    plan = plan_of(trial)
    return plan.generation == 0 and plan.slot < n_starts
