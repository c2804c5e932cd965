"""Several workers on one machine: what they share, what is refused, how they end."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from dataclasses import replace
from types import SimpleNamespace

import psutil
import pytest
import tiny_searches
import torch
from optuna.trial import TrialState
from tiny_searches import SEARCH, Tiny, samples, search, study_of

from hf_biotune.exceptions import ConfigError
from hf_biotune.search import EncodedSplit, SearchListener, workers
from hf_biotune.search.history import finished_trials, spent_trainings
from hf_biotune.search.mapped import mapped_tensor


@pytest.fixture(autouse=True)
def forked(monkeypatch):
    """Workers begin in a moment; a test of the command line starts them as users do."""
    monkeypatch.setattr(workers, "CONTEXT", multiprocessing.get_context("forkserver"))


def is_worker() -> bool:
    return multiprocessing.parent_process() is not None


def ends_in_workers():
    if is_worker():
        os._exit(3)
    return Tiny()


class KilledModel(Tiny):
    """Its process dies in the second training."""

    steps = 0

    def forward(self, x):
        if self.training and is_worker():
            KilledModel.steps += 1
            if KilledModel.steps == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


class Hear(SearchListener):
    def __init__(self):
        self.numbers = []

    def on_trial_end(self, report):
        self.numbers.append(report.number)


def owners(study):
    return {trial.user_attrs["process"] for trial in finished_trials(study)}


def test_workers_share_the_budget_and_one_chooses_the_winner(tmp_path):
    heard = Hear()
    config = replace(SEARCH, budget=40)
    result = search(tmp_path, config, workers=2, listener=heard)
    assert len(owners(result.study)) == 2
    assert 38 <= spent_trainings(finished_trials(result.study)) <= 40
    assert sorted(heard.numbers) == result.history.trial.tolist()
    assert [len(f.fitness.runs) for f in result.finalists] == [2, 2]
    assert not multiprocessing.active_children()
    # Whoever comes later finds everything.
    again = search(tmp_path, config, workers=2)
    assert again.best_trial == result.best_trial
    assert again.trainings == result.trainings


def test_a_worker_that_dies_is_missed_and_its_individual_is_tried_again(tmp_path, caplog):
    config = replace(SEARCH, budget=60)
    with caplog.at_level(logging.WARNING):
        result = search(tmp_path, config, workers=2, model_init=KilledModel)
    assert "worker 1 ended with exit status -9; the search goes on without it" in caplog.text
    (orphan,) = (t for t in result.study.trials if t.state == TrialState.FAIL)
    assert "ended while training it" in orphan.user_attrs["failure"]
    assert result.history.reason[orphan.number] == orphan.user_attrs["failure"]
    assert spent_trainings(finished_trials(result.study)) >= 58


def test_an_interrupt_ends_all_workers_and_leaves_nothing_running(tmp_path):
    class Interrupt(SearchListener):
        def on_trial_end(self, report):
            if len(owners(study_of(tmp_path))) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, replace(SEARCH, budget=1000), workers=2, listener=Interrupt())
    assert not multiprocessing.active_children()
    study = study_of(tmp_path)
    assert not [trial for trial in study.trials if trial.state == TrialState.RUNNING]
    budget = len(finished_trials(study)) + 4
    assert search(tmp_path, replace(SEARCH, budget=budget)).best_score > 0


def test_a_worker_that_can_not_begin_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="worker 1 ended before it had begun, with exit status 3"):
        search(tmp_path, replace(SEARCH, budget=1000), workers=2, model_init=ends_in_workers)


def test_a_study_in_memory_can_not_be_shared(tmp_path):
    with pytest.raises(ConfigError, match="workers=2 need a storage that several processes can"):
        search(tmp_path, workers=2, storage="memory")


def test_what_can_not_be_sent_to_workers_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(ConfigError) as refused:
        search(tmp_path, workers=3, model_init=lambda: Tiny())
    assert "model_init can't be sent to the other 2 worker(s)" in str(refused.value)
    assert "Define it at the top level of a module" in str(refused.value)
    assert not (tmp_path / "study.journal").stat().st_size


def test_images_in_a_file_can_not_be_shared(tmp_path, monkeypatch):
    whole = samples(1)
    x = mapped_tensor(whole.inputs["x"].shape, torch.float32)
    mapped = EncodedSplit({"x": x.copy_(whole.inputs["x"])}, whole.labels, whole.label_names)
    monkeypatch.setattr(tiny_searches, "samples", lambda seed: mapped)
    with pytest.raises(ConfigError, match=r"workers=2 can't share images .* in a temporary file"):
        search(tmp_path, workers=2)


def test_threads_are_given_back_if_a_worker_can_not_be_started(monkeypatch):
    def refuses(self, index, share):
        raise OSError("no process")

    monkeypatch.setattr(workers.Workers, "_start", refuses)
    anything = SimpleNamespace(
        check_is_shared=lambda number: None, check_is_in_memory=lambda number: None
    )
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with (
            pytest.raises(OSError, match="no process"),
            workers.Workers(anything, 2),
        ):
            raise AssertionError("it began")
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2"])
def test_a_number_of_workers_that_is_none_is_refused(tmp_path, number):
    with pytest.raises(ConfigError, match="workers must be an integer of at least 1, got"):
        search(tmp_path, workers=number)


def test_workers_share_the_memory_for_activations():
    search = replace(SEARCH, prefix_cache=True)
    one, four = (workers.with_shared_memory(search, number) for number in (1, 4))
    assert one.prefix_cache_memory is None
    free = psutil.virtual_memory().available / 2**30
    assert four.prefix_cache_memory == pytest.approx(free / 16, rel=0.5)
    given = replace(search, prefix_cache_memory=1.0)
    assert workers.with_shared_memory(given, 4) is given


@pytest.mark.parametrize(
    ("visible", "devices"), [(None, ["0", "1", "2", "0", "1"]), ("5, 7", ["5", "7", "5", "7", "5"])]
)
def test_each_worker_has_a_gpu_of_its_own_as_far_as_there_are(monkeypatch, visible, devices):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    args = SimpleNamespace(device=torch.device("cuda", 0))
    assert [workers._device(args, index) for index in range(5)] == devices
    assert workers._device(SimpleNamespace(device=torch.device("cpu")), 1) is None


def test_a_worker_finds_its_gpu_and_threads_in_its_environment(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    with workers._environment("1", threads=2):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
        assert os.environ["OMP_NUM_THREADS"] == "2"
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "8"


def test_threads_are_shared_out_and_given_back(tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", shares.append)
    monkeypatch.setattr(workers.Workers, "_start", lambda self, index, share: shares.append(share))
    work = SimpleNamespace(
        check_is_shared=lambda number: None, check_is_in_memory=lambda number: None
    )
    with workers.Workers(work, 3) as others:
        others._workers.clear()
    assert shares == [2, 2, 2, 8]
