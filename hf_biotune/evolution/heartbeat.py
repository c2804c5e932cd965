"""A trial's first sign of life."""

from __future__ import annotations

from optuna.storages._heartbeat import is_heartbeat_enabled
from optuna.study import Study
from optuna.trial import FrozenTrial


def first_beat(study: Study, trial: FrozenTrial) -> None:
    """Say that a trial lives, before it is planned.

    Optuna's first beat comes after `before_trial`, and a trial that dies before its first beat
    never counts as stale.
    """
    if is_heartbeat_enabled(study._storage):
        study._storage.record_heartbeat(trial._trial_id)
