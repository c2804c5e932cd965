from __future__ import annotations

import csv
import json
import math

import pytest
from records import record

from hf_biotune.contest.outputs import latex_table, size, table_rows, write_outputs
from hf_biotune.contest.standings import MethodRecord, Standings
from hf_biotune.report import numbers


@pytest.fixture
def standings():
    return Standings(
        "digits on a network",
        {"epochs": 3},
        (
            record("full", "full fine-tuning", [0.6, 0.7, 0.8]),
            record("biotune", "BioTune", [0.8, 0.8, 0.9]),
            record("norm-only", "norm layers & co", [], why_not="it has no LayerNorm"),
        ),
    )


def test_ranks_tests_and_table_follow_from_the_runs(standings):
    assert standings.ranking.ranks == {"full": 2.0, "biotune": 1.0}
    (test,) = standings.tests.to_dict("records")
    assert test["difference"] == pytest.approx(-0.1333, abs=1e-4)
    full, ours, misfit = standings.table.to_dict("records")
    assert full["macro_accuracy"] == pytest.approx(0.7)
    # t(0.975, 2) * 0.1 / sqrt(3)
    assert full["macro_accuracy_half_width"] == pytest.approx(0.2484, abs=1e-4)
    assert (ours["tuning_seconds"], ours["tuning_trainings"]) == (12.0, 6.0)
    assert misfit["why_not"] == "it has no LayerNorm"
    assert standings.is_complete


def test_a_method_that_does_not_fit_is_shown_with_the_reason(standings):
    heading, full, _, misfit = table_rows(standings)
    assert len(heading) == len(full) == len(misfit) == 12
    assert misfit[:2] == ("norm layers & co", "n/a: it has no LayerNorm")
    assert full[1] == "0.700 ± 0.248"
    assert full[9:11] == ("12 s, 6.0 trainings", "2.0 s, 0.5 trainings")


def test_written_results_can_be_read_back(standings, tmp_path):
    write_outputs(standings, tmp_path)
    text = (tmp_path / "results.json").read_text()
    again = Standings.from_dict(json.loads(text))
    assert again.ranking == standings.ranking
    assert again.records[2].why_not == "it has no LayerNorm"
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["full", "biotune", "norm-only"]
    assert "NaN" not in text


def test_latex_escapes_what_would_be_markup(standings):
    text = latex_table(table_rows(standings))
    assert r"norm layers \& co & n/a: it has no LayerNorm & --" in text
    assert r"0.700 $\pm$ 0.248" in text
    assert text.count(r"\\") == 4


def test_one_method_has_no_ranks_and_no_plots(standings, tmp_path):
    alone = Standings("digits", {}, standings.records[:1])
    assert alone.ranking is None
    write_outputs(alone, tmp_path)
    assert not list(tmp_path.glob("*.png"))


def test_methods_without_a_common_split_wait_for_one(standings):
    other = standings.records[1]
    later = MethodRecord(other.name, other.title, "", other.tunings, {(7, 1): other.runs[0, 1]}, 3)
    unfinished = Standings("digits", {}, (standings.records[0], later))
    assert unfinished.ranking is None
    assert unfinished.tests.empty
    assert not unfinished.is_complete


def test_sizes_are_written_as_people_say_them():
    assert [size(value) for value in (512, 4_100, 18_600_000, math.nan)] == [
        "512 B",
        "4.10 kB",
        "18.6 MB",
        numbers.NONE,
    ]
