"""Workers as tasks of a local Ray: the same search, the same result, the same refusals."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
import pytest
from tiny_searches import SEARCH, Tiny, search

from hf_biotune.exceptions import ConfigError
from hf_biotune.search import SearchListener
from hf_biotune.search.history import finished_trials


@pytest.fixture(scope="module")
def cluster():
    """A Ray of 2 CPUs that the program is connected to."""
    ray = pytest.importorskip("ray", reason="ray is not installed; pip install 'hf-biotune[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        # Where the tasks find the modules of the tests.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 * 2**20,
        )
    yield ray
    ray.shutdown()


class Hear(SearchListener):
    def __init__(self):
        self.numbers = []

    def on_trial_end(self, report):
        self.numbers.append(report.number)


class Meeting(Tiny):
    """Its first training waits for that of another process."""

    def __init__(self, place):
        super().__init__()
        self.place = Path(place)

    def forward(self, x):
        if self.training:
            (self.place / f"{os.getpid()}.here").touch()
            end = time.monotonic() + 120
            while len(list(self.place.glob("*.here"))) < 2 and time.monotonic() < end:
                time.sleep(0.05)
        return super().forward(x)


class Broken(Tiny):
    def forward(self, x):
        raise RuntimeError("no such kernel")


@pytest.mark.slow
def test_two_tasks_share_a_search_which_goes_on_without_ray(cluster, tmp_path):
    heard = Hear()
    model_init = partial(Meeting, str(tmp_path))
    result = search(tmp_path, backend="ray", workers=2, listener=heard, model_init=model_init)
    trials = finished_trials(result.study)
    assert len({trial.user_attrs["process"] for trial in trials}) == 2
    assert sorted(heard.numbers) == [trial.number for trial in trials]
    assert result.trainings <= SEARCH.budget.trainings
    assert result.best_score == max(f.fitness.score for f in result.finalists)
    assert cluster.is_initialized()

    more = search(tmp_path, replace(SEARCH, budget=14), model_init=model_init)
    kept = result.history.set_index("trial").score
    assert more.history.set_index("trial").score[kept.index].equals(kept)
    assert result.trainings < more.trainings <= 14


@pytest.mark.slow
def test_tasks_that_all_fail_say_why(cluster, tmp_path):
    with pytest.raises(
        ConfigError, match=r"all 2 Ray worker\(s\) failed; the first one: .*no such"
    ):
        search(tmp_path, backend="ray", workers=2, model_init=Broken)


class OneBreaks(Tiny):
    """Fails in the process that comes first, and in no other."""

    def __init__(self, place):
        super().__init__()
        self.first = Path(place) / "first"

    def forward(self, x):
        with suppress(FileExistsError), self.first.open("x") as file:
            file.write(str(os.getpid()))
        if self.first.read_text() == str(os.getpid()):
            raise RuntimeError("no such kernel")
        return super().forward(x)


@pytest.mark.slow
def test_a_task_that_fails_is_told_and_the_others_go_on(cluster, tmp_path, caplog):
    model_init = partial(OneBreaks, str(tmp_path))
    result = search(tmp_path, backend="ray", workers=2, model_init=model_init)
    assert "a Ray worker failed: RuntimeError: no such kernel" in caplog.text
    assert "the search goes on without it" in caplog.text
    assert len({trial.user_attrs["process"] for trial in finished_trials(result.study)}) == 1


@pytest.mark.slow
def test_more_workers_than_the_cluster_has_room_for_are_refused(cluster, tmp_path):
    with pytest.raises(
        ConfigError, match=r"workers=3 need 3 CPU\(s\) of the Ray cluster, which has 2; give fewer"
    ):
        search(tmp_path, backend="ray", workers=3)


def test_ray_that_is_not_installed_is_named_with_the_command(monkeypatch, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ray" else find(name)
    )
    with pytest.raises(ConfigError, match=r"needs the package 'ray'.*pip install 'hf-biotune\[ray"):
        search(tmp_path, backend="ray")


def test_a_study_in_memory_is_refused(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(ConfigError, match=r"need a storage that several processes can open"):
        search(tmp_path, backend="ray", storage=optuna.storages.InMemoryStorage())


def test_an_unknown_backend_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="backend must be one of processes, ray, got 'dask'"):
        search(tmp_path, backend="dask")
