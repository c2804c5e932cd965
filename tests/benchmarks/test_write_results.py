"""The page of results says what the files say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from search_cost_report import duel, search_cost_section
from step_section import statistics_section
from write_results import PAGE, PLOT, RESULTS, written


def run(variant: str, split: int, cpu_seconds: float, scores: list[float], **fields):
    """A run as `search_cost.py` keeps it."""
    return {
        "setting": "digits",
        "split": split,
        "variant": variant,
        "trainings": 20.0,
        "epochs": 300,
        "individuals": {"complete": 15, "pruned": 5},
        "cpu_seconds": cpu_seconds,
        "reference_seconds": [10.0, 10.0],
        "test_scores": scores,
        "ensemble_score": None,
        "norm_statistics": "train" if variant == "paper" else "epoch",
        **fields,
    }


def cells(text: str) -> list[list[str]]:
    """The rows of all tables of a text."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]


def test_the_page_is_that_of_the_committed_files(tmp_path: Path) -> None:
    assert written(RESULTS, tmp_path / PLOT.name) in PAGE.read_text("utf-8")


def test_the_readme_says_what_the_files_say() -> None:
    runs = json.loads((RESULTS / "search_cost.json").read_text("utf-8"))["runs"]
    variants = {name: {} for name in ("digits-100", "mnist-100", "elpv-256")}
    for each in runs:
        variants[each["setting"]].setdefault(each["variant"], {})[each["split"]] = each
    duels = {setting: duel(found) for setting, found in variants.items()}
    digits, mnist, elpv = duels.values()
    assert not digits.is_bound
    assert mnist.is_bound
    assert elpv.is_bound

    def mean(variant: str, field: str) -> float:
        return np.mean([np.mean(r[field]) for r in variants["digits-100"][variant].values()])

    gains = [gain for found in duels.values() for gain in found.gains]
    half = stats.sem(gains) * stats.t.ppf(0.975, len(gains) - 1)
    readme = " ".join((PAGE.parents[1] / "README.md").read_text("utf-8").split())
    for said in (
        f"the published search ({mean('paper', 'trainings'):.0f} full trainings) costs "
        f"{np.mean(digits.ratios):.0f} times the default ({mean('default', 'trainings'):.0f})",
        f"costs at least {np.mean(mnist.ratios):.0f} and {np.mean(elpv.ratios):.0f} times as much",
        f"without it about {np.mean(mnist.ratios) * mnist.given:.0f} and "
        f"{np.mean(elpv.ratios) * elpv.given:.0f} times",
        f"over these nine splits, the default's scores {np.mean(gains):.3f} ± {half:.3f} more",
        f"score {mean('default', 'ensemble_score'):.3f} on the digits, where its winner scores "
        f"{mean('default', 'test_scores'):.3f}",
    ):
        assert said in readme


def test_costs_are_compared_split_by_split() -> None:
    text = search_cost_section(
        [
            run("paper", 0, 2000, [0.8, 0.9]),
            run("paper", 1, 3000, [0.7, 0.9], reference_seconds=[20.0, 20.0]),
            run("default", 0, 100, [0.87, 0.89], ensemble_score=0.95),
            run("default", 1, 100, [0.86, 0.86]),
            run("default", 2, 999, [0.1, 0.1]),
        ]
    )
    assert "costs **25.0 times** the default's CPU seconds on 2 splits (20.0, 30.0)" in text
    assert "in units of a reference training beside each, 17.5 times (20.0, 15.0)" in text
    # +0.03 and +0.06; Student's t with one degree of freedom, 12.706.
    assert "the paper's scheme: +0.0450 ± 0.1906." in text
    assert "| paper   |    0, 1 |      20.0 |    300 |  2500 | 0.8250 ± 0.3177 |" in text
    assert "0.9500 (1 of 3 splits) |" in text


def test_the_headline_has_every_setting_and_tells_bounds() -> None:
    text = search_cost_section(
        [
            run("paper", 0, 2000, [0.8]),
            run("default", 0, 100, [0.9]),
            run("paper, our layout", 0, 900, [0.8], setting="cells"),
            run("default", 0, 30, [0.8], setting="cells"),
            run("default", 0, 30, [0.7], setting="texts"),
        ]
    )
    rows = cells(text)
    assert ["digits", "1", "20.0", "+0.1000"] in rows
    assert ["cells", "1", "at least 30.0", "+0.0000"] in rows
    # The standard error is .05; Student's t of one degree of freedom is 12.706.
    assert ["all splits", "2", "", "+0.0500 ± 0.6353"] in rows
    assert "texts" not in text.partition("####")[0]
    assert "with our memory layout and optimizer kernel, costs at least **30.0 times**" in text
    assert "at least" not in search_cost_section(
        [run("paper", 0, 2000, [0.8]), run("default", 0, 100, [0.9])]
    )


