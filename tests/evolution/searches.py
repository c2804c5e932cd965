"""Small searches for the tests: an objective that costs nothing, and ways to look at a study."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from hf_biotune.evolution import BioTuneSampler, Plan, genotype_of, plan_of, suggest_genotype

BLOCKS = ("stem", "layer1", "layer2", "head")
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def score_of(trial: Trial) -> float:
    """Smooth, with its optimum inside; depends on the fold as a harder data set would."""
    genotype, plan = suggest_genotype(trial, BLOCKS), plan_of(trial)
    genes = np.where(genotype.selected, genotype.importances, 0.5)
    wrong = abs(sum(genotype.selected) - 2) / 8
    distance = ((genes - np.linspace(0.2, 0.8, len(BLOCKS))) ** 2).mean()
    return float(0.9 - distance - wrong - 0.05 * plan.fold)


def new_study(
    storage: BaseStorage | None = None, *, direction: str = "maximize", **arguments: Any
) -> optuna.Study:
    arguments = {"population_size": 6, "n_elites": 2, "n_candidates": 20, **arguments}
    return optuna.create_study(
        storage=storage,
        study_name="search",
        direction=direction,
        sampler=BioTuneSampler(BLOCKS, **arguments),
        load_if_exists=True,
    )


def run(study: optuna.Study, n_trials: int, score: Callable[[Trial], float] = score_of) -> None:
    study.optimize(score, n_trials=n_trials)


def journal(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def plans(study: optuna.Study) -> list[Plan]:
    return [plan_of(trial) for trial in study.trials]


def finished(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in study.trials if trial.state in FINISHED]


def course(study: optuna.Study) -> list[tuple[Any, ...]]:
    """What was trained, in which order and how well; without the numbers, which failures shift."""
    return [
        (plan.generation, plan.slot, plan.fold, plan.role, genotype_of(trial, BLOCKS), trial.value)
        for trial in finished(study)
        if (plan := plan_of(trial))
    ]


@contextmanager
def experimental() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
