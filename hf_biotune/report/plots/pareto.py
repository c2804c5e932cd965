"""What a score costs in trained parameters: every individual, and those that nothing beats."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from .. import numbers
from ..summary import OWN_METHOD, comparable
from .labels import label
from .style import BODY, CARD, FAINT, INK, MUTED, SMALL, is_narrow, new_figure, styled

if TYPE_CHECKING:
    import pandas as pd


@styled
def plot_pareto(
    history: pd.DataFrame,
    greater_is_better: bool,
    metric: str,
    comparison: pd.DataFrame | None = None,
    *,
    knee: int | None = None,
    width: float = 8.0,
) -> Figure:
    """Draw validation score against the number of trained parameters.

    Args:
        history: as in [`ReportData`]. Pruned and failed individuals are left out, and so are those
            of other folds than the newest, whose scores can't be compared.
        greater_is_better: whether a greater score is a better one.
        metric: name of the score.
        comparison: as in [`ReportData`]; the mean validation score of each method is marked.
            Default: none.
        knee: the number of the individual at which the front bends, which is marked. Default: none.
        width: of the figure, in inches.

    Returns:
        The figure. Its axes hold one scatter of individuals, a line through those for which no
        other trains as few parameters and scores as well, and one scatter of methods.
    """
    figure = new_figure(width, 3.6 if is_narrow(width) else 4.0)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    rows = shown_rows(history)
    sizes = rows["trained_parameters"].to_numpy(dtype=float)
    scores = rows["score"].to_numpy(dtype=float)
    axes.scatter(
        sizes, scores, s=14 if len(rows) <= 300 else 6, color=FAINT, alpha=0.8, linewidths=0,
        label="individual", gid="individuals",
    )  # fmt: skip
    front = pareto_front(sizes, scores, greater_is_better)
    axes.plot(
        sizes[front], scores[front], color=INK, linewidth=1.6, marker="o", markersize=4,
        drawstyle="steps-post", label="no other is as small and as good", gid="front",
    )  # fmt: skip
    _mark_knee(axes, rows.loc[rows["trial"] == knee])
    if comparison is not None:
        _draw_methods(axes, comparison)
    direction = "higher" if greater_is_better else "lower"
    separator = "\n" if is_narrow(width) else " "
    axes.set_ylabel(f"validation {numbers.metric_name(metric)}{separator}({direction} is better)")
    axes.set_xlabel("trained parameters (logarithmic)")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(
        LogLocator(10, subs=(1.0,) if _is_wide(sizes) else (1.0, 2.0, 5.0))
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: numbers.short_count(x)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2 if is_narrow(width) else 0.1, y=0.14)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=1 if is_narrow(width) else 3)
    return figure


def shown_rows(history: pd.DataFrame) -> pd.DataFrame:
    """The individuals that can be compared: with a full score, on the newest fold that has one."""
    rows = history.loc[comparable(history) & (history["trained_parameters"] > 0)]
    if not len(rows):
        return rows
    newest = rows.sort_values(["generation", "trial"], kind="stable")["fold"].iloc[-1]
    found: pd.DataFrame = rows.loc[rows["fold"] == newest]
    return found


def pareto_front(sizes: np.ndarray, scores: np.ndarray, greater_is_better: bool) -> np.ndarray:
    """The individuals for which no other is as small and as good, smallest first.

    Args:
        sizes: trained parameters, shape (n,).
        scores: shape (n,).
        greater_is_better: whether a greater score is a better one.

    Returns:
        Their positions.

    Example:
        >>> pareto_front(np.array([3, 1, 2]), np.array([0.9, 0.7, 0.6]), True).tolist()
        [1, 0]
    """
    quality = scores if greater_is_better else -scores
    front: list[int] = []
    for index in np.lexsort((-quality, sizes)):
        if not front or quality[index] > quality[front[-1]]:
            front.append(int(index))
    return np.array(front, dtype=int)


def _is_wide(sizes: np.ndarray) -> bool:
    return bool(len(sizes)) and sizes.max() / sizes.min() > 100


def _mark_knee(axes: Any, row: pd.DataFrame) -> None:
    if not len(row):
        return
    place = float(row["trained_parameters"].iloc[0]), float(row["score"].iloc[0])
    axes.scatter(
        *place, s=120, marker="o", facecolors="none", edgecolors=INK, linewidths=1.2, zorder=4,
        gid="knee",
    )  # fmt: skip
    axes.annotate(
        "knee", place, xytext=(8, -8), textcoords="offset points", ha="left", va="top", size=SMALL,
        color=INK,
    )  # fmt: skip


def _draw_methods(axes: Any, comparison: pd.DataFrame) -> None:
    for record in comparison.to_dict("records"):
        scores = numbers.finite(record["validation_scores"])
        if not scores or record["trained_parameters"] <= 0:
            continue
        place = (float(record["trained_parameters"]), statistics.fmean(scores))
        own = record["method"] == OWN_METHOD
        axes.scatter(
            *place, s=46, marker="D", facecolors=INK if own else CARD, edgecolors=INK,
            linewidths=1.2, zorder=3,
        )  # fmt: skip
        axes.annotate(
            label(record["method"]), place, xytext=(0, 7 if own else -7),
            textcoords="offset points", ha="center", va="bottom" if own else "top",
            size=BODY if own else SMALL, color=INK if own else MUTED,
            weight="bold" if own else "normal",
        )  # fmt: skip
