"""Mean ranks of methods on one line, with bars across those that can't be told apart."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from .labels import label
from .style import BODY, FAINT, INK, MUTED, SMALL, new_figure, styled, text_width

_LINE, _CLIQUE_STEP, _MARGIN = 0.26, 0.08, 0.12
_LONGEST = 33


@styled
def plot_critical_difference(
    ranks: Mapping[str, float],
    critical_difference: float,
    cliques: Sequence[Sequence[str]],
    *,
    own: Collection[str] = (),
    caption: str = "",
    width: float = 8.0,
) -> Figure:
    """Draw mean ranks as Demsar does: the best is at the left.

    Args:
        ranks: of each method by its title, 1 the best.
        critical_difference: methods whose ranks differ by less can't be told apart.
        cliques: groups of titles that can't be told apart; each gets a bar.
        own: titles that are set in bold.
        caption: of the axis, such as what was ranked.
        width: of the figure, in inches.

    Returns:
        The figure. Titles stand at the left for the better half and at the right for the others.

    Source: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets (2006), figure 1.
    """
    names = sorted(ranks, key=ranks.__getitem__)
    half = math.ceil(len(names) / 2)
    # Everything is in inches from the lower left corner.
    labels_top = 0.3 + _CLIQUE_STEP * len(cliques)
    axis_y = labels_top + _LINE * half
    height = axis_y + 0.85
    figure = new_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    left, right = _widest(names[:half]), _widest(names[half:])
    line = _RankLine(left + 0.25, width - right - 0.25, max(2, len(names)), axis_y)
    line.draw(axes, caption)
    line.draw_yardstick(axes, critical_difference)
    for position, clique in enumerate(cliques, start=1):
        places = [line.x(ranks[name]) for name in clique]
        y = axis_y - 0.06 - _CLIQUE_STEP * position
        axes.plot(
            [min(places) - 0.05, max(places) + 0.05], [y, y], color=INK, linewidth=3,
            solid_capstyle="butt", gid=f"clique-{position}",
        )  # fmt: skip
    for place, name in enumerate(names):
        is_left = place < half
        row = place if is_left else len(names) - 1 - place
        y = axis_y - labels_top - _LINE * row + 0.05
        edge = left + 0.05 if is_left else width - right - 0.05
        colour = INK if name in own else MUTED
        x = line.x(ranks[name])
        axes.plot([x, x, edge], [axis_y, y, y], color=colour, linewidth=0.9, zorder=1)
        axes.text(
            edge + (-0.06 if is_left else 0.06), y, _label(name, ranks[name], is_left),
            ha="right" if is_left else "left", va="center", color=colour, size=BODY,
            weight="bold" if name in own else "normal",
        )  # fmt: skip
    return figure


def _label(name: str, rank: float, is_left: bool) -> str:
    text = label(name, _LONGEST)
    return f"{text}  {rank:.2f}" if is_left else f"{rank:.2f}  {text}"


def _widest(names: Sequence[str]) -> float:
    """Inches of the longest title with its rank; bold ones are wider than they are measured."""
    widths = [text_width(_label(name, 1.0, True), BODY) for name in names]
    return 1.2 * max(widths, default=0.0) + _MARGIN


@dataclass(frozen=True)
class _RankLine:
    """The axis of ranks, from 1 to the number of methods, in inches."""

    left: float
    right: float
    highest: int
    y: float

    def x(self, rank: float) -> float:
        return self.left + (rank - 1) / (self.highest - 1) * (self.right - self.left)

    def draw(self, axes: Any, caption: str) -> None:
        axes.plot([self.left, self.right], [self.y, self.y], color=FAINT, linewidth=1.0)
        for tick in range(1, self.highest + 1):
            x = self.x(tick)
            axes.plot([x, x], [self.y, self.y + 0.07], color=FAINT, linewidth=1.0)
            axes.text(x, self.y + 0.1, str(tick), ha="center", va="bottom", size=SMALL, color=MUTED)
        text = "mean rank, 1 is best" + (f" ({caption})" if caption else "")
        middle = (self.left + self.right) / 2
        axes.text(middle, self.y + 0.3, text, ha="center", va="bottom", size=SMALL, color=MUTED)

    def draw_yardstick(self, axes: Any, difference: float) -> None:
        """The critical difference; one that is longer than the axis is only written."""
        y, end = self.y + 0.65, self.x(1 + difference)
        fits = end <= self.right
        if fits:
            axes.plot([self.left, end], [y, y], color=INK, linewidth=1.4, gid="yardstick")
            for x in (self.left, end):
                axes.plot([x, x], [y - 0.05, y + 0.05], color=INK, linewidth=1.4)
        axes.text(
            end + 0.08 if fits else self.left, y, f"critical difference {difference:.2f}",
            ha="left", va="center", size=SMALL, color=INK,
        )  # fmt: skip
