import io
import math

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from report_examples import WINNER, make_comparison, make_history, make_partition

from hf_biotune.report import (
    plot_blocks,
    plot_comparison,
    plot_evolution,
    plot_importances,
    plot_individuals,
    plot_pareto,
)
from hf_biotune.report.plots.labels import label, labels
from hf_biotune.report.plots.style import (
    FROZEN,
    RATE_MAP,
    RATE_NORM,
    rate_colour,
    text_colour_on,
)

TIMES = "\N{MULTIPLICATION SIGN}"


def artist(axes, gid):
    (found,) = [child for child in axes.get_children() if child.get_gid() == gid]
    return found


def gids(axes):
    return [child.get_gid() for child in axes.get_children() if child.get_gid()]


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, metadata={"Software": None})
    return buffer.getvalue()


def test_evolution_draws_best_median_and_every_individual():
    history = make_history(make_partition())
    axes = plot_evolution(history, True, "macro_accuracy").axes[0]
    assert axes.get_xlabel() == "generation"
    assert axes.get_ylabel() == "validation macro accuracy (higher is better)"
    median, best = axes.get_lines()
    scores = history.groupby("generation")["score"]
    assert best.get_xdata().tolist() == [0, 1, 2, 3]
    assert best.get_ydata() == pytest.approx(scores.max().to_list())
    assert median.get_ydata() == pytest.approx(scores.median().to_list())
    points = np.asarray(artist(axes, "individuals-fold-0").get_offsets())
    assert points[:, 1] == pytest.approx(history["score"].to_numpy())
    assert np.round(points[:, 0]).tolist() == history["generation"].to_list()


def test_evolution_takes_the_lowest_as_best_where_lower_is_better():
    history = make_history(make_partition())
    axes = plot_evolution(history, False, "loss").axes[0]
    assert axes.get_ylabel() == "validation loss (lower is better)"
    best = axes.get_lines()[1]
    assert best.get_ydata() == pytest.approx(history.groupby("generation")["score"].min())


def test_evolution_never_joins_scores_of_different_folds():
    figure = plot_evolution(make_history(make_partition(), n_folds=2), True, "accuracy")
    lines = figure.axes[0].get_lines()
    assert [line.get_xdata().tolist() for line in lines] == [[0, 2], [0, 2], [1, 3], [1, 3]]
    assert [line.get_marker() for line in lines] == ["o", "o", "s", "s"]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["best", "median", "individual", "fold 0", "fold 1"]


def test_evolution_shows_pruned_and_scoreless_individuals_apart():
    history = make_history(make_partition())
    history.loc[0:4, "state"] = "pruned"
    history.loc[5:7, ["state", "score"]] = ["failed", math.nan]
    axes = plot_evolution(history, True, "accuracy").axes[0]
    assert len(artist(axes, "individuals-fold-0").get_offsets()) == 32
    assert len(artist(axes, "pruned-fold-0").get_offsets()) == 5
    assert artist(axes, "no-score").get_label() == "no score (3)"
    assert axes.get_lines()[1].get_ydata()[0] == history["score"][8:10].max()


def test_evolution_says_so_if_every_individual_failed():
    history = make_history(make_partition())
    history[["state", "score"]] = ["failed", math.nan]
    axes = plot_evolution(history, True, "accuracy").axes[0]
    assert [text.get_text() for text in axes.texts] == ["no individual has a score"]
    assert gids(axes) == ["no-score"]


def test_individuals_map_holds_multipliers_by_generation_and_marks_the_winner():
    partition = make_partition()
    history = make_history(partition, winner=WINNER)
    figure = plot_individuals(history.sample(frac=1, random_state=0), partition, WINNER)
    axes = figure.axes[0]
    image = axes.get_images()[0]
    expected = history.filter(like="multiplier:").to_numpy().T
    assert image.get_array().shape == (9, 40)
    np.testing.assert_array_equal(image.get_array().filled(np.nan), expected)
    assert (image.get_cmap(), image.norm) == (RATE_MAP, RATE_NORM)
    assert [text.get_text() for text in axes.get_yticklabels()] == list(partition.names)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2", "3"]
    assert axes.xaxis.label.get_text() == "generation (one column per individual)"
    assert artist(axes, "winner").get_offsets().tolist() == [[29.0, -0.5]]


def test_frozen_cells_are_see_through_to_a_hatched_grey_ground():
    partition = make_partition()
    axes = plot_individuals(make_history(partition), partition).axes[0]
    assert to_hex(axes.patch.get_facecolor()) == FROZEN
    assert axes.patch.get_hatch()
    assert axes.get_images()[0].get_cmap()(np.ma.masked)[3] == 0
    assert "winner" not in gids(axes)


def test_individuals_without_a_score_are_marked():
    partition = make_partition()
    history = make_history(partition)
    history.loc[[3, 11], "score"] = math.nan
    axes = plot_individuals(history, partition).axes[0]
    assert artist(axes, "no-score").get_offsets()[:, 0].tolist() == [3, 11]
    assert axes.xaxis.label.get_text() == (
        f"generation (one column per individual, {TIMES} no score)"
    )


def block_patches(figure):
    patches = figure.axes[0].patches
    return [patch for patch in patches if (patch.get_gid() or "").startswith("block-")]


def test_blocks_are_drawn_in_order_with_their_colours_and_multipliers():
    figure = plot_blocks(make_partition(), WINNER)
    patches = block_patches(figure)
    assert [patch.get_gid() for patch in patches] == [f"block-{index}" for index in range(9)]
    assert [patch.get_x() for patch in patches] == sorted(patch.get_x() for patch in patches)
    frozen = [bool(patch.get_hatch()) for patch in patches]
    assert frozen == [True, True, False, False, False, True, False, True, True]
    assert to_hex(patches[6].get_facecolor()) == rate_colour(8.0)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {f"{TIMES}8", f"{TIMES}0.4", "stage5", "2.03 M", "input", "output"} <= set(texts)


