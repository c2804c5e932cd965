"""Figures look as they did: compared with pictures, with a tolerance for versions of fonts."""

from __future__ import annotations

import baseline_figures
import numpy as np
import pytest
from matplotlib.testing.compare import compare_images
from report_examples import WINNER, make_comparison, make_history, make_partition
from skimage.color import deltaE_ciede2000, rgb2lab

from hf_biotune.report import plot_pareto
from hf_biotune.report.plots.pareto import pareto_front, shown_rows
from hf_biotune.report.plots.style import FROZEN, rate_colour

# Root mean square of 0 to 255; a moved line of text is more.
TOLERANCE = 6
KINDS = sorted(path.stem for path in baseline_figures.BASELINES.glob("*.png"))


@pytest.fixture(scope="module")
def figures():
    return baseline_figures.figures()


def test_every_kind_of_figure_has_a_picture(figures):
    assert sorted(figures) == KINDS


@pytest.mark.parametrize("name", KINDS)
def test_a_figure_looks_as_it_did(figures, name, tmp_path):
    path = tmp_path / f"{name}.png"
    baseline_figures.save(figures[name], path)
    expected = tmp_path / "expected.png"
    expected.write_bytes((baseline_figures.BASELINES / f"{name}.png").read_bytes())
    assert compare_images(str(expected), str(path), TOLERANCE) is None


# How a colour looks to those who lack one kind of cone, in linear RGB.
# Source: Machado, Oliveira and Fernandes 2009, severity 1.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


def seen(colour, matrix):
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(matrix) @ linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", BLINDNESS)
def test_slow_base_and_fast_look_different_to_the_colour_blind(kind):
    labs = [
        rgb2lab(seen(colour, BLINDNESS[kind]))
        for colour in (rate_colour(0.1), rate_colour(1), rate_colour(10), FROZEN)
    ]
    for index, first in enumerate(labs):
        for other in labs[index + 1 :]:
            # 2.3 can just be told apart.
            assert deltaE_ciede2000(first, other) > 10


def test_the_front_holds_those_that_nothing_beats():
    sizes, scores = np.array([10, 20, 20, 30, 5]), np.array([0.8, 0.7, 0.9, 0.9, 0.5])
    assert pareto_front(sizes, scores, True).tolist() == [4, 0, 2]
    assert pareto_front(sizes, scores, False).tolist() == [4]
    assert pareto_front(sizes[:0], scores[:0], True).tolist() == []


def test_only_full_scores_of_the_newest_fold_are_compared():
    history = make_history(make_partition(), n_folds=2)
    history.loc[39, "state"] = "pruned"
    rows = shown_rows(history)
    assert set(rows["fold"]) == {1}
    assert 39 not in rows["trial"].tolist()


def test_scores_against_parameters_have_units_and_mark_the_methods():
    axes = plot_pareto(
        make_history(make_partition(), winner=WINNER), True, "macro_accuracy", make_comparison()
    ).axes[0]
    assert axes.get_xlabel() == "trained parameters (logarithmic)"
    assert axes.get_ylabel() == "validation macro accuracy (higher is better)"
    assert axes.get_xscale() == "log"
    assert [text.get_text() for text in axes.texts] == [
        "linear probe", "full fine-tuning", "BioTune",
    ]  # fmt: skip
