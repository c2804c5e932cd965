"""Trials whose process is dead: they are marked as failed, and their genes are tried again."""

from __future__ import annotations

from contextlib import suppress

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState, create_trial

from .history import FAILURE_KEY
from .processes import Processes

# Which process trains a trial; see `Processes.number`.
PROCESS_KEY = "process"


def ask(study: optuna.Study, process: int) -> Trial:
    """A new trial, which belongs to a process from its first moment on.

    `study.ask` makes one that belongs to nobody, and if the process dies before it has signed it,
    nobody knows whether it is still being trained.
    """
    entry = create_trial(state=TrialState.RUNNING, user_attrs={PROCESS_KEY: process})
    return Trial(study, study._storage.create_new_trial(study._study_id, entry))


def fail(study: optuna.Study, trial_id: int, reason: str) -> None:
    """Give a trial up, so that its genes are tried again; one that has ended stays as it is.

    Args:
        study: of the trial.
        trial_id: of the trial in its storage.
        reason: why.
    """
    with suppress(UpdateFinishedTrialError):
        study._storage.set_trial_user_attr(trial_id, FAILURE_KEY, reason)
        study._storage.set_trial_state_values(trial_id, TrialState.FAIL)


def fail_orphans(study: optuna.Study, processes: Processes) -> None:
    """Give up the trials that dead processes were training.

    Args:
        study: of a search.
        processes: that work on it.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        process = trial.user_attrs.get(PROCESS_KEY)
        if process is None:
            # Not made by a search. Whoever made it may be alive as long as there is somebody.
            if not processes.others():
                fail(study, trial._trial_id, "it belongs to no process")
        elif process != processes.number and not processes.is_alive(process):
            fail(study, trial._trial_id, f"{processes.name_of(process)} ended while training it")


def running_elsewhere(study: optuna.Study, processes: Processes) -> list[optuna.trial.FrozenTrial]:
    """What other living processes are training now."""
    fail_orphans(study, processes)
    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if trial.user_attrs.get(PROCESS_KEY) not in (None, processes.number)
    ]
