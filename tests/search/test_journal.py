"""The journal file: whole lines only, whatever happens while one is written."""

from __future__ import annotations

import json
import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from hf_biotune.exceptions import StorageError
from hf_biotune.search.journal import GRACE_SECONDS, HolderLock, JournalFile
from hf_biotune.search.process_identity import ProcessIdentity

LOG = {"op_code": 2, "study_id": 0}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "study.journal")


def study_in(path: str) -> optuna.Study:
    storage = JournalStorage(JournalFile(path))
    return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)


def lock_of(path: str, identity: ProcessIdentity) -> None:
    os.symlink(json.dumps([identity.to_dict(), "x"]), path + ".lock")


def test_optuna_reads_what_is_written_and_the_other_way_round(path: str) -> None:
    study_in(path).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    stock = JournalStorage(JournalFileBackend(path, JournalFileSymlinkLock(path)))
    study = optuna.load_study(study_name="s", storage=stock)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    assert [trial.value for trial in study_in(path).trials] == [t.value for t in study.trials]


@pytest.mark.parametrize("torn", [b'{"op_code":2,"study', b"\0" * 100, b"x" * 200_000])
def test_half_a_line_at_the_end_is_removed_before_the_next_is_written(
    path: str, torn: bytes
) -> None:
    study_in(path).set_user_attr("before", 1)
    with open(path, "ab") as file:
        file.write(torn)
    study = study_in(path)
    study.set_user_attr("after", 2)
    assert study_in(path).user_attrs == study.user_attrs == {"before": 1, "after": 2}
    with open(path, "rb") as file:
        assert all(json.loads(line) for line in file)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file can become larger: what the kernel does then is what it does if a disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_in_words_and_leaves_whole_lines(path: str) -> None:
    study = study_in(path)
    study.set_user_attr("before", 1)
    size = os.path.getsize(path)
    with (
        room_for(size + 10),
        pytest.raises(StorageError, match=r"study.journal' can't be written to or read: File too"),
    ):
        study.set_user_attr("lost", 2)
    assert os.path.getsize(path) == size
    assert not os.path.lexists(path + ".lock")
    study.set_user_attr("after", 3)
    assert study_in(path).user_attrs == {"before": 1, "after": 3}


def test_a_journal_that_was_deleted_is_not_begun_anew(path: str) -> None:
    study = study_in(path)
    os.unlink(path)
    with pytest.raises(StorageError, match="No such file or directory"):
        study.set_user_attr("a", 1)
    assert not os.path.exists(path)


def test_the_lock_of_a_dead_process_is_broken_at_once(path: str) -> None:
    study = study_in(path)
    us = ProcessIdentity.of_this_process()
    lock_of(path, ProcessIdentity(us.place, us.pid, us.started - 1000))  # the id is used again
    started = time.monotonic()
    study.set_user_attr("a", 1)
    assert time.monotonic() - started < 5
    assert not os.path.lexists(path + ".lock")


def test_the_lock_of_a_living_process_is_waited_for(path: str) -> None:
    study = study_in(path)
    lock = HolderLock(path)
    lock.acquire()
    writing = threading.Thread(target=study.set_user_attr, args=("a", 1))
    writing.start()
    writing.join(0.2)
    assert writing.is_alive()
    lock.release()
    writing.join()
    assert study_in(path).user_attrs == {"a": 1}


def test_the_lock_of_another_machine_is_broken_after_a_while(path: str) -> None:
    Path(path).touch()
    lock_of(path, ProcessIdentity("elsewhere", 1, 0.0))
    lock = HolderLock(path, grace_seconds=0.2)
    started = time.monotonic()
    lock.acquire()
    assert time.monotonic() - started >= 0.2
    lock.release()
    assert not os.path.lexists(path + ".lock")


@pytest.mark.parametrize("when", ["taken", "given back"])
def test_an_interrupt_leaves_no_lock_that_its_own_process_waits_for(
    path: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    journal = JournalFile(path)
    name = {"taken": "symlink", "given back": "unlink"}[when]
    real = getattr(os, name)

    def interrupted(*args: str) -> None:
        if when == "taken":
            real(*args)
        monkeypatch.setattr(os, name, real)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        journal.append_logs([{"a": 1}])
    assert os.path.lexists(path + ".lock")
    started = time.monotonic()
    journal.append_logs([{"b": 2}])
    assert time.monotonic() - started < GRACE_SECONDS / 2
    assert not os.path.lexists(path + ".lock")
    assert list(journal.read_logs(0))[-1] == {"b": 2}


def test_a_lock_that_was_taken_away_is_not_given_back(path: str) -> None:
    Path(path).touch()
    lock = HolderLock(path)
    lock.acquire()
    os.unlink(path + ".lock")
    lock_of(path, ProcessIdentity("elsewhere", 1, 0.0))
    lock.release()
    assert os.path.lexists(path + ".lock")


def test_two_threads_and_two_storages_lose_nothing(path: str) -> None:
    studies = [study_in(path), study_in(path)]

    def write(study: optuna.Study, name: str) -> None:
        for number in range(30):
            study.set_user_attr(f"{name}{number}", number)

    threads = [
        threading.Thread(target=write, args=(study, name))
        for study, name in zip(studies, "ab", strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(study_in(path).user_attrs) == 60
