"""What a comparison leaves behind: JSON, CSV, Markdown and LaTeX tables, and two plots."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ..report import numbers
from ..report.plots import CostPoint, plot_cost, plot_critical_difference
from ..report.tables import markdown_table
from .scores import SCORE_NAMES
from .standings import MethodRecord, Standings
from .units import write_whole

OWN_METHODS = ("biotune", "biotune-ensemble")
RESULTS_NAME = "results.json"
SCORE_TITLES = ("Macro accuracy", "Accuracy", "F1", "Kappa", "Average precision")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    numbers.NONE: "--",
}


def write_outputs(standings: Standings, directory: str | Path) -> None:
    """Write everything that there is to see of a comparison.

    `results.json` holds everything, every run included. `table.csv`, `table.md` and `table.tex` are
    the methods side by side, `tests.csv` and `tests.md` every two of them.
    `critical_difference.png` and `cost.png` (and `.svg`) are drawn if two methods have results.

    Args:
        standings: the result of [`compare`].
        directory: made if needed.
    """
    directory = Path(directory)
    text = json.dumps(without_nan(standings.to_dict()), indent=1, allow_nan=False)
    write_whole(directory / RESULTS_NAME, text)
    write_whole(directory / "table.csv", standings.table.to_csv(index=False).rstrip())
    write_whole(directory / "table.md", markdown_table(table_rows(standings)).rstrip())
    write_whole(directory / "table.tex", latex_table(table_rows(standings)))
    if standings.ranking is None:
        return
    write_whole(directory / "tests.csv", standings.tests.to_csv(index=False).rstrip())
    write_whole(directory / "tests.md", markdown_table(test_rows(standings)).rstrip())
    for suffix in ("png", "svg"):
        for name, figure in figures(standings).items():
            figure.savefig(directory / f"{name}.{suffix}", dpi=160, facecolor="#fefefe")


def figures(standings: Standings) -> dict[str, Any]:
    """The plots by name, of a comparison with at least two methods."""
    titles = {record.name: record.title for record in standings.records}
    own = [titles[name] for name in OWN_METHODS if name in titles]
    found = standings.ranking
    assert found is not None
    splits = "split" if found.n_blocks == 1 else "splits"
    return {
        "critical_difference": plot_critical_difference(
            {titles[name]: rank for name, rank in found.ranks.items()},
            found.critical_difference,
            [[titles[name] for name in clique] for clique in found.cliques],
            own=own,
            caption=f"{standings.name}, {found.n_blocks} {splits}",
        ),
        "cost": plot_cost(
            [_point(record, standings.metric) for record in standings.fitting],
            standings.metric,
            standings.device,
            own=own,
        ),
    }


def _point(record: MethodRecord, metric: str) -> CostPoint:
    found = record.interval(metric)
    seconds = record.tuning_seconds + record.mean("compute_seconds")
    return CostPoint(record.title, found.mean, found.half_width, max(seconds, 1e-3))


def table_rows(standings: Standings) -> list[tuple[str, ...]]:
    """The methods as text; the first row is the heading, and the last column holds reasons."""
    device = standings.device
    heading = (
        "Method",
        *SCORE_TITLES,
        "Mean rank",
        "Trained parameters",
        "Checkpoint",
        f"Tuning ({device})",
        f"Final training ({device})",
        "Peak memory",
    )
    return [heading, *(_row(row) for row in standings.table.to_dict("records"))]


def _row(row: dict[Any, Any]) -> tuple[str, ...]:
    if row["why_not"]:
        return (row["title"], f"n/a: {row['why_not']}", *[numbers.NONE] * 10)
    return (
        row["title"],
        *(_with_interval(row[name], row[f"{name}_half_width"]) for name in SCORE_NAMES),
        f"{row['mean_rank']:.2f}" if math.isfinite(row["mean_rank"]) else numbers.NONE,
        numbers.count(row["trained_parameters"]),
        size(row["checkpoint_bytes"]),
        _cost(row["tuning_seconds"], row["tuning_trainings"]),
        _cost(row["final_seconds"], row["final_trainings"]),
        size(row["peak_bytes"]),
    )


def test_rows(standings: Standings) -> list[tuple[str, ...]]:
    """Every two methods as text, the first row is the heading."""
    titles = {record.name: record.title for record in standings.records}
    heading = ("Methods", "Difference", "n", "t test (Holm)", "Wilcoxon (Holm)")
    return [
        heading,
        *(
            (
                f"{titles[row['first']]} - {titles[row['second']]}",
                f"{numbers.difference(row['difference'])}"
                + (f" ± {row['half_width']:.3f}" if math.isfinite(row["half_width"]) else ""),
                str(row["n"]),
                _p_value(row["t_test_holm"]),
                _p_value(row["wilcoxon_holm"]),
            )
            for row in standings.tests.to_dict("records")
        ),
    ]


def latex_table(table: list[tuple[str, ...]]) -> str:
    """Rows of text as a LaTeX table for the package `booktabs`.

    Args:
        table: the first row is the heading.
    """
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in table]
    columns = "l" + "r" * (len(table[0]) - 1)
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def size(n_bytes: float) -> str:
    """Bytes as people say them, as in `18.6 MB`."""
    if not math.isfinite(n_bytes):
        return numbers.NONE
    return f"{numbers.short_count(n_bytes)}B" if n_bytes >= 1000 else f"{n_bytes:.0f} B"


def without_nan(value: Any) -> Any:
    """The same plain values with `None` for what JSON has no word for: no finite number."""
    if isinstance(value, dict):
        return {key: without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _with_interval(mean: float, half_width: float) -> str:
    text = numbers.score(mean)
    return f"{text} ± {numbers.score(half_width)}" if math.isfinite(half_width) else text


def _cost(seconds: float, trainings: float) -> str:
    if not math.isfinite(seconds):
        return numbers.NONE
    return f"{numbers.duration(seconds)}, {trainings:.1f} trainings"


def _p_value(value: float) -> str:
    if not math.isfinite(value):
        return numbers.NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)
