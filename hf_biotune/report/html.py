"""The report as files: `report.html`, which needs nothing beside it, and its figures as PNG."""

from __future__ import annotations

import base64
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..hub import FIGURES
from . import hotspots, numbers, page, summary, tables
from .plots import (
    plot_blocks,
    plot_comparison,
    plot_evolution,
    plot_importances,
    plot_individuals,
    plot_pareto,
    style,
)
from .plots.pareto import shown_rows
from .predictions import confusions, mistakes
from .stored import save_report_data
from .svg import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .data import ReportData

WIDE, NARROW = 8.0, 4.0
PNG_DPI = 200
NORM_STATISTICS = {
    "epoch": "averages of each epoch in trained blocks, kept in frozen ones",
    "train": "updated during training in trained blocks, kept in frozen ones",
    "frozen": "kept as pre-trained in every block",
}


@dataclass(frozen=True)
class _Figure:
    """A figure of the page.

    Args:
        draw: draws it, given a width in inches.
        description: what it shows, for those who can't see it.
        places: where it can be pointed at, when it is drawn; `None`: nowhere.
        said: what is said there, as the page's script takes it.
    """

    draw: Callable[[float], Figure]
    description: str
    places: Callable[[Figure], list[Any]] | None = None
    said: Mapping[str, Any] = field(default_factory=dict)


def write_report(directory: str | os.PathLike[str], data: ReportData, *, keep: bool = True) -> Path:
    """Write `report.html` and the figures that exist, as PNG, into a directory.

    What they were made of is kept as `report.json`, for [`load_report_data`].

    Args:
        directory: made if it does not exist; files of an earlier report are replaced or removed.
        data: what to report.
        keep: whether `report.json` is written. Default: `True`.

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
    if keep:
        save_report_data(directory, data)
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
            lambda figure: hotspots.block_boxes(figure, len(partition)),
            {"texts": hotspots.block_texts(data)},
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
        order = hotspots.in_order(history)
        figures["evolution"] = _Figure(
            lambda width: plot_evolution(history, greater, metric, width=width),
            f"Scores by generation. {summary.census(history)} The table below holds the numbers.",
            lambda figure: hotspots.individual_points(figure, data),
            {"rows": list(range(len(order)))},
        )
        figures["individuals"] = _Figure(
            lambda width: plot_individuals(history, partition, winner, width=width),
            "Which blocks each individual trained, and at which multiplier, in the order of "
            f"generations. The winner trains {trained}.",
            hotspots.map_box,
            {"map": True},
        )
        compared = shown_rows(order)
        if len(compared):
            figures["pareto"] = _Figure(
                lambda width: plot_pareto(
                    history, greater, metric, comparison, knee=tables.knee_of(data), width=width
                ),
                "Validation score against trained parameters; the table of individuals holds the "
                "numbers.",
                lambda figure: hotspots.size_points(figure, compared),
                {"rows": compared.index.tolist()},
            )
    if comparison is not None and len(comparison):
        scores = "; ".join(
            f"{name} {numbers.score_of_seeds(values)}"
            for name, values in summary.test_scores(comparison).items()
        )
        figures["comparison"] = _Figure(
            lambda width: plot_comparison(comparison, metric, greater, width=width),
            f"Test scores by method: {scores}.",
            lambda figure: hotspots.seed_points(figure, comparison),
            {"texts": hotspots.seed_texts(comparison)},
        )
    return figures


@dataclass(frozen=True)
class _Drawn:
    """A figure as it is put on the page: for wide and for narrow screens."""

    wide: Markup
    narrow: Markup
    pointed: Mapping[str, Any]


def _write_figure(directory: Path, name: str, figure: _Figure) -> _Drawn:
    """Write one figure as PNG, and give it as SVG for wide and narrow screens."""
    wide, narrow = figure.draw(WIDE), figure.draw(NARROW)
    # The SVG is ours and its text is escaped by matplotlib: it is markup, not a stranger's text.
    drawn = {
        kind: Markup(inline_svg(one, f"{name}-{kind}", figure.description))
        for kind, one in (("wide", wide), ("narrow", narrow))
    }
    # What is laid out once stays so: it costs as much as drawing.
    wide.set_layout_engine("none")
    with style.drawing():
        wide.savefig(
            directory / f"{name}.png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None}
        )
    pointed: dict[str, Any] = {}
    if figure.places is not None:
        # Only now is the layout known.
        pointed = {**figure.said, "wide": figure.places(wide), "narrow": figure.places(narrow)}
    return _Drawn(drawn["wide"], drawn["narrow"], pointed)


def _script_data(data: ReportData, figures: Mapping[str, _Drawn]) -> dict[str, Any]:
    """What the page's script knows."""
    return {
        "blocks": list(data.partition.names),
        "trials": [int(trial) for trial in hotspots.in_order(data.history)["trial"]],
        "individuals": hotspots.individual_texts(data),
        "multipliers": hotspots.multipliers(data),
        "figures": {name: drawn.pointed for name, drawn in figures.items() if drawn.pointed},
    }


def _breakable(name: str) -> Markup:
    """A dotted name that may continue on the next line after a dot."""
    return Markup.escape(name).replace(".", Markup(".<wbr>"))


def _render(data: ReportData, figures: Mapping[str, _Drawn]) -> str:
    environment = Environment(
        loader=PackageLoader("hf_biotune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (files("hf_biotune.report") / "templates" / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    predictions = data.predictions
    individuals = page.individual_rows(data)
    position = summary.winner_of(data)
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
        front_columns=tables.FRONT_COLUMNS,
        front_rows=tables.front_rows(data),
        lineage_columns=tables.LINEAGE_COLUMNS,
        lineage_rows=tables.lineage_rows(data),
        figures=figures,
        # Ours, and the page allows no other: its digest is in the policy.
        script=Markup(script),
        script_digest=digest,
        script_data=_script_data(data, figures),
        individual_columns=page.INDIVIDUAL_COLUMNS,
        individual_rows=individuals,
        strips=defaultdict(lambda: page.UNKNOWN, {str(row.trial): row for row in individuals}),
        fates=page.fates(data.history),
        matrix=page.matrix_rows(predictions) if predictions else None,
        confusions=confusions(predictions) if predictions else [],
        mistakes=mistakes(predictions) if predictions else [],
        count=numbers.count,
        share=numbers.share,
        score=numbers.score,
        bind=numbers.bind,
        breakable=_breakable,
    )
