"""What holds the study fails in mid-search: an error in words; then the search goes on."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from tiny_searches import SEARCH, course, search, study_of

from hf_biotune.exceptions import StorageError
from hf_biotune.search import SearchListener
from hf_biotune.search.journal import JournalFile


class At(SearchListener):
    """Does something in the middle of the training of an individual."""

    def __init__(self, trial, do):
        self.trial, self.do, self.now = trial, do, -1

    def on_trial_begin(self, number, generation, role):
        self.now = number

    def on_epoch_end(self, seed, curve, epochs):
        if self.now == self.trial:
            self.do()


@pytest.fixture
def disk(monkeypatch):
    """A disk that can be full."""
    append = JournalFile._append

    class Disk:
        is_full = False

        def fill(self):
            self.is_full = True

    found = Disk()

    def written(self, data):
        if found.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, data)

    monkeypatch.setattr(JournalFile, "_append", written)
    return found


def test_a_full_disk_stops_the_search_and_it_goes_on_when_there_is_room(tmp_path: Path, disk):
    with pytest.raises(StorageError) as stopped:
        search(tmp_path / "full", listener=At(4, disk.fill))
    assert "study.journal' can't be written to or read: No space left on device" in str(
        stopped.value
    )
    assert "go on with the same command" in str(stopped.value)
    disk.is_full = False
    running = [t for t in study_of(tmp_path / "full").trials if t.state == TrialState.RUNNING]
    assert [trial.number for trial in running] == [4]
    resumed = search(tmp_path / "full")
    assert course(resumed.study) == course(search(tmp_path / "other").study)


def test_a_directory_that_disappears_stops_the_search(tmp_path: Path):
    journal = tmp_path / "out" / "study.journal"
    with pytest.raises(StorageError, match="No such file or directory"):
        search(tmp_path / "out", listener=At(2, journal.unlink))
    assert not journal.exists()


def test_weights_that_can_not_be_written_stop_the_search(tmp_path: Path):
    (tmp_path / "adapters").write_text("a file where a directory belongs")
    with pytest.raises(StorageError) as stopped:
        search(tmp_path, replace(SEARCH, keep_best=2))
    assert "the weights of individual 0 can't be written to" in str(stopped.value)
    assert "File exists" in str(stopped.value)
    (tmp_path / "adapters").unlink()
    assert search(tmp_path, replace(SEARCH, keep_best=2)).best_model is not None


class ServerError(Exception):
    """As of gRPC: neither of Optuna nor of SQLAlchemy."""


@pytest.mark.parametrize("error", [StorageInternalError, ServerError])
def test_a_database_that_fails_stops_the_search(tmp_path: Path, monkeypatch, error):
    monkeypatch.setitem(sys.modules, "grpc", SimpleNamespace(RpcError=ServerError))

    def fails(*args, **kwargs):
        raise error("database or disk is full")

    with pytest.raises(StorageError) as stopped:
        search(
            tmp_path,
            storage=f"sqlite:///{tmp_path / 'search.db'}",
            listener=At(
                2, lambda: monkeypatch.setattr(RDBStorage, "set_trial_intermediate_value", fails)
            ),
        )
    assert "the storage of the study can't be written to or read: database or disk is full" in str(
        stopped.value
    )
