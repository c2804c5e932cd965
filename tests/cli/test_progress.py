"""What a search shows while it runs."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
from report.report_examples import make_partition
from rich.console import Console

from hf_biotune.cli.live_progress import LiveProgress
from hf_biotune.cli.output import Output
from hf_biotune.cli.plain_progress import GenerationProgress, PlainProgress
from hf_biotune.cli.progress import progress_of
from hf_biotune.cli.strip import cells_of, strip_of
from hf_biotune.cli.tally import Tally, time_left
from hf_biotune.search import Budget, SearchListener, TrialReport
from hf_biotune.search.budget_plan import BudgetPlan
from hf_biotune.search.fitness_result import EpochRecord

PLAN = BudgetPlan(5, 2, 1, 2, 3, 20.0, 4.0, 20, 3)
BEST = {"stem": 0.2, "stage1": 1.0, "head": 8.0}


def told(number, generation=0, state="complete", score=0.8, share=0.25):
    return TrialReport(
        number, generation, "initial", state, score, {"head": 1.0}, 0.9, BEST, 5.0, 30.0, share, 0.5
    )


def search_of(listener):
    """Two generations of two and a finalist, as an engine tells them."""
    listener.on_search_begin(make_partition(), Budget(trainings=20), 0)
    listener.on_plan(PLAN)
    for number, state in enumerate(("complete", "pruned", "reused", "complete")):
        listener.on_trial_begin(number, number // 2, "initial")
        listener.on_epoch_end(684, [EpochRecord(1.5, 1.25, 0.5, 1e-3)], 4)
        listener.on_trial_end(told(number, number // 2, state, share=0.25 * (number + 1)))
    listener.on_finalist(3, 559, 0.85)
    listener.on_search_end()


def lines_of(kind, **options):
    lines = []
    search_of(kind(lines.append, **options))
    return [line.partition(" s  ")[2] for line in lines]


def test_a_strip_has_a_cell_for_every_block():
    names = make_partition().names
    assert strip_of(BEST, names) == "-.=.....#"
    assert cells_of(BEST, names).plain == "".join(f" {cell} " for cell in "-.=.....#")


def test_a_log_has_a_line_for_every_individual():
    lines = lines_of(PlainProgress)
    assert lines[1] == "budget: 20 trainings"
    assert lines[4] == (
        "[ 25%] generation 0 individual   0 ........= 0.8000 complete best 0.9000 -.=.....# "
        "1:30 left"
    )
    assert len([line for line in lines if line.startswith("[")]) == 4
    assert lines[-1] == (
        "4 individuals: 2 complete, 1 stopped early, 1 reused at no cost; 50% of all samples from "
        "the prefix cache"
    )


@pytest.mark.parametrize("kind", [PlainProgress, GenerationProgress])
def test_an_individual_that_fails_is_told_with_its_reason(kind):
    lines = []
    listener = kind(lines.append)
    report = replace(told(7, state="failed", score=0.0), reason="RuntimeError: no room")
    listener.on_trial_end(report)
    listener.on_search_end()
    assert any(line.endswith("individual 7: RuntimeError: no room") for line in lines)
    assert "1 failed" in lines[-1]


def test_ci_has_a_line_for_every_generation():
    lines = lines_of(GenerationProgress)
    assert lines[4:6] == [
        "generation 0: 2 individuals (1 complete, 1 stopped early), median 0.8000, best so far "
        "0.9000; 50% of the budget, -.=.....#",
        "generation 1: 2 individuals (1 reused at no cost, 1 complete), median 0.8000, "
        "best so far 0.9000; 100% of the budget, -.=.....#",
    ]
    assert len(lines) == 7


def test_verbose_has_a_line_for_every_epoch():
    lines = lines_of(PlainProgress, epochs=True)
    assert lines[4].strip() == (
        "seed 684 epoch 1/4: training loss 1.5000, validation loss 1.2500, score 0.5000"
    )


def test_the_live_display_shows_bars_the_best_and_what_became_of_individuals():
    live = LiveProgress()
    search_of(live)
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    console.print(live)
    text = console.file.getvalue()
    for shown in (
        "budget", "100%", "5.0 trainings spent, 0:00 left", "generation", "training",
        "finalist 3, seed 559: 0.8500", "best so far: 0.9000", " -  .  = ", " #  fast",
        "2 complete, 1 stopped early",
    ):  # fmt: skip
        assert shown in text, shown


def test_time_left_is_at_the_pace_so_far():
    assert time_left(told(0, share=0.25)) == "1:30 left"
    assert time_left(told(0, share=0.001)) == "8:19:30 left"
    assert time_left(told(0, share=0.0)) == ""


def test_a_generation_without_a_score_has_no_median():
    tally = Tally()
    tally.add(told(0, score=math.nan, state="failed"))
    assert "median" not in tally.end_generation()
    assert tally.end_generation() == ""


@pytest.mark.parametrize(
    ("setting", "kind"),
    [
        ({"quiet": True}, SearchListener),
        ({"verbose": True}, PlainProgress),
        ({"ci": "true"}, GenerationProgress),
        ({"ci": "false", "terminal": True}, LiveProgress),
        ({"terminal": True}, LiveProgress),
        ({"terminal": False}, PlainProgress),
    ],
)
def test_what_is_shown_depends_on_who_looks(monkeypatch, setting, kind):
    monkeypatch.setenv("CI", setting.pop("ci", ""))
    output = Output()
    terminal = setting.pop("terminal", False)
    output.console = Console(file=io.StringIO(), force_terminal=terminal)
    for name, value in setting.items():
        setattr(output, name, value)
    with progress_of(output) as listener:
        assert type(listener) is kind
