"""Which blocks matter: how much of what scores depend on belongs to each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from .. import numbers
from .labels import labels
from .style import BODY, FAINT, INK, MUTED, is_narrow, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd

MANY_BLOCKS = 20


@styled
def plot_importances(importances: pd.Series[float], *, width: float = 8.0) -> Figure:
    """Draw the importance of each block as a bar, in the order given.

    Args:
        importances: by block, with sum 1; see [`SearchResult.block_importances`]. Of more than 20
            blocks the first 20 are drawn.
        width: of the figure, in inches.

    Returns:
        The figure. Its axes hold one bar a block.
    """
    shown = importances.iloc[:MANY_BLOCKS]
    figure = new_figure(width, 0.7 + 0.24 * max(1, len(shown)))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    rows = range(len(shown))
    axes.barh(rows, shown.to_numpy(), height=0.62, color=FAINT)
    for row, value in zip(rows, shown, strict=True):
        axes.annotate(
            numbers.share(value), (value, row), xytext=(4, 0), textcoords="offset points",
            va="center", color=MUTED,
        )  # fmt: skip
    names = labels([str(name) for name in shown.index], 14 if is_narrow(width) else 24)
    axes.set_yticks(rows, names)
    axes.set_ylim(max(1, len(shown)) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=BODY, labelcolor=INK)
    axes.spines["left"].set_visible(False)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    more = len(importances) - len(shown)
    axes.set_xlabel("importance" + (f" ({more} further blocks are not shown)" if more else ""))
    return figure
