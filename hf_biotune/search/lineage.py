"""Where an individual comes from: its ancestors, back to the first generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
import pandas as pd
from optuna.trial import FrozenTrial

from ..evolution import Plan, plan_of
from ..exceptions import ConfigError
from .fitness_result import SeedRun
from .history import FINISHED, REUSED_KEY, START_KEY, fitness_of

COLUMNS = ("trial", "generation", "role", "start", "parents", "fold", "state", "seeds", "score")


def lineage_of(
    study: optuna.Study, trial: int, confirmed: Mapping[int, Sequence[SeedRun]]
) -> pd.DataFrame:
    """An individual and all its ancestors, the newest first.

    Args:
        study: of a search.
        trial: the number of a finished one.
        confirmed: what is known of finalists beside their first trainings, by number.

    Returns:
        One row an individual. Columns: `trial`, `generation`, `role` (what made it; see
        [`~evolution.Plan`]), `start` (the name of a seeded individual, else empty), `parents`
        (numbers), `fold`, `state` (complete, pruned or reused), `seeds` (that it was trained with)
        and `score` (the mean over them).

    Raises:
        ConfigError: there is no such finished trial.
    """
    trials = study.get_trials(deepcopy=False)
    if not 0 <= trial < len(trials) or trials[trial].state not in FINISHED:
        raise ConfigError(
            f"trial must be the number of a finished individual, got {trial}; history lists them"
        )
    plans: dict[int, Plan] = {}
    waiting = [trial]
    while waiting:
        number = waiting.pop()
        if number not in plans:
            plans[number] = plan_of(trials[number])
            waiting.extend(plans[number].parents)
    newest_first = sorted(plans, key=lambda number: (-plans[number].generation, -number))
    rows = [_row(trials[number], plans[number], confirmed) for number in newest_first]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(
    trial: FrozenTrial, plan: Plan, confirmed: Mapping[int, Sequence[SeedRun]]
) -> dict[str, object]:
    runs = confirmed.get(trial.number) or fitness_of(trial).runs
    return {
        "trial": trial.number,
        "generation": plan.generation,
        "role": plan.role,
        "start": trial.user_attrs.get(START_KEY, ""),
        "parents": list(plan.parents),
        "fold": plan.fold,
        "state": "reused" if REUSED_KEY in trial.user_attrs else trial.state.name.lower(),
        "seeds": [run.seed for run in runs],
        "score": sum(run.score for run in runs) / len(runs),
    }
