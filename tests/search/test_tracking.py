"""Metrics of generations in the trackers that `report_to` names."""

from __future__ import annotations

import math

import pytest
from accelerate.utils import is_tensorboard_available

from hf_biotune.exceptions import ConfigError
from hf_biotune.search import SearchListener, TrialReport, default_training_arguments, tracking
from hf_biotune.search.tracking import Together, Trackers, tracked


class Kept:
    """A tracker of Accelerate that keeps what it is told."""

    def __init__(self):
        self.logged, self.is_finished = [], False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.is_finished = True


def told(number, generation, score, state="complete"):
    return TrialReport(
        number, generation, "initial", state, score, {}, 0.9, {}, number + 1.0, 6.0, 0.5
    )


def search_of(listener):
    for report in (
        told(0, 0, 0.5), told(1, 0, 0.7), told(2, 0, 0.99, "pruned"), told(3, 1, math.nan, "failed")
    ):  # fmt: skip
        listener.on_trial_end(report)
    listener.on_search_end()


def test_a_generation_is_one_step():
    kept = Kept()
    search_of(Trackers([kept], greater_is_better=True))
    assert [step for step, _ in kept.logged] == [0, 1]
    assert kept.logged[0][1] == {
        "search/best_score": 0.7,
        "search/median_score": 0.6,
        "search/best_score_so_far": 0.9,
        "search/trainings": 3.0,
        "search/seconds": 6.0,
        "search/share_spent": 0.5,
        "search/complete": 2,
        "search/pruned": 1,
        "search/reused": 0,
    }
    assert "search/best_score" not in kept.logged[1][1]
    assert kept.is_finished


def test_the_best_of_a_loss_is_the_least():
    kept = Kept()
    search_of(Trackers([kept], greater_is_better=False))
    assert kept.logged[0][1]["search/best_score"] == 0.5


def test_nothing_is_tracked_unless_it_is_asked_for(tmp_path):
    listener = SearchListener()
    assert tracked(listener, default_training_arguments(str(tmp_path)), True) is listener
    assert not list(tmp_path.iterdir())


def test_several_listeners_are_told_everything_in_order():
    heard = []

    class Hearing(SearchListener):
        def __init__(self, name):
            self.name = name

        def on_stage(self, name):
            heard.append((self.name, name))

    both = Together(Hearing("a"), Hearing("b"))
    both.on_stage("final")
    both.on_search_end()
    assert heard == [("a", "final"), ("b", "final")]


@pytest.mark.skipif(not is_tensorboard_available(), reason="tensorboard is not installed")
def test_tensorboard_gets_the_metrics_of_generations(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    args = default_training_arguments(str(tmp_path), report_to="tensorboard")
    search_of(tracked(SearchListener(), args, True))
    events = EventAccumulator(str(tmp_path / "runs" / "hf_biotune")).Reload()
    points = events.Scalars("search/best_score_so_far")
    assert [(point.step, round(point.value, 6)) for point in points] == [(0, 0.9), (1, 0.9)]


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "filter_trackers", lambda names, directory: [])
    args = default_training_arguments(str(tmp_path), report_to="tensorboard")
    with pytest.raises(ConfigError, match="'tensorboard' needs the package tensorboard: pip"):
        tracked(SearchListener(), args, True)
