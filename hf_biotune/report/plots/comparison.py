"""The methods side by side on the test set, one point per seed."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from .. import numbers
from ..summary import OWN_METHOD
from .labels import label
from .style import BODY, CARD, FAINT, INK, MUTED, is_narrow, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd


@styled
def plot_comparison(
    comparison: pd.DataFrame,
    metric: str = "score",
    greater_is_better: bool | None = None,
    *,
    width: float = 8.0,
) -> Figure:
    """Draw the test scores of each method, with the share of parameters that it trains.

    Args:
        comparison: as in [`ReportData`].
        metric: name of the score.
        greater_is_better: whether a greater score is a better one; `None` leaves it unsaid.
        width: of the figure, in inches.

    Returns:
        The figure. Its axes hold one scatter of seeds per method and, for two or more seeds, one
        of their mean and a line, the 95 % t-interval. One seed has no interval.
    """
    figure = new_figure(width, 1.0 + 0.62 * max(1, len(comparison)))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    several = False
    for row, record in enumerate(comparison.to_dict("records")):
        scores = numbers.finite(record["test_scores"])
        several |= len(scores) > 1
        _draw_method(axes, row, scores, record["method"] == OWN_METHOD)
    labels = [
        f"{label(method)}\ntrains {numbers.share(share)}"
        for method, share in zip(comparison["method"], comparison["trained_share"], strict=True)
    ]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(max(1, len(labels)) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=BODY, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.08)
    axes.grid(axis="x")
    axes.set_xlabel(_x_label(metric, greater_is_better, several, width))
    return figure


def _draw_method(axes: Any, row: int, scores: list[float], own: bool) -> None:
    """The scores of one method; only a mean of two or more gets a mark of its own."""
    axes.axhline(row, color=FAINT, linewidth=0.5, zorder=0)
    if not scores:
        axes.text(
            0.5, row - 0.05, "no score", transform=axes.get_yaxis_transform(), ha="center",
            va="bottom", color=MUTED,
        )  # fmt: skip
        return
    colour = INK if own else MUTED
    mean = statistics.fmean(scores)
    axes.scatter(
        scores, [row] * len(scores), s=34, facecolors=colour if own else CARD, edgecolors=colour,
        linewidths=1.2, alpha=1 if len(scores) == 1 else 0.6, gid=f"seeds-{row}",
    )  # fmt: skip
    if len(scores) > 1:
        axes.scatter(
            [mean], [row], s=320, marker="|", color=colour, linewidths=2.4, gid=f"mean-{row}"
        )
        reach = numbers.half_width(scores)
        axes.plot(
            [mean - reach, mean + reach], [row, row], color=colour, linewidth=1.2, alpha=0.6,
            solid_capstyle="butt", zorder=1, gid=f"interval-{row}",
        )  # fmt: skip
    axes.annotate(
        numbers.score(mean), (mean, row), xytext=(0, 10), textcoords="offset points", ha="center",
        va="bottom", color=colour, weight="bold" if own else "normal",
    )  # fmt: skip


def _x_label(metric: str, greater_is_better: bool | None, several: bool, width: float) -> str:
    text = f"test {numbers.metric_name(metric)}"
    notes = []
    if greater_is_better is not None:
        notes.append(f"{'higher' if greater_is_better else 'lower'} is better")
    notes.append("point: one seed, bar: mean, line: 95 % interval" if several else "one seed each")
    if is_narrow(width):
        return "\n".join([text, *notes])
    return f"{text} ({'; '.join(notes)})"
