from __future__ import annotations

import json

import methods_section
import pytest
import write_results
from records import record

from hf_biotune.contest.outputs import without_nan
from hf_biotune.contest.overall import common_methods, duels, overall_duels, overall_ranking
from hf_biotune.contest.standings import Standings
from hf_biotune.exceptions import DataError

PLAN = {
    "splits": 3,
    "seeds": [1],
    "epochs": 8,
    "budget": "10",
    "image_size": 32,
    "max_length": None,
}


def comparison(name, **scores):
    titles = {"full": "full fine-tuning", "lora": "LoRA", "biotune": "BioTune"}
    records = tuple(record(method, titles[method], of) for method, of in scores.items())
    return Standings(name, PLAN, records)


@pytest.fixture
def comparisons():
    return [
        comparison("a", full=[0.5, 0.6, 0.7], lora=[0.4, 0.5, 0.59], biotune=[0.7, 0.8, 0.91]),
        comparison("b", full=[0.5, 0.9, 0.7], lora=[0.7, 0.5, 0.6], biotune=[0.6, 0.7, 0.9]),
    ]


def test_ranks_are_means_over_the_splits_of_all_comparisons(comparisons):
    found = overall_ranking(comparisons)
    assert found.n_blocks == 6
    # a: 2 3 1 three times. b: 3 1 2, 1 3 2, 2 3 1.
    assert found.ranks == pytest.approx({"full": 2.0, "lora": 16 / 6, "biotune": 8 / 6})


def test_splits_that_a_method_lacks_are_left_out(comparisons):
    shorter = comparison("c", full=[0.5], lora=[0.6, 0.7], biotune=[0.7, 0.8])
    assert overall_ranking([*comparisons, shorter]).n_blocks == 7
    without = comparison("d", full=[0.5], biotune=[0.6])
    assert common_methods([*comparisons, without]) == ["full", "biotune"]


def test_a_verdict_needs_an_interval_that_leaves_out_zero(comparisons):
    found = {(duel.setting, duel.rival): duel for duel in duels(comparisons, "biotune")}
    assert found["a", "lora"].difference.mean == pytest.approx(0.92 / 3)
    assert found["a", "lora"].verdict == "better"
    assert found["b", "full"].verdict == "no difference shown"
    against = duels(comparisons[:1], "lora")
    assert {duel.rival: duel.verdict for duel in against} == {"full": "worse", "biotune": "worse"}


def test_over_all_settings_each_split_counts_once(comparisons):
    other_splits = Standings(
        "c", PLAN, (record("full", "full", [0.5]), record("biotune", "BioTune", [0.4], first=4))
    )
    found = {duel.rival: duel.difference for duel in overall_duels(comparisons, "biotune")}
    assert found.keys() == {"full", "lora"}
    # a: 0.2, 0.2, 0.21. b: 0.1, -0.2, 0.2.
    assert found["full"].mean == pytest.approx(0.71 / 6)
    assert found["full"].n == 6
    (with_c,) = overall_duels([*comparisons, other_splits], "biotune")
    assert (with_c.rival, with_c.difference.n) == ("full", 6)


def test_over_all_settings_seeds_that_one_lacks_do_not_count():
    more_seeds = record("biotune", "BioTune", [0.6, 0.7])
    more_seeds.runs[0, 2] = {**more_seeds.runs[0, 1], "seed": 2}
    more_seeds.runs[0, 2]["scores"] = {"macro_accuracy": 0.9}
    each = Standings("a", PLAN, (record("full", "full", [0.5, 0.5]), more_seeds))
    (duel,) = overall_duels([each], "biotune")
    assert duel.difference.mean == pytest.approx(0.15)


def test_nothing_has_no_ranks():
    with pytest.raises(DataError, match="at least one comparison, got none"):
        overall_ranking([])
    with pytest.raises(DataError, match="no split was finished by all of full, lora"):
        overall_ranking(
            [
                Standings(
                    "a",
                    PLAN,
                    (
                        record("full", "full", [0.5]),
                        record("lora", "LoRA", [0.6], first=4),
                    ),
                )
            ]
        )


def test_the_page_of_results_is_written_from_the_files_alone(comparisons, tmp_path, monkeypatch):
    directory = tmp_path / "results" / "comparison"
    directory.mkdir(parents=True)
    for each in comparisons:
        (directory / f"{each.name}.json").write_text(json.dumps(without_nan(each.to_dict())))
    page, plot = tmp_path / "results.md", tmp_path / "plot.svg"
    page.write_text("# Results\n\nBefore.\n")
    words = ["--results", tmp_path / "results", "--page", page, "--plot", plot]
    monkeypatch.setattr("sys.argv", ["write_results", *map(str, words)])
    write_results.main()
    text = page.read_text()
    assert text.startswith("# Results\n\nBefore.\n")
    assert "| BioTune          |      1.33 |" in text
    assert "BioTune has the best mean rank. On no setting is it below" in text
    assert "**+0.307 ± 0.029**" in text
    assert "9 of 9 final trainings done" in text
    write_results.main()
    assert page.read_text() == text


def test_a_page_of_nothing_is_refused(tmp_path, monkeypatch):
    words = ["--results", str(tmp_path), "--page", str(tmp_path / "page.md")]
    monkeypatch.setattr("sys.argv", ["write_results", *words])
    with pytest.raises(SystemExit, match=r"no results in .*; run the benchmarks first"):
        write_results.main()


def test_a_missed_target_is_said(comparisons):
    lost = comparison("c", full=[0.9, 0.91, 0.92], lora=[0.5, 0.6, 0.4], biotune=[0.6, 0.6, 0.6])
    text = methods_section.target("biotune", [lost])
    assert "place 2 of 3 by mean rank; the best is full fine-tuning" in text
    assert "below a rival by more than the interval here: full fine-tuning on c" in text
