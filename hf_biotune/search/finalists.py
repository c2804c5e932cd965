"""The final choice: the best few individuals, with all seeds, on all data.

A single seed's best score is an optimistic number: the more individuals, the luckier the best. So
the few best are trained again with the seeds that they have not seen, and the best mean wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from ..config import BioTuneConfig
from ..evolution import plan_of
from .fitness import FitnessEvaluator, FitnessResult, RunKeeper, SeedRun
from .history import MULTIPLIERS_KEY, fitness_of, was_trained
from .listener import SearchListener
from .metrics import Metric
from .phenotypes import Phenotypes
from .search_config import SearchConfig

# Before the number of the trial and the seed, in the study's attributes.
FINALIST_PREFIX = "finalist:"


@dataclass(frozen=True)
class Finalist:
    """One of the best individuals.

    Args:
        trial: its number in the study.
        fitness: of all seeds on all data; `trainings` counts the confirmation only.
    """

    trial: int
    fitness: FitnessResult


def contenders(study: optuna.Study, metric: Metric, n: int) -> list[FrozenTrial]:
    """The best `n` trials that were trained to their end, with distinct blocks and rates.

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
        multipliers = trial.user_attrs[MULTIPLIERS_KEY]
        if multipliers not in [other.user_attrs[MULTIPLIERS_KEY] for other in found]:
            found.append(trial)
    return found


def finalists_of(
    study: optuna.Study,
    evaluator: FitnessEvaluator,
    phenotypes: Phenotypes,
    search: SearchConfig,
    listener: SearchListener,
    keeper_of: Callable[[int], RunKeeper] = lambda number: RunKeeper(),
) -> list[Finalist]:
    """The individuals that the winner is chosen from, confirmed if the search asks for it.

    Args:
        study: with at least one individual that was trained to its end.
        evaluator: trains on all data.
        phenotypes: decodes the genotypes.
        search: how many finalists, and with which seeds.
        listener: is told of each of their trainings.
        keeper_of: what keeps the weights of the trial of a number. Default: they are lost.
    """
    trials = contenders(study, evaluator.metric, max(1, search.n_finalists))
    if not search.n_finalists:
        return [Finalist(trial.number, fitness_of(trial)) for trial in trials]
    finalists = []
    for trial in trials:
        number = trial.number
        config = phenotypes.config_of(phenotypes.genotype_of(trial))
        known: Sequence[SeedRun] = fitness_of(trial).runs if search.n_folds == 1 else ()

        def on_run(run: SeedRun, number: int = number) -> None:
            listener.on_finalist(number, run.seed, run.score)

        finalists.append(
            confirm(study, trial, config, evaluator, search.seeds, known, on_run, keeper_of(number))
        )
    return finalists


def best_of(finalists: Sequence[Finalist], metric: Metric) -> Finalist:
    """The finalist with the best mean score; of equal ones that with fewer trained parameters."""
    sign = -1 if metric.greater_is_better else 1
    return min(
        finalists, key=lambda f: (sign * f.fitness.score, f.fitness.trained_parameters, f.trial)
    )


def confirm(
    study: optuna.Study,
    trial: FrozenTrial,
    config: BioTuneConfig,
    evaluator: FitnessEvaluator,
    seeds: Sequence[int],
    known: Sequence[SeedRun],
    on_run: Callable[[SeedRun], None],
    keeper: RunKeeper | None = None,
) -> Finalist:
    """Train a finalist with the seeds that it has not seen on all data.

    Each result is kept in the study, so that a resumed search finds it.

    Args:
        study: that the trial belongs to.
        trial: the finalist.
        config: its blocks and rates.
        evaluator: trains on all data.
        seeds: that it must have been trained with.
        known: runs on all data that the search did already.
        on_run: called with each run of these seeds, also with known ones.
        keeper: is shown the weights. Default: they are lost.
    """
    runs = {run.seed: run for run in known}
    trained_parameters = fitness_of(trial).trained_parameters
    trainings = 0.0
    for seed in seeds:
        if seed not in runs:
            key = f"{FINALIST_PREFIX}{trial.number}:{seed}"
            if key not in study.user_attrs:
                result = evaluator.evaluate(config, [seed], keeper=keeper)
                study.set_user_attr(key, result.to_dict())
            confirmed = FitnessResult.from_dict(study.user_attrs[key])
            runs[seed] = confirmed.runs[0]
            trainings += confirmed.trainings
        on_run(runs[seed])
    ordered = tuple(runs[seed] for seed in seeds)
    return Finalist(trial.number, FitnessResult(ordered, trained_parameters, trainings))


def confirmations(study: optuna.Study) -> list[FitnessResult]:
    """Every training of a finalist that the study holds, in this and earlier sessions."""
    return [
        FitnessResult.from_dict(value)
        for key, value in study.user_attrs.items()
        if key.startswith(FINALIST_PREFIX)
    ]
