"""Races between ways to compute the same thing."""

from __future__ import annotations

from itertools import count

import pytest
import torch

from hf_biotune.search.race import TURNS, Outcome, Way, race

VECTOR = torch.tensor([3.0, 4.0])


def way(name, seconds, vector=VECTOR, tolerance=0.01, **decisions):
    """Takes as long as it says; a list says it for each run."""
    each = iter(seconds) if isinstance(seconds, list) else (seconds for _ in count())
    return Way(name, name, lambda: Outcome(next(each), vector, **decisions), tolerance)


def test_the_quickest_way_wins():
    result = race("step", [way("plain", 1.0), way("slow", 2.0), way("quick", 0.5)])
    assert (result.winner, result.seconds) == ("quick", 0.5)
    assert [timing.way for timing in result.timings] == ["plain", "slow", "quick"]


def test_the_quickest_run_counts_and_the_first_one_only_warms_up():
    result = race("step", [way("plain", 1.0), way("other", [0.1, 5.0, 0.6, 0.7])])
    # Once five times slower, it is not tried again.
    assert result.winner == "plain"
    result = race("step", [way("plain", 1.0), way("other", [0.1, 1.9, 0.6, 0.7])])
    assert (result.winner, result.seconds) == ("other", 0.6)
    # Nor twice nearly twice as slow.
    result = race("step", [way("plain", 1.0), way("other", [0.1, 1.9, 1.8, 0.6])])
    assert result.winner == "plain"


def test_the_plainest_way_is_timed_each_time():
    result = race("step", [way("plain", [1.0, 2.0, 1.0, 1.0]), way("other", 1.25)])
    assert (result.winner, result.seconds) == ("plain", 1.0)
    assert result.timings[0].seconds == 1.0


def test_a_way_must_agree_every_time():
    wrong = iter([VECTOR, VECTOR, torch.zeros(2), VECTOR])
    result = race(
        "step", [way("plain", 1.0), Way("q", "q", lambda: Outcome(0.1, next(wrong)), 0.01)]
    )
    assert result.winner == "plain"
    assert (result.timings[1].seconds, result.timings[1].difference) == (None, 1.0)


def test_a_small_gain_is_not_worth_another_way():
    assert race("step", [way("plain", 1.0), way("other", 0.92)]).winner == "plain"
    # Nor is a large one of a small part.
    ways = [way("plain", 1.0), way("other", 0.5)]
    assert race("step", ways, beside=1.0).winner == "other"
    assert race("step", ways, beside=9.0).winner == "plain"


@pytest.mark.parametrize(
    "other",
    [
        {"vector": VECTOR * 1.02},
        {"vector": torch.tensor([3.0, torch.nan])},
        {"vector": torch.tensor([3.0, torch.inf])},
        {"loss": 2.03},
        {"predictions": torch.tensor([0] * 18 + [1] * 2)},
    ],
)
def test_a_way_that_does_not_agree_is_neither_timed_nor_chosen(other):
    same = {"loss": 2.0, "predictions": torch.zeros(20, dtype=torch.long)}
    runs = count()

    def run() -> Outcome:
        next(runs)
        return Outcome(**{"seconds": 0.1, "vector": VECTOR, **same, **other})

    result = race("step", [way("plain", 1.0, **same), Way("quick", "quick", run, 0.01)])
    assert result.winner == "plain"
    assert result.timings[1].seconds is None
    assert next(runs) == 1


def test_a_way_that_nearly_agrees_may_win():
    same = {"loss": 2.0, "predictions": torch.zeros(20, dtype=torch.long)}
    near = {"loss": 2.01, "predictions": torch.tensor([0] * 19 + [1])}
    result = race("step", [way("plain", 1.0, **same), way("quick", 0.1, VECTOR * 1.005, **near)])
    assert result.winner == "quick"
    assert result.timings[1].difference == pytest.approx(0.005, rel=1e-3)
    assert str(result.timings[1]) == "step, quick: 0.1000 s"


def test_a_way_that_the_device_does_not_know_is_left_out():
    def fail() -> Outcome:
        raise RuntimeError("no kernel for this type")

    result = race("step", [way("plain", 1.0), Way("exotic", "exotic", fail, 0.01)])
    assert result.winner == "plain"
    assert str(result.timings[1]) == "step, exotic: fails"


def test_running_out_of_memory_is_not_hidden():
    def fail() -> Outcome:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    with pytest.raises(torch.OutOfMemoryError):
        race("step", [way("plain", 1.0), Way("large", "large", fail, 0.01)])


def test_ways_run_by_turns():
    runs = []

    def named(name):
        return Way(name, name, lambda: runs.append(name) or Outcome(1.0, VECTOR), 0.01)

    race("step", [named("a"), named("b")])
    assert runs == ["a", "b"] * (1 + TURNS)


def test_one_way_wins_without_running():
    assert race("step", [way("only", [])]).winner == "only"
