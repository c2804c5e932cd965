"""All individuals of the search at a glance: which blocks each one trained, and how fast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from ...blocks import Partition
from .. import numbers
from ..summary import find_winner, multipliers_of
from .labels import labels
from .style import (
    CARD,
    FROZEN,
    HATCH,
    HATCH_COLOUR,
    INK,
    MUTED,
    RATE_MAP,
    RATE_NORM,
    SMALL,
    add_axes,
    add_rate_key,
    is_narrow,
    new_figure,
    styled,
    text_width,
)

if TYPE_CHECKING:
    import pandas as pd

LONGEST_HEIGHT = 9.0
KEY_HEIGHT = 1.08


@styled
def plot_individuals(
    history: pd.DataFrame,
    partition: Partition,
    best_multipliers: Mapping[str, float] | None = None,
    *,
    width: float = 8.0,
) -> Figure:
    """Draw a heat map of individuals (columns, by generation) and blocks (rows, input on top).

    Args:
        history: as in [`ReportData`].
        partition: the blocks of the model.
        best_multipliers: the winner, whose first evaluation is marked.
        width: of the figure, in inches.

    Returns:
        The figure. Its first axes hold the image; NaN in it means that the block is frozen.
    """
    rows = history.sort_values(["generation", "trial"], kind="stable").reset_index(drop=True)
    n_blocks, n_rows = len(partition), len(rows)
    names = labels(partition.names, 14 if is_narrow(width) else 24)
    left = max(text_width(name, SMALL) for name in names) + 0.18
    height = min(LONGEST_HEIGHT, max(0.6, 0.2 * n_blocks))
    figure = new_figure(width, height + KEY_HEIGHT + 0.35)
    # Half an inch a column is enough for a search of few individuals.
    map_width = min(width - left - 0.12, max(2.2, 0.5 * n_rows))
    axes = add_axes(figure, left, KEY_HEIGHT, map_width, height)
    axes.patch.set(facecolor=FROZEN, hatch=HATCH, **HATCH_COLOUR)
    image = np.ma.masked_invalid(multipliers_of(rows, partition.names).T)
    axes.imshow(
        image, cmap=RATE_MAP, norm=RATE_NORM, aspect="auto", interpolation="none",
        extent=(-0.5, max(n_rows, 1) - 0.5, n_blocks - 0.5, -0.5),
    )  # fmt: skip
    axes.spines[:].set_visible(False)
    _label_blocks(axes, names, height)
    _separate(axes, rows, n_blocks, map_width, height)
    scoreless = _mark_scoreless(axes, rows, n_blocks)
    notes = [] if is_narrow(width) else ["one column per individual"]
    notes += [f"{numbers.TIMES} no score"] if scoreless else []
    axes.set_xlabel(f"generation ({', '.join(notes)})" if notes else "generation", loc="left")
    if best_multipliers is not None:
        _mark_winner(axes, find_winner(rows, partition.names, best_multipliers), n_rows, n_blocks)
    add_rate_key(figure, left, 0.02)
    return figure


def _label_blocks(axes: Any, names: list[str], height: float) -> None:
    """Name as many rows as there is room for."""
    step = max(1, math.ceil(0.14 * len(names) / height))
    axes.set_yticks(range(0, len(names), step), names[::step])
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def _separate(
    axes: Any, rows: pd.DataFrame, n_blocks: int, map_width: float, height: float
) -> None:
    """Gaps between cells where they are large enough, and wider ones between generations."""
    columns = max(1, len(rows))
    if map_width / columns > 0.06:
        axes.vlines(np.arange(columns - 1) + 0.5, -0.5, n_blocks - 0.5, color=CARD, linewidth=0.6)
    if height / n_blocks > 0.1:
        axes.hlines(np.arange(n_blocks - 1) + 0.5, -0.5, columns - 0.5, color=CARD, linewidth=1)
    sizes = rows.groupby("generation").size()
    ends = sizes.cumsum().to_numpy()
    starts = ends - sizes.to_numpy()
    thin = map_width / max(1, len(sizes)) < 0.15
    axes.vlines(
        ends[:-1] - 0.5, -0.5, n_blocks - 0.5, color=CARD, linewidth=0.8 if thin else 3,
        label="generations",
    )  # fmt: skip
    middles = (starts + ends - 1) / 2
    room = 0.28 * columns / map_width
    shown: list[int] = []
    for index, middle in enumerate(middles):
        if not shown or middle - middles[shown[-1]] >= room:
            shown.append(index)
    axes.set_xticks(middles[shown], [str(sizes.index[index]) for index in shown])
    axes.tick_params(axis="x", length=0, pad=8)


def _mark_scoreless(axes: Any, rows: pd.DataFrame, n_blocks: int) -> bool:
    """Mark the columns without a score, and tell whether there are any."""
    missing = np.flatnonzero(~np.isfinite(rows["score"].to_numpy(dtype=float)))
    if not missing.size:
        return False
    axes.scatter(
        missing, [n_blocks - 0.5] * missing.size, s=10, marker="x", color=MUTED, linewidths=0.9,
        clip_on=False, transform=axes.transData + _points_down(axes, 5), gid="no-score",
    )  # fmt: skip
    return True


def _mark_winner(axes: Any, position: int | None, n_rows: int, n_blocks: int) -> None:
    if position is None:
        return
    axes.vlines(
        [position - 0.5, position + 0.5], -0.5, n_blocks - 0.5, color=INK, linewidth=1.1,
        clip_on=False, label="winner",
    )  # fmt: skip
    axes.scatter(
        [position], [-0.5], s=26, marker="v", color=INK, clip_on=False, linewidths=0,
        transform=axes.transData + _points_down(axes, -5), gid="winner",
    )  # fmt: skip
    right = position > 0.8 * n_rows
    axes.annotate(
        "winner", (position, -0.5), xytext=(-6 if right else 6, 2), textcoords="offset points",
        ha="right" if right else "left", va="bottom", size=SMALL, annotation_clip=False,
    )  # fmt: skip


def _points_down(axes: Any, points: float) -> Any:
    return ScaledTranslation(0, -points / 72, axes.figure.dpi_scale_trans)
