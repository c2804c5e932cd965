"""Trainings that fail: recorded with the reason and the worst score, until it is too many."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_searches import SEARCH, Tiny, search

from hf_biotune import BioTuneConfig
from hf_biotune.evolution import plan_of
from hf_biotune.exceptions import ConfigError, TrainingError
from hf_biotune.search import SearchListener, spending
from hf_biotune.search.history import fitness_of
from hf_biotune.search.scoring import Scorer

WORKER_DIED = "DataLoader worker (pid 7) is killed by signal: Killed."


class Failing(Tiny):
    """Fails in its n-th trainings, each of which has one step."""

    def __init__(self, failing, error=None) -> None:
        super().__init__()
        self.failing, self.error = failing, error

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            STEPS[0] += 1
            if STEPS[0] in self.failing:
                if self.error is None:
                    return super().forward(x) * math.nan
                raise self.error
        return super().forward(x)


STEPS = [0]


@pytest.fixture(autouse=True)
def from_the_first_step():
    STEPS[0] = 0


def failing(steps, error=None):
    return partial(Failing, steps, error)


class Hear(SearchListener):
    def __init__(self):
        self.reports, self.finalists = [], []

    def on_trial_end(self, report):
        self.reports.append(report)

    def on_finalist(self, number, seed, score):
        self.finalists.append((number, seed, score))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(WORKER_DIED), f"RuntimeError: {WORKER_DIED}"),
        (torch.OutOfMemoryError("no room\nfor it"), "OutOfMemoryError: no room"),
        (KeyError("pixels"), "KeyError: 'pixels'"),
        (ValueError(), "ValueError"),
    ],
)
def test_a_training_that_fails_gets_the_worst_score_and_the_search_goes_on(tmp_path, error, reason):
    heard = Hear()
    # Want of memory is tried once more, with half a batch.
    result = search(tmp_path, model_init=failing({4, 5}, error), listener=heard)
    failed = result.history[result.history.state == "failed"]
    assert set(failed.reason) == {reason}
    assert set(failed.score) == {0.0}
    assert failed.trial.iloc[0] == 3
    assert set(result.history.reason) == {reason, ""}
    told = [report for report in heard.reports if report.state == "failed"]
    assert [(r.number, r.score, r.reason) for r in told] == [
        (number, 0.0, reason) for number in failed.trial
    ]
    assert result.best_trial not in set(failed.trial)
    assert len(result.history) - len(failed) == 10  # what failed cost nothing


def test_the_score_of_a_training_that_failed_is_not_used_again(tmp_path):
    memoise = replace(SEARCH, memoise=True)
    result = search(tmp_path, memoise, model_init=failing({2}, RuntimeError(WORKER_DIED)))
    first, failed = result.study.trials[:2]
    scorer = Scorer(
        result.study, None, [], memoise, SearchListener(), result.kept, result.objectives, None
    )
    for trial, found in ((first, 0), (failed, None)):
        config = BioTuneConfig(lr_multipliers=trial.user_attrs["lr_multipliers"])
        earlier = scorer.scored_before(plan_of(trial), config)
        assert (earlier and earlier.number) == found


def test_one_that_diverges_is_recorded_with_its_reason(tmp_path):
    result = search(tmp_path, model_init=failing({3}))
    reason = "diverged: its loss was no finite number in epoch 1"
    assert result.history.reason[2] == reason
    assert result.history.score[2] == 0.0
    assert result.study.trials[2].user_attrs["failure"] == reason


def test_a_loss_gets_the_worst_one_too(tmp_path):
    config = replace(SEARCH, metric="loss")
    result = search(tmp_path, config, model_init=failing({3}, RuntimeError(WORKER_DIED)))
    assert result.history.score[2] == math.inf


def test_a_finalist_that_fails_loses(tmp_path):
    heard = Hear()
    config = replace(SEARCH, budget=6)
    # Four individuals, then both finalists with their second seed.
    result = search(
        tmp_path, config, model_init=failing({5}, RuntimeError(WORKER_DIED)), listener=heard
    )
    (loser,) = [number for number, _, score in heard.finalists if score == 0.0]
    assert result.best_trial != loser
    runs = {f.trial: f.fitness.runs for f in result.finalists}
    assert [run.reason for run in runs[loser]] == ["", f"RuntimeError: {WORKER_DIED}"]


def test_a_leader_whose_second_seed_fails_keeps_what_its_first_was_worth(tmp_path):
    config = replace(
        SEARCH,
        racing=True,
        metric="loss",
        n_finalists=0,
        population_size=12,
        budget=None,
        generations=0,
    )
    untroubled = search(tmp_path / "untroubled", config)
    numbers = [len(fitness_of(trial).runs) for trial in untroubled.study.trials]
    leader = numbers.index(2)  # its second seed is the training after its first
    STEPS[0] = 0
    failures = failing({leader + 2}, RuntimeError(WORKER_DIED))
    result = search(tmp_path / "troubled", config, model_init=failures)
    fitness, before = (
        fitness_of(found.study.trials[leader]).runs for found in (result, untroubled)
    )
    assert [run.score for run in fitness] == [before[0].score]
    assert result.history.state[leader] == "complete"


def test_a_second_seed_of_all_that_fails_leaves_what_the_first_gave(tmp_path):
    three = replace(SEARCH, seeds=(1, 2, 3), seeds_per_individual=3, n_finalists=0)
    result = search(tmp_path, three, model_init=failing({5}, RuntimeError(WORKER_DIED)))
    runs = [fitness_of(trial).runs for trial in result.study.trials]
    # The first has three trainings, of the second the second one failed.
    assert [len(of_trial) for of_trial in runs[:3]] == [3, 1, 3]
    assert runs[1][0].stopped == ""
    assert result.history.trainings[:3].tolist() == [3.0, 1.0, 3.0]


@pytest.mark.parametrize("first", [1, 3])
def test_a_search_in_which_everything_fails_comes_to_an_end(tmp_path, first, monkeypatch):
    monkeypatch.setattr(spending, "MAXIMUM_FREE_IN_A_ROW", 12)
    config = replace(SEARCH, max_failed_share=1.0)
    failures = failing(range(first, 10_000), torch.OutOfMemoryError("no room"))
    if first > 1:
        result = search(tmp_path, config, model_init=failures)
        assert (result.history.state == "failed").sum() == 12
        assert result.trainings == first - 1
    else:
        told = "none of 12 individuals was trained to its end; .*individual 11: OutOfMemoryError"
        with pytest.raises(TrainingError, match=told):
            search(tmp_path, config, model_init=failures)


def test_a_mistake_that_fails_every_training_is_raised_by_the_first(tmp_path):
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        search(tmp_path, model_init=failing(range(1, 100), error))
    assert STEPS == [1]


def test_an_error_of_a_listener_is_no_failure_of_the_training(tmp_path):
    class Broken(SearchListener):
        epochs = 0

        def on_epoch_end(self, seed, curve, epochs):
            self.epochs += 1
            if self.epochs == 3:
                raise ZeroDivisionError("in the listener")

    with pytest.raises(ZeroDivisionError, match="in the listener"):
        search(tmp_path, listener=Broken())
    # It is tried again, with the same genes.
    assert len(search(tmp_path).history) == 11


@pytest.mark.parametrize("error", [None, torch.OutOfMemoryError("no room")])
def test_a_search_stops_when_too_much_fails_and_says_why(tmp_path, error):
    with pytest.raises(TrainingError) as stopped:
        search(tmp_path, model_init=failing(range(5, 100), error))
    last = "OutOfMemoryError: no room" if error else "diverged: its loss was no finite number"
    assert "6 of 10 individuals failed, more than max_failed_share=0.5 allows" in str(stopped.value)
    assert f"the last one, individual 9: {last}" in str(stopped.value)
    config = replace(SEARCH, max_failed_share=1.0, budget=16)
    assert len(search(tmp_path, config, model_init=failing({1})).history) > 10


def test_a_few_failures_at_the_start_do_not_stop_it(tmp_path):
    failures = failing(range(2, 7), torch.OutOfMemoryError("no room"))
    result = search(tmp_path, model_init=failures)
    assert (result.history.state == "failed").sum() >= 2


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ConfigError, match=r"max_failed_share must be in \(0, 1\], got"):
        replace(SEARCH, max_failed_share=share)
