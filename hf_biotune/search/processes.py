"""The processes that work on one study, and which of them still live.

They may be on several machines, and have nothing in common but the storage. What Optuna's storages
do atomically is to number trials; so there is a second study beside the first, in which every
process is a trial, and so is every turn at something that must be done by one process at a time.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from .process_identity import ProcessIdentity
from .storages import storage_errors

logger = logging.getLogger(__name__)

# Of the study of processes, behind the name of the one that they work on.
SUFFIX = ".processes"
# A process that can't be seen from here says so often that it lives, and is dead if it has not
# for so long.
BEAT_SECONDS = 10.0
GRACE_SECONDS = 60.0
# Between two looks at what others do.
PAUSE_SECONDS = 0.1
_IDENTITY, _TOKEN, _BEAT, _TURN, _PROCESS = "identity", "token", "beat", "turn", "process"
# The tokens of this process's searches that are not over: one that ended because the storage failed
# could not write that down.
_open: set[str] = set()


class Processes:
    """This process among those that work on a study, from now until it is closed.

    A process on this machine is looked at: it is alive as long as it exists. One on another
    machine writes a beat into the storage, and is taken for dead when the beat has not changed for
    a while, by our clock. What is dead stays dead: if it was only asleep, it goes on as a new one.

    Args:
        study: that they work on.
        beat_seconds: between two beats of this process.
        grace_seconds: without a beat, after which a process elsewhere is dead.
    """

    def __init__(
        self,
        study: optuna.Study,
        beat_seconds: float = BEAT_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        name = study.study_name + SUFFIX
        self._log = optuna.create_study(
            storage=study._storage, study_name=name, load_if_exists=True
        )
        self._beat_seconds = beat_seconds
        self._grace_seconds = grace_seconds
        self._beats: dict[int, tuple[float, float]] = {}
        self._token = uuid.uuid4().hex
        _open.add(self._token)
        self._own_id, self.number = self._register()
        self._closed = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._beating.start()

    def close(self) -> None:
        """This process does no more for the study."""
        self._closed.set()
        self._beating.join()
        _open.discard(self._token)
        # If it can't be written down, others will see that the process has ended.
        with suppress(*storage_errors()):
            self._end(self._own_id, TrialState.COMPLETE)

    def is_alive(self, number: int) -> bool:
        """Whether a process works on the study.

        Args:
            number: of the process, as `number` is of this one.
        """
        entry = self._log.get_trials(deepcopy=False)[number]
        if entry.state != TrialState.RUNNING:
            return False
        identity = ProcessIdentity(**entry.user_attrs[_IDENTITY])
        lives = identity.lives()
        if lives is None:
            lives = self._beats_on(entry)
        elif identity == ProcessIdentity.of_this_process():
            lives = entry.user_attrs[_TOKEN] in _open
        if not lives:
            self._end(entry._trial_id, TrialState.FAIL)
        return lives

    def others(self) -> list[int]:
        """The other processes that work on the study."""
        entries = self._log.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        numbers = [entry.number for entry in entries if _IDENTITY in entry.user_attrs]
        return [n for n in numbers if n != self.number and self.is_alive(n)]

    def name_of(self, number: int) -> str:
        """What to call a process in a sentence."""
        entry = self._log.get_trials(deepcopy=False)[number]
        return str(ProcessIdentity(**entry.user_attrs[_IDENTITY]))

    @contextmanager
    def turn(self, what: str) -> Iterator[None]:
        """Wait for this process's turn at something that one does at a time; then it has it.

        Turns come in the order in which they were asked for. Whoever dies gives its turn up.

        Args:
            what: is done.
        """
        ticket, number = self._enter({_TURN: what, _PROCESS: self.number})
        try:
            while self._is_before(number, what):
                time.sleep(PAUSE_SECONDS)
            yield
        finally:
            self._end(ticket, TrialState.COMPLETE)

    def _is_before(self, number: int, what: str) -> bool:
        """Whether another process has its turn, or is to have it, before a ticket."""
        for entry in self._log.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if entry.number < number and entry.user_attrs.get(_TURN) == what:
                if self.is_alive(entry.user_attrs[_PROCESS]):
                    return True
                self._end(entry._trial_id, TrialState.FAIL)
        return False

    def _beats_on(self, entry: FrozenTrial) -> bool:
        beat, now = entry.user_attrs[_BEAT], time.monotonic()
        known, since = self._beats.get(entry.number, (None, now))
        if beat != known:
            since = now
        self._beats[entry.number] = beat, since
        return now - since <= self._grace_seconds

    def _beat(self) -> None:
        storage = self._log._storage
        while not self._closed.wait(self._beat_seconds):
            try:
                self._beat_once(storage)
            except storage_errors() as error:
                logger.warning("the heartbeat of this process can't be written: %s", error)

    def _beat_once(self, storage: BaseStorage) -> None:
        try:
            storage.set_trial_user_attr(self._own_id, _BEAT, time.time())
        except UpdateFinishedTrialError:
            # The machine has been asleep, and others think that this process is dead.
            self._own_id, self.number = self._register()

    def _register(self) -> tuple[int, int]:
        identity = ProcessIdentity.of_this_process().to_dict()
        return self._enter({_IDENTITY: identity, _TOKEN: self._token, _BEAT: time.time()})

    def _enter(self, attributes: dict[str, Any]) -> tuple[int, int]:
        """A new line in the log. Returns its id and its number, which is higher than all before."""
        storage = self._log._storage
        entry = create_trial(state=TrialState.RUNNING, user_attrs=attributes)
        trial_id = storage.create_new_trial(self._log._study_id, entry)
        return trial_id, storage.get_trial(trial_id).number

    def _end(self, trial_id: int, state: TrialState) -> None:
        with suppress(UpdateFinishedTrialError):  # another process was quicker
            values = [0.0] if state == TrialState.COMPLETE else None
            self._log._storage.set_trial_state_values(trial_id, state, values)