def test_what_the_plain_scheme_would_cost_is_estimated_by_its_first_individuals() -> None:
    runs = [
        run("paper, our layout", 0, 900, [0.8]),
        run("default", 0, 30, [0.8]),
        # Twice as much, on a machine that was a quarter slower.
        run("paper, few", 0, 500, [], reference_seconds=[12.5, 12.5]),
        run("+ layout", 0, 250, [], reference_seconds=[12.5, 12.5]),
        run("+ layout", 1, 999, []),
    ]
    text = search_cost_section(runs)
    assert ["digits", "1", "at least 30.0, about 60", "+0.0000"] in cells(text)
    assert "What follows *about* is an estimate" in text
    bound = search_cost_section(runs[:2])
    assert ["digits", "1", "at least 30.0", "+0.0000"] in cells(bound)
    assert "estimate" not in bound
    # A plain run needs no estimate.
    plain = search_cost_section([run("paper", 0, 1600, [0.8]), *runs])
    assert ["digits", "1", "53.3", "+0.0000"] in cells(plain)
    assert "estimate" not in plain


def test_smaller_budgets_are_compared_with_the_paper_and_the_default() -> None:
    runs = [
        run("paper", 0, 2000, [0.8]),
        run("default", 0, 100, [0.9]),
        run("15 trainings", 0, 50, [0.85]),
        run("15 trainings", 1, 50, [0.1]),
    ]
    text = search_cost_section(runs)
    rows = cells(text)
    assert ["digits", "15 trainings", "40.0", "+0.0500", "-0.0500"] in rows
    assert ["all splits", "15 trainings", "", "+0.0500", "-0.0500"] in rows
    assert "smaller budget" not in search_cost_section(runs[:2])


def test_the_cache_is_told_and_whether_order_matters() -> None:
    cache = {
        "hits": 300,
        "misses": 700,
        "recorded": 100,
        "memory_bytes": 2**21,
        "file_bytes": 0,
        "seconds_saved": 4.0,
        "why_not": "",
    }
    runs = [
        run("default", 0, 60, [0.9], frozen_first=[0, 2, 2, 4], cache=cache),
        run("default", 1, 40, [0.9], frozen_first=[0, 0, 2, 2], cache=cache),
        run("default", 2, 40, [0.9]),
    ]
    text = search_cost_section(runs)
    assert "5 of 8 individuals freeze the first block, 1.5 first blocks on average" in text
    assert "30% of all samples came from the cache, which saved 8 s beside the 100 CPU s" in text
    assert "held at most 2 MiB. All 3 boundaries stayed in memory" in text
    runs[0]["cache"] = {**cache, "file_bytes": 1}
    assert "boundaries stayed" not in search_cost_section(runs)
    assert "prefix cache" not in search_cost_section(runs[2:])


def test_runs_of_before_a_new_default_are_told_as_such() -> None:
    old = [run("paper", 0, 2000, [0.8]), run("default", 0, 100, [0.9])]
    for each in old:
        del each["norm_statistics"]
    text = search_cost_section(old)
    assert "| default, when PyTorch's BatchNorm statistics were the default |" in text
    assert "| paper " in text
    assert "Both had PyTorch's BatchNorm statistics; with averages of the epoch" in text
    assert "PyTorch" not in search_cost_section([run(v, 0, 1, [0.9]) for v in ("paper", "default")])


def test_a_gain_by_epoch_statistics_is_counted_choice_by_choice() -> None:
    equal = "+0.000 on average; 0 higher, 0 lower of 3"
    rows = [
        {"setting": "digits", "trained": trained, "mode": mode, "scores": [0.1, 0.2, 0.3, last]}
        for trained, mode, last in [
            ("full fine-tuning, rate / 3", "train", 0.5),
            ("full fine-tuning, rate / 3", "epoch", 0.7),
            ("random genotype 0", "train", 0.6),
            ("random genotype 0", "epoch", 0.5),
            ("random genotype 1", "train", 0.4),
            ("random genotype 1", "epoch", 0.6),
        ]
    ]
    text = statistics_section({"epochs": 4, "rows": rows})
    found = cells(text)
    assert ["digits", equal, "+0.100 on average; 2 higher, 1 lower of 3"] in found
    assert ["digits, 2 random genotypes, mean", "epoch", "0.200", "0.550"] in found
    assert ["digits, full fine-tuning, rate / 3", "train", "0.200", "0.500"] in found


def test_levers_are_told_in_reference_trainings() -> None:
    text = search_cost_section(
        [
            run("paper, few", 0, 600, []),
            run("+ layout", 0, 400, []),
            run("default, few", 0, 100, []),
            run("- cache", 0, 150, []),
        ]
    )
    rows = cells(text)
    assert ["paper, few", "3.000", ""] in rows
    assert ["+ layout", "2.000", "1.50 x"] in rows
    assert ["default, few", "0.500", "4.00 x"] in rows
    assert ["default - cache", "0.750", "1.50 x"] in rows
    assert "The default's runs are of before `prefer_cheap`." in text
    new = [run("paper, few", 0, 600, []), run("default, few", 0, 100, [], frozen_first=[0])]
    assert "of before" not in search_cost_section(new)


@pytest.mark.parametrize("variant", ["full fine-tuning", "linear probe"])
def test_what_is_done_by_hand_has_no_search(variant: str) -> None:
    text = search_cost_section([run(variant, 0, 0.0, [0.5], epochs=0)])
    assert f"| {variant} |" in text
    assert "none" in text
