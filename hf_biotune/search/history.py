"""What a study holds, read back: per trial, and as one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from ..blocks import Partition
from ..evolution import EXTRA_PREFIX, genotype_of, plan_of
from ..extra_genes import settings_of
from ..genotype import Genotype
from .fitness_result import FitnessResult

FITNESS_KEY = "fitness"
MULTIPLIERS_KEY = "lr_multipliers"
SETTINGS_KEY = "settings"
REUSED_KEY = "reused_from"
START_KEY = "start"
# Why a trial failed.
FAILURE_KEY = "failure"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have a result, oldest first."""
    return list(study.get_trials(deepcopy=False, states=FINISHED))


def fitness_of(trial: FrozenTrial) -> FitnessResult:
    """The result of a finished trial; that of the earlier one, if it was reused."""
    return FitnessResult.from_dict(trial.user_attrs[FITNESS_KEY])


def phenotype_of(trial: FrozenTrial) -> dict[str, float]:
    """What an individual trains: the rate of each block, and the strength of each other setting."""
    return {**trial.user_attrs[MULTIPLIERS_KEY], **trial.user_attrs.get(SETTINGS_KEY, {})}


def has_own_training(trial: FrozenTrial) -> bool:
    """Whether a finished trial was trained itself, be it to its end or to a rung."""
    return trial.state in FINISHED and REUSED_KEY not in trial.user_attrs and _has_curves(trial)


def was_trained(trial: FrozenTrial) -> bool:
    """Whether the trial was trained itself, and to its end."""
    return trial.state == TrialState.COMPLETE and has_own_training(trial)


def _has_curves(trial: FrozenTrial) -> bool:
    """Whether none of its trainings failed with an error, so that nothing is known of them."""
    return all(run["curve"] for run in trial.user_attrs[FITNESS_KEY]["runs"])


def spent_trainings(trials: Sequence[FrozenTrial]) -> float:
    """The cost of trials in units of one full training; reused ones cost nothing."""
    return sum(
        fitness_of(trial).trainings for trial in trials if REUSED_KEY not in trial.user_attrs
    )


def own_seconds(trial: FrozenTrial) -> float:
    """Wall time of a finished trial's trainings; 0 if it was reused."""
    return 0.0 if REUSED_KEY in trial.user_attrs else fitness_of(trial).seconds


def history_of(study: optuna.Study, partition: Partition) -> pd.DataFrame:
    """One row per trial that has an end, oldest first.

    Columns: `trial`, `generation`, `fold`, `role`, `start` (the name of a seeded individual, such
    as "linear probe", else empty), `parents`, `state` (complete, pruned, reused,
    failed), `score`, `score_std`, `epochs`, `trainings`, `seconds`, `trained_parameters`, `key`,
    `reason` (why it failed or diverged, or why it was given up to be tried again; else empty),
    `freezing_threshold`, and for each block `importance:<block>` and `multiplier:<block>` (NaN if
    frozen). With extra genes, for each of them `gene:<name>` and what it decodes to, `<name>`; the
    multipliers have `base_lr` in them. Costs of reused trials are 0.

    Args:
        study: of a search.
        partition: the blocks that it is about.
    """
    ended = study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.FAIL))
    return pd.DataFrame([_row(trial, partition) for trial in ended if _has_genes(trial)])


def _has_genes(trial: FrozenTrial) -> bool:
    """Whether the process of a trial lived long enough to ask for all of its genes."""
    return bool(trial.params) and len(trial.params) >= len(plan_of(trial).genes)


def _row(trial: FrozenTrial, partition: Partition) -> dict[str, Any]:
    plan, genotype = plan_of(trial), genotype_of(trial, partition.names)
    multipliers = trial.user_attrs.get(MULTIPLIERS_KEY, {})
    return {
        "trial": trial.number,
        "generation": plan.generation,
        "fold": plan.fold,
        "role": plan.role,
        "start": trial.user_attrs.get(START_KEY, ""),
        "parents": list(plan.parents),
        **_outcome(trial),
        "key": genotype.key,
        "reason": trial.user_attrs.get(FAILURE_KEY, ""),
        "freezing_threshold": genotype.freezing_threshold,
        **_genes(genotype, partition),
        **{f"multiplier:{name}": multipliers.get(name, float("nan")) for name in partition.names},
        **{f"{EXTRA_PREFIX}{name}": gene for name, gene in genotype.extra_genes.items()},
        **settings_of(genotype.extra_genes),
    }


def state_of(trial: FrozenTrial) -> str:
    """What became of an ended trial: complete, pruned, reused or failed."""
    if REUSED_KEY in trial.user_attrs:
        return "reused"
    return trial.state.name.lower() if has_own_training(trial) else "failed"


def _outcome(trial: FrozenTrial) -> dict[str, Any]:
    if FITNESS_KEY not in trial.user_attrs:
        nothing = {"score": float("nan"), "score_std": float("nan"), "epochs": 0, "trainings": 0.0}
        return {"state": "failed", **nothing, "seconds": 0.0, "trained_parameters": 0}
    fitness, reused = fitness_of(trial), REUSED_KEY in trial.user_attrs
    return {
        "state": state_of(trial),
        "score": fitness.score,
        "score_std": fitness.score_std,
        "epochs": 0 if reused else fitness.epochs,
        "trainings": 0.0 if reused else fitness.trainings,
        "seconds": 0.0 if reused else fitness.seconds,
        "trained_parameters": fitness.trained_parameters,
    }


def _genes(genotype: Genotype, partition: Partition) -> dict[str, float]:
    return {
        f"importance:{name}": gene
        for name, gene in zip(partition.names, genotype.importances, strict=True)
    }
