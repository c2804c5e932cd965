"""The course of the search: every individual, and best and median of each generation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from .. import numbers
from ..summary import Generation, comparable, generations
from .style import CARD, FAINT, INK, MUTED, is_narrow, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd

MANY_INDIVIDUALS = 300
FOLD_MARKERS = ("o", "s", "^", "D", "v", "P")


@styled
def plot_evolution(
    history: pd.DataFrame, greater_is_better: bool, metric: str, *, width: float = 8.0
) -> Figure:
    """Draw the scores of all individuals, with best and median of each generation.

    Scores can be compared within one fold only: every fold has lines and a marker of its own.
    Pruned individuals were scored early and take no part in best and median. Up to 300 individuals
    have a bar each for the standard deviation between their seeds, if they had several.

    Args:
        history: as in [`ReportData`].
        greater_is_better: whether a greater score is a better one.
        metric: name of the score.
        width: of the figure, in inches.

    Returns:
        The figure. Its axes hold one scatter per state and fold, and two lines per fold.
    """
    figure = new_figure(width, 3.6 if is_narrow(width) else 4.0)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    summaries = generations(history, greater_is_better)
    folds = sorted({summary.fold for summary in summaries})
    x = positions(history)
    for index, fold in enumerate(folds):
        marker = FOLD_MARKERS[index % len(FOLD_MARKERS)]
        _draw_individuals(axes, history, x, fold, marker)
        _draw_lines(axes, [s for s in summaries if s.fold == fold], marker)
    _draw_scoreless(axes, history, x)
    direction = "higher" if greater_is_better else "lower"
    separator = "\n" if is_narrow(width) else " "
    axes.set_ylabel(f"validation {numbers.metric_name(metric)}{separator}({direction} is better)")
    _label_generations(axes, history)
    axes.grid(axis="y")
    handles = _legend_handles(axes, folds)
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=3 if is_narrow(width) else 7)
    return figure


def positions(history: pd.DataFrame) -> np.ndarray:
    """Where individuals stand: the generation, spread out so that points don't cover points.

    Args:
        history: in the order of evaluation.
    """
    generation = history["generation"].to_numpy(dtype=float)
    place = history.groupby("generation").cumcount().to_numpy(dtype=float)
    size = history.groupby("generation")["generation"].transform("size").to_numpy(dtype=float)
    return np.asarray(generation + 0.6 * ((place + 0.5) / np.maximum(size, 1) - 0.5))


def _draw_individuals(
    axes: Any, history: pd.DataFrame, x: np.ndarray, fold: int, marker: str
) -> None:
    here = (history["fold"] == fold).to_numpy()
    scores = history["score"].to_numpy(dtype=float)
    full = here & comparable(history).to_numpy()
    early = here & (history["state"] == "pruned").to_numpy() & np.isfinite(scores)
    if full.any():
        size = 14 if len(history) <= MANY_INDIVIDUALS else 6
        axes.scatter(
            x[full], scores[full], s=size, marker=marker, color=FAINT, alpha=0.8, linewidths=0,
            label="individual", gid=f"individuals-fold-{fold}",
        )  # fmt: skip
    spread = history["score_std"].to_numpy(dtype=float)
    spread = np.where(full & (spread > 0), spread, 0.0)
    if spread.any() and len(history) <= MANY_INDIVIDUALS:
        several = spread > 0
        axes.vlines(
            x[several], (scores - spread)[several], (scores + spread)[several], color=FAINT,
            linewidth=0.8, label="± standard deviation of seeds", gid=f"spread-fold-{fold}",
        )  # fmt: skip
    if early.any():
        axes.scatter(
            x[early], scores[early], s=12, marker=marker, facecolors="none", edgecolors=FAINT,
            linewidths=0.7, label="pruned early", gid=f"pruned-fold-{fold}",
        )  # fmt: skip


def _draw_lines(axes: Any, summaries: list[Generation], marker: str) -> None:
    scored = [summary for summary in summaries if summary.scored]
    if not scored:
        return
    x = [summary.generation for summary in scored]
    size = 5 if len(scored) <= 40 else 2.5
    median = [summary.median for summary in scored]
    axes.plot(
        x, median, color=MUTED, linewidth=1.2, linestyle=(0, (4, 2)),
        marker=marker, markersize=size, markerfacecolor=CARD, label="median",
    )  # fmt: skip
    axes.plot(
        x, [summary.best for summary in scored], color=INK, linewidth=2, marker=marker,
        markersize=size, label="best",
    )  # fmt: skip


def _draw_scoreless(axes: Any, history: pd.DataFrame, x: np.ndarray) -> None:
    """What failed, or was stopped before its first score, is marked at the lower edge."""
    missing = ~np.isfinite(history["score"].to_numpy(dtype=float))
    if not missing.any():
        return
    axes.scatter(
        x[missing], np.full(missing.sum(), 0.025), s=16, marker="x", color=MUTED, linewidths=1,
        transform=axes.get_xaxis_transform(), label=f"no score ({missing.sum()})", gid="no-score",
    )  # fmt: skip
    if missing.all():
        axes.set_yticks([])
        axes.text(
            0.5, 0.5, "no individual has a score", transform=axes.transAxes, ha="center",
            va="center", color=MUTED,
        )  # fmt: skip


def _legend_handles(axes: Any, folds: list[int]) -> list[Any]:
    """One entry per kind of mark, and the markers that tell the folds apart, if there are several.

    A table of every kind and every fold would be larger than the figure.
    """
    marks = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    # Lines are drawn last, to lie on top, but matter most.
    order = [*(text for text in ("best", "median") if text in marks), *marks]
    handles = [marks[text] for text in dict.fromkeys(order)]
    if len(folds) > 1:
        for index, marker in enumerate(FOLD_MARKERS[: len(folds)]):
            same = ", ".join(str(fold) for fold in folds[index :: len(FOLD_MARKERS)])
            style: dict[str, Any] = {
                "color": INK,
                "marker": marker,
                "markersize": 5,
                "linestyle": "",
            }
            handles.append(Line2D([], [], label=f"fold {same}", **style))
    return handles


def _label_generations(axes: Any, history: pd.DataFrame) -> None:
    last = history["generation"].max() if len(history) else math.nan
    first = history["generation"].min() if len(history) else math.nan
    if math.isfinite(last):
        axes.set_xlim(first - 0.5, last + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("generation")
