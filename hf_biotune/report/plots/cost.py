"""Score against cost: what each method achieves, and what it takes to get there."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from .. import numbers
from .labels import label
from .style import CARD, FAINT, INK, MUTED, SMALL, new_figure, styled


@dataclass(frozen=True)
class CostPoint:
    """One method.

    Args:
        title: of the method.
        score: its mean.
        half_width: of the interval around it; NaN for none.
        seconds: of tuning and of one final run together, greater than 0.
    """

    title: str
    score: float
    half_width: float
    seconds: float


@styled
def plot_cost(
    points: Sequence[CostPoint],
    metric: str,
    device: str = "CPU",
    *,
    own: Collection[str] = (),
    width: float = 8.0,
) -> Figure:
    """Draw scores over seconds, with the line of those that nothing cheaper beats.

    Args:
        points: one per method.
        metric: name of the score, of which more is better.
        device: whose seconds they are.
        own: titles that stand out.
        width: of the figure, in inches.

    Returns:
        The figure: each method a point with the interval of its mean, cost on a logarithmic axis.
    """
    figure = new_figure(width, 0.62 * width)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    ordered = sorted(points, key=lambda point: point.seconds)
    front = front_of(ordered)
    axes.plot(
        [point.seconds for point in front], [point.score for point in front],
        color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, gid="front",
    )  # fmt: skip
    for point in ordered:
        _draw_point(axes, point, point.title in own)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g} s")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12, y=0.14)
    axes.grid(axis="both")
    _label_points(figure, axes, ordered, own)
    axes.set_xlabel(f"{device} time of tuning and one final training (log scale)")
    axes.set_ylabel(f"test {numbers.metric_name(metric)} (higher is better)")
    return figure


def front_of(points: Sequence[CostPoint]) -> list[CostPoint]:
    """The methods that score more than every cheaper one.

    Args:
        points: sorted by seconds.
    """
    front: list[CostPoint] = []
    for point in points:
        if not front or point.score > front[-1].score:
            front.append(point)
    return front


def _draw_point(axes: Any, point: CostPoint, own: bool) -> None:
    colour = INK if own else MUTED
    if point.half_width == point.half_width:
        axes.plot(
            [point.seconds, point.seconds],
            [point.score - point.half_width, point.score + point.half_width],
            color=colour, linewidth=1.1, alpha=0.55, zorder=2,
        )  # fmt: skip
    axes.scatter(
        [point.seconds], [point.score], s=52 if own else 36, marker="D" if own else "o",
        facecolors=colour if own else CARD, edgecolors=colour, linewidths=1.3, zorder=3,
    )  # fmt: skip


def _label_points(
    figure: Figure, axes: Any, points: Sequence[CostPoint], own: Collection[str]
) -> None:
    """A name beside each point: on the first side where it lies on no other name or point."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = [
        _box_around(axes.transData.transform((point.seconds, point.score)), 5) for point in points
    ]
    for point in points:
        sides = [
            (8, 0, "left", "center"),
            (-8, 0, "right", "center"),
            (8, 10, "left", "bottom"),
            (8, -10, "left", "top"),
            (-8, 10, "right", "bottom"),
            (-8, -10, "right", "top"),
            (0, 18, "center", "bottom"),
            (0, -18, "center", "top"),
        ]
        for x, y, horizontal, vertical in sides:
            text = axes.annotate(
                label(point.title, 34), (point.seconds, point.score), xytext=(x, y),
                textcoords="offset points", ha=horizontal, va=vertical, size=SMALL,
                color=INK if point.title in own else MUTED,
                weight="bold" if point.title in own else "normal",
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            own_box = _box_around(axes.transData.transform((point.seconds, point.score)), 5)
            is_free = not any(box.overlaps(other) for other in taken if not _equal(other, own_box))
            if (
                is_free
                and axes.bbox.padded(-2).contains(box.x0, box.y0)
                and axes.bbox.contains(box.x1, box.y1)
            ):
                taken.append(box)
                break
            if (x, y, horizontal, vertical) != sides[-1]:
                text.remove()


def _box_around(place: Any, radius: float) -> Bbox:
    x, y = place
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _equal(first: Any, second: Any) -> bool:
    return bool((first.extents == second.extents).all())
