"""The report as files: `report.html`, which needs nothing beside it, and its figures as PNG."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from . import numbers, summary, tables
from .plots import (
    plot_blocks,
    plot_comparison,
    plot_evolution,
    plot_importances,
    plot_individuals,
    style,
)
from .svg import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .data import ReportData

WIDE, NARROW = 8.0, 4.0
PNG_DPI = 200
FIGURES = ("blocks", "importances", "evolution", "individuals", "comparison")
NORM_STATISTICS = {
    "train": "updated during training in trained blocks, kept in frozen ones",
    "frozen": "kept as pre-trained in every block",
}


@dataclass(frozen=True)
class _Figure:
    """A figure of the page.

    Args:
        draw: draws it, given a width in inches.
        description: what it shows, for those who can't see it.
    """

    draw: Callable[[float], Figure]
    description: str


def write_report(directory: str | os.PathLike[str], data: ReportData) -> Path:
    """Write `report.html` and the figures that exist, as PNG, into a directory.

    Args:
        directory: made if it does not exist; files of an earlier report are replaced or removed.
        data: what to report.

    Returns:
        The path of `report.html`.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    figures = _figures(data)
    drawn = {name: _write_figure(directory, name, figure) for name, figure in figures.items()}
    for name in FIGURES:
        if name not in figures:
            # A figure of an earlier report must not pass for one of this report.
            (directory / f"{name}.png").unlink(missing_ok=True)
    path = directory / "report.html"
    path.write_text(_render(data, drawn), encoding="utf-8")
    return path


def _figures(data: ReportData) -> dict[str, _Figure]:
    history, metric, greater = data.history, data.metric, data.greater_is_better
    partition, winner, comparison = data.partition, data.best_multipliers, data.comparison
    trained = f"{len(winner)} of {len(partition)} blocks"
    figures = {
        "blocks": _Figure(
            lambda width: plot_blocks(partition, winner, width=width),
            f"The blocks from input to output. {trained} are trained; the table lists them.",
        )
    }
    importances = data.importances
    if importances is not None and len(importances):
        shares = ", ".join(f"{name} {numbers.share(x)}" for name, x in importances.items())
        figures["importances"] = _Figure(
            lambda width: plot_importances(importances, width=width),
            f"How much each block matters for the score: {shares}.",
        )
    if len(history):
        figures["evolution"] = _Figure(
            lambda width: plot_evolution(history, greater, metric, width=width),
            f"Scores by generation. {summary.census(history)} The table below holds the numbers.",
        )
        figures["individuals"] = _Figure(
            lambda width: plot_individuals(history, partition, winner, width=width),
            "Which blocks each individual trained, and at which multiplier, in the order of "
            f"generations. The winner trains {trained}.",
        )
    if comparison is not None and len(comparison):
        scores = "; ".join(
            f"{name} {numbers.score_of_seeds(values)}"
            for name, values in summary.test_scores(comparison).items()
        )
        figures["comparison"] = _Figure(
            lambda width: plot_comparison(comparison, metric, greater, width=width),
            f"Test scores by method: {scores}.",
        )
    return figures


def _write_figure(directory: Path, name: str, figure: _Figure) -> dict[str, Markup | str]:
    """Write one figure as PNG, and give it as SVG for wide and narrow screens."""
    wide, narrow = figure.draw(WIDE), figure.draw(NARROW)
    with style.drawing():
        wide.savefig(
            directory / f"{name}.png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None}
        )
    # The SVG is ours and its text is escaped by matplotlib: it is markup, not a stranger's text.
    return {
        "wide": Markup(inline_svg(wide, f"{name}-wide", figure.description)),
        "narrow": Markup(inline_svg(narrow, f"{name}-narrow", figure.description)),
    }


def _breakable(name: str) -> Markup:
    """A dotted name that may continue on the next line after a dot."""
    return Markup.escape(name).replace(".", Markup(".<wbr>"))


def _render(data: ReportData, figures: dict[str, dict[str, Markup | str]]) -> str:
    environment = Environment(
        loader=PackageLoader("hf_biotune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    position = summary.find_winner(data.history, data.partition.names, data.best_multipliers)
    return environment.get_template("report.html.j2").render(
        data=data,
        metric=numbers.metric_name(data.metric),
        headline=summary.headline(data),
        norm_statistics=NORM_STATISTICS.get(data.norm_statistics, data.norm_statistics),
        winner_rows=tables.winner_rows(data),
        winner_total=tables.winner_total(data),
        has_rates=tables.base_rate(data) is not None,
        winner=None if position is None else data.history.iloc[position],
        census=summary.census(data.history) if len(data.history) else None,
        generations=summary.generations(data.history, data.greater_is_better),
        comparison_columns=tables.COMPARISON_COLUMNS,
        comparison_rows=tables.comparison_rows(data.comparison)
        if data.comparison is not None
        else [],
        own_method=summary.OWN_METHOD,
        finalist_columns=tables.FINALIST_COLUMNS,
        finalist_rows=tables.finalist_rows(data),
        lineage_columns=tables.LINEAGE_COLUMNS,
        lineage_rows=tables.lineage_rows(data),
        figures=figures,
        score=numbers.score,
        bind=numbers.bind,
        breakable=_breakable,
    )