def test_a_block_is_as_wide_as_the_logarithm_of_its_parameters():
    patches = block_patches(plot_blocks(make_partition(), WINNER))
    assert patches[6].get_width() / patches[2].get_width() == pytest.approx(
        math.log10(2_026_348) / math.log10(16_714)
    )


@pytest.mark.parametrize("width", [4.0, 8.0])
def test_a_hundred_blocks_stay_on_the_page_and_apart(width):
    partition = make_partition({f"encoder.layer.{i}.attention": 10 + i**4 for i in range(120)})
    figure = plot_blocks(partition, {"encoder.layer.3.attention": 9.9}, width=width)
    patches = block_patches(figure)
    assert len(patches) == 120
    assert max(patch.get_x() + patch.get_width() for patch in patches) <= width
    assert min(patch.get_y() for patch in patches) > 0
    corners = {(round(patch.get_x(), 3), round(patch.get_y(), 3)) for patch in patches}
    assert len(corners) == 120


def test_comparison_draws_every_seed_and_the_mean_of_several():
    figure = plot_comparison(make_comparison((0.951, 0.955), (0.92,)), "macro_accuracy", True)
    axes = figure.axes[0]
    assert axes.xaxis.label.get_text() == (
        "test macro accuracy (higher is better; point: one seed, bar: mean, line: 95 % interval)"
    )
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "linear probe\ntrains 0.4 %",
        "full fine-tuning\ntrains 100 %",
        "BioTune\ntrains 64.6 %",
    ]
    assert set(gids(axes)) == {
        *("seeds-0", "mean-0", "interval-0"),
        "seeds-1",
        *("seeds-2", "mean-2", "interval-2"),
    }
    assert artist(axes, "seeds-2").get_offsets().tolist() == [[0.951, 2], [0.955, 2]]
    assert artist(axes, "mean-2").get_offsets()[0, 0] == pytest.approx(0.953)
    assert {"0.953", "0.920"} <= {text.get_text() for text in axes.texts}


def test_comparison_names_a_method_whose_every_seed_failed():
    axes = plot_comparison(make_comparison((0.9,), (math.nan,), (0.8,))).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.800", "no score", "0.900"]


def test_labels_of_long_names_keep_what_tells_them_apart():
    names = ["stem", *(f"encoder.layer.{i}.attention" for i in range(12))]
    short = labels(names, longest=16)
    assert short[:2] == ["stem", "…0.attention"]
    assert short[12] == "…11.attention"
    same = labels(["a" * 20 + "x" * 20 + "a" * 20, "a" * 20 + "y" * 20 + "a" * 20], longest=11)
    assert same == ["0…aaa…aaaaa", "1…aaa…aaaaa"]


def test_a_label_is_one_printable_line():
    assert label("a\nb\x00c") == "a b c"
    assert label("a" * 30, longest=9) == "aaaa…aaaa"


@pytest.mark.parametrize("multiplier", np.logspace(-1, 1, 21))
def test_text_on_any_rate_colour_has_a_contrast_of_four_and_a_half(multiplier):
    def luminance(colour):
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear))

    colour = rate_colour(multiplier)
    pair = sorted([luminance(colour), luminance(text_colour_on(colour))])
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_figures_are_the_same_every_time_and_whatever_the_users_style_is():
    history, partition = make_history(make_partition(), winner=WINNER), make_partition()

    def draw():
        return [
            png(plot_blocks(partition, WINNER)),
            png(plot_individuals(history, partition, WINNER)),
        ]

    first = draw()
    with matplotlib.rc_context({"font.size": 30}):
        rc = dict(matplotlib.rcParams)
        second = [plot_blocks(partition, WINNER), plot_individuals(history, partition, WINNER)]
        assert dict(matplotlib.rcParams) == rc
    assert draw() == first
    assert second[0].axes[0].texts[0].get_size() == 8.0


def test_the_interval_over_seeds_is_a_line_and_one_seed_has_none():
    comparison = make_comparison((0.95, 0.96, 0.97), (0.92,))
    axes = plot_comparison(comparison, "accuracy", True).axes[0]
    lines = {line.get_gid(): line for line in axes.get_lines() if line.get_gid()}
    assert set(lines) == {"interval-0", "interval-2"}
    low, high = lines["interval-2"].get_xdata()
    assert (low, high) == pytest.approx((0.96 - 0.0248, 0.96 + 0.0248), abs=1e-4)


def test_importances_are_bars_in_the_order_given_of_at_most_twenty_blocks():
    importances = pd.Series([0.6, 0.3, 0.1], index=["layer4", "head", "stem"])
    axes = plot_importances(importances).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.6, 0.3, 0.1]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["layer4", "head", "stem"]
    assert [text.get_text() for text in axes.texts] == ["60.0 %", "30.0 %", "10.0 %"]
    many = pd.Series([1 / 30] * 30, index=[f"layer{i}" for i in range(30)])
    axes = plot_importances(many).axes[0]
    assert len(axes.patches) == 20
    assert axes.get_xlabel() == "importance (10 further blocks are not shown)"


def test_the_knee_of_the_front_is_marked_where_the_individual_is():
    history = make_history(make_partition(), winner=WINNER)
    axes = plot_pareto(history, True, "accuracy", knee=29).axes[0]
    row = history[history.trial == 29].iloc[0]
    assert artist(axes, "knee").get_offsets().tolist() == [[row.trained_parameters, row.score]]
    assert "knee" not in gids(plot_pareto(history, True, "accuracy").axes[0])
