import numpy as np
import pytest

from hf_biotune.report.plots import CostPoint, plot_cost, plot_critical_difference
from hf_biotune.report.plots.cost import front_of

RANKS = {"BioTune": 1.5, "full fine-tuning": 2.0, "LoRA": 2.5, "linear probe": 4.0}


def by_gid(axes, gid):
    return [child for child in axes.get_children() if child.get_gid() == gid]


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_ranks_are_drawn_at_their_places_best_at_the_left():
    figure = plot_critical_difference(RANKS, 1.1, [["BioTune", "full fine-tuning", "LoRA"]])
    (axes,) = figure.axes
    for text in ("BioTune  1.50", "full fine-tuning  2.00", "4.00  linear probe", "2.50  LoRA"):
        assert text in texts(axes)
    places = {t.get_text(): t.get_position() for t in axes.texts}
    assert places["BioTune  1.50"][0] < places["4.00  linear probe"][0]


def test_a_clique_is_a_bar_from_its_first_to_its_last_rank():
    axes = plot_critical_difference(RANKS, 1.1, [["BioTune", "LoRA"]]).axes[0]
    (bar,) = by_gid(axes, "clique-1")
    (stick,) = by_gid(axes, "yardstick")
    unit = np.ptp(stick.get_xdata()) / 1.1
    assert np.ptp(bar.get_xdata()) == pytest.approx(1.0 * unit + 0.1)


def test_a_critical_difference_longer_than_the_axis_is_only_written():
    axes = plot_critical_difference(RANKS, 5.0, []).axes[0]
    assert not by_gid(axes, "yardstick")
    assert "critical difference 5.00" in texts(axes)


def test_labels_of_ranks_stay_inside_of_the_figure():
    ranks = {f"a method with quite a long name, number {i}": float(i) for i in range(1, 12)}
    figure = plot_critical_difference(ranks, 2.0, [], own=list(ranks))
    figure.draw_without_rendering()
    frame = figure.bbox
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        assert box.x0 >= frame.x0
        assert box.x1 <= frame.x1


POINTS = [
    CostPoint("linear probe", 0.7, 0.02, 10.0),
    CostPoint("full fine-tuning", 0.8, 0.03, 100.0),
    CostPoint("LoRA", 0.75, float("nan"), 200.0),
    CostPoint("BioTune", 0.9, 0.01, 1000.0),
]


def test_the_front_is_what_nothing_cheaper_beats():
    assert [point.title for point in front_of(POINTS)] == [
        "linear probe",
        "full fine-tuning",
        "BioTune",
    ]


def test_cost_has_a_point_and_a_name_for_each_method():
    axes = plot_cost(POINTS, "macro_accuracy", own=["BioTune"]).axes[0]
    assert sorted(texts(axes)) == sorted(point.title for point in POINTS)
    (front,) = by_gid(axes, "front")
    assert list(front.get_xdata()) == [10.0, 100.0, 1000.0]
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "test macro accuracy (higher is better)"


def test_methods_at_one_place_all_have_a_name():
    points = [CostPoint(f"method {number}", 0.5, 0.1, 5.0) for number in range(4)]
    axes = plot_cost(points, "f1").axes[0]
    assert len(texts(axes)) == 4
