"""Which processes of a study live, and whose turn it is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from hf_biotune.exceptions import StorageError
from hf_biotune.search import processes as rooms
from hf_biotune.search.orphans import PROCESS_KEY, ask, fail_orphans, running_elsewhere
from hf_biotune.search.process_identity import ProcessIdentity
from hf_biotune.search.processes import Processes


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(storage=InMemoryStorage(), study_name="s")


@pytest.fixture
def enter(study, monkeypatch):
    """Have a process, of this machine or of another, work on the study."""
    entered = []

    def make(identity: ProcessIdentity | None = None, **settings: float) -> Processes:
        with monkeypatch.context() as context:
            if identity is not None:
                context.setattr(
                    rooms.ProcessIdentity, "of_this_process", classmethod(lambda cls: identity)
                )
            entered.append(Processes(study, **settings))
        return entered[-1]

    yield make
    for processes in entered:
        processes.close()


ELSEWHERE = ProcessIdentity("elsewhere", 7, 0.0)


def test_a_process_lives_until_it_is_killed() -> None:
    us = ProcessIdentity.of_this_process()
    assert us.pid == os.getpid()
    assert us.lives()
    assert not replace(us, started=us.started - 60).lives()  # another one with the same number
    assert replace(us, place="elsewhere").lives() is None
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    import psutil

    identity = replace(us, pid=child.pid, started=psutil.Process(child.pid).create_time())
    assert identity.lives()
    child.kill()
    deadline = time.monotonic() + 10
    while identity.lives() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not identity.lives()  # though nobody has waited for it: a zombie is dead
    child.wait()
    assert not identity.lives()


def test_processes_see_each_other_until_they_are_closed(enter) -> None:
    first, second = enter(), enter()
    assert first.others() == [second.number]
    assert second.others() == [first.number]
    second.close()
    assert first.others() == []
    assert not first.is_alive(second.number)


def test_a_search_of_this_process_that_could_not_say_that_it_is_over_is_over(enter) -> None:
    observer, other = enter(), enter()

    def fails(*args: object) -> None:
        raise StorageError("the disk is full")

    other._end = fails
    other.close()
    assert observer.others() == []


def test_a_process_elsewhere_lives_as_long_as_its_beat_changes(enter) -> None:
    observer = enter(grace_seconds=0.4)
    other = enter(ELSEWHERE, beat_seconds=0.05)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        assert observer.is_alive(other.number)
        time.sleep(0.05)
    other._closed.set()  # it is killed, perhaps after one beat more
    assert observer.is_alive(other.number)
    until = time.monotonic() + 20.0
    while observer.is_alive(other.number):
        assert time.monotonic() < until
        time.sleep(0.6)


def test_clocks_need_not_agree(enter, monkeypatch) -> None:
    observer = enter(grace_seconds=5.0)
    with monkeypatch.context() as context:
        context.setattr(rooms.time, "time", lambda: 0.0)  # 1970, over there
        other = enter(ELSEWHERE)
    assert observer.is_alive(other.number)


class ServerError(Exception):
    """As of gRPC: neither of Optuna nor of SQLAlchemy."""


def test_a_heartbeat_survives_a_server_that_does_not_answer_for_a_while(enter, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", SimpleNamespace(RpcError=ServerError))
    observer, other = enter(grace_seconds=30.0), enter(ELSEWHERE, beat_seconds=0.05)
    storage, write, failures = other._log._storage, other._log._storage.set_trial_user_attr, []

    def fails(trial_id, key, value):
        if len(failures) < 3:
            failures.append(key)
            raise ServerError("no answer")
        write(trial_id, key, value)

    monkeypatch.setattr(storage, "set_trial_user_attr", fails)
    deadline = time.monotonic() + 10
    while len(failures) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    beats = set()
    while len(beats) < 2 and time.monotonic() < deadline:
        entry = observer._log.get_trials(deepcopy=False)[other.number]
        beats.add(entry.user_attrs["beat"])
        time.sleep(0.05)
    assert len(beats) == 2
    assert other._beating.is_alive()


def test_who_was_only_asleep_goes_on_as_a_new_process(enter) -> None:
    observer, other = enter(grace_seconds=0.0), enter(ELSEWHERE, beat_seconds=0.3)
    number = other.number
    assert observer.is_alive(number)
    time.sleep(0.05)
    assert not observer.is_alive(number)
    deadline = time.monotonic() + 10
    while other.number == number and time.monotonic() < deadline:
        time.sleep(0.02)
    assert other.number > number
    assert not observer.is_alive(number)


def test_turns_come_in_the_order_in_which_they_were_asked_for(enter) -> None:
    first, second = enter(), enter()
    course = []

    def take(processes: Processes, name: str) -> None:
        with processes.turn("opening"):
            course.append(name)

    with first.turn("opening"):
        waiting = threading.Thread(target=take, args=(second, "second"))
        waiting.start()
        time.sleep(0.3)
        with first.turn("something else"):
            course.append("first")
    waiting.join()
    assert course == ["first", "second"]


def test_a_turn_of_a_dead_process_is_skipped(enter) -> None:
    observer = enter()
    us = ProcessIdentity.of_this_process()
    dead = enter(replace(us, started=us.started - 60))
    ticket, _ = dead._enter({"turn": "opening", "process": dead.number})
    with observer.turn("opening"):
        pass
    assert observer._log._storage.get_trial(ticket).state == TrialState.FAIL


def test_a_trial_belongs_to_its_process_from_its_first_moment(study, enter) -> None:
    class Killed(optuna.samplers.RandomSampler):
        def before_trial(self, study, trial):
            raise KeyboardInterrupt

    processes = enter()
    study.sampler = Killed()
    with pytest.raises(KeyboardInterrupt):
        ask(study, processes.number)
    assert study.trials[0].user_attrs == {PROCESS_KEY: processes.number}
    assert study.trials[0].datetime_start is not None


def test_orphans_are_failed_with_the_reason_and_others_are_left_alone(study, enter) -> None:
    us = ProcessIdentity.of_this_process()
    observer, living = enter(), enter()
    dead = enter(replace(us, pid=us.pid, started=us.started - 60))
    orphan, alive, own = (ask(study, p.number) for p in (dead, living, observer))
    fail_orphans(study, observer)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, TrialState.RUNNING, TrialState.RUNNING]
    reason = study.trials[orphan.number].user_attrs["failure"]
    assert reason == f"process {us.pid} on {us.host} ended while training it"
    assert [t.number for t in running_elsewhere(study, observer)] == [alive.number]
    assert study.trials[own.number].state == TrialState.RUNNING
    # It comes too late.
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        orphan.report(1.0, step=1)


def test_trials_of_nobody_are_failed_only_if_nobody_else_is_there(study, enter) -> None:
    observer, other = enter(), enter()
    study.ask()
    fail_orphans(study, observer)
    assert study.trials[0].state == TrialState.RUNNING
    other.close()
    fail_orphans(study, observer)
    assert study.trials[0].state == TrialState.FAIL
