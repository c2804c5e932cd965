"""The rows of the report's tables, as text, for HTML and for Markdown alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import numbers
from .plots.style import rate_colour

if TYPE_CHECKING:
    from typing import Any

    import pandas as pd

    from .data import ReportData

COMPARISON_COLUMNS = (
    "Method",
    "Test score",
    "Validation score",
    "Trained parameters",
    "Share",
    "Learning rate",
    "Final training",
    "Search",
)
FINALIST_COLUMNS = ("Individual", "Validation score", "Trained parameters", "Verdict")
FRONT_COLUMNS = (
    "Individual",
    "Validation score",
    "Seeds",
    "Trained parameters",
    "Share",
    "One training",
    "Adapter, bytes",
)
LINEAGE_COLUMNS = ("Individual", "Generation", "Made by", "Parents", "Fold", "Seeds", "Score")
BASE_RATE_FACT = "base learning rate"


@dataclass(frozen=True)
class WinnerRow:
    """One block of the winner.

    Args:
        block: its name.
        parameters: how many it holds.
        share: of all parameters of the model.
        multiplier: `None` if the block is frozen.
        rate: its learning rate, `None` if it is frozen or the base rate is unknown.
        colour: the colour that stands for its multiplier in the figures, `None` if frozen.
    """

    block: str
    parameters: str
    share: str
    multiplier: str | None
    rate: str | None
    colour: str | None


def winner_rows(data: ReportData) -> list[WinnerRow]:
    """One row per block, in the order of the model."""
    base, total = base_rate(data), max(1, data.partition.n_parameters)
    rows = []
    for block in data.partition:
        factor = data.best_multipliers.get(block.name)
        rows.append(
            WinnerRow(
                block=block.name,
                parameters=numbers.count(block.n_parameters),
                share=numbers.share(block.n_parameters / total),
                multiplier=None if factor is None else numbers.multiplier(factor),
                rate=None if factor is None or base is None else numbers.rate(base * factor),
                colour=None if factor is None else rate_colour(factor),
            )
        )
    return rows


def winner_total(data: ReportData) -> WinnerRow:
    """What the winner trains, all blocks together."""
    trained = sum(b.n_parameters for b in data.partition if b.name in data.best_multipliers)
    return WinnerRow(
        block="Trained in total",
        parameters=numbers.count(trained),
        share=numbers.share(trained / max(1, data.partition.n_parameters)),
        multiplier=None,
        rate=None,
        colour=None,
    )


def base_rate(data: ReportData) -> float | None:
    """The learning rate that multipliers apply to, if the facts name it as a number."""
    try:
        rate = float(data.facts[BASE_RATE_FACT])
    except (KeyError, ValueError):
        return None
    return rate if math.isfinite(rate) else None


def finalist_rows(data: ReportData) -> list[tuple[str, ...]]:
    """One row per finalist, in the columns of `FINALIST_COLUMNS`."""
    if data.finalists is None:
        return []
    return [
        (
            str(row["trial"]),
            numbers.score_of_seeds(row["scores"]),
            numbers.count(row["trained_parameters"]),
            "winner" if row["winner"] else _verdict(row["in_contention"]),
        )
        for row in data.finalists.to_dict("records")
    ]


def _verdict(in_contention: bool) -> str:
    return "may be as good" if in_contention else "worse than the leader"


def front_rows(data: ReportData) -> list[tuple[str, ...]]:
    """One row per individual of the front, in the columns of `FRONT_COLUMNS`."""
    if data.front is None:
        return []
    return [
        (
            f"{row['trial']} (knee)" if row["knee"] else str(row["trial"]),
            numbers.score(row["score"]),
            str(row["seeds"]),
            numbers.count(row["trainable_parameters"]),
            numbers.share(row["trained_share"]),
            numbers.duration(row["seconds"]),
            numbers.count(row["checkpoint_size"]),
        )
        for row in data.front.to_dict("records")
    ]


def knee_of(data: ReportData) -> int | None:
    """The number of the individual at the knee of the front, if the front is known."""
    if data.front is None:
        return None
    return next((row["trial"] for row in data.front.to_dict("records") if row["knee"]), None)


def lineage_rows(data: ReportData) -> list[tuple[str, ...]]:
    """One row per ancestor of the winner, itself first, in the columns of `LINEAGE_COLUMNS`."""
    if data.lineage is None:
        return []
    return [
        (
            str(row["trial"]),
            str(row["generation"]),
            f"{row['role']}: {row['start']}" if row["start"] else str(row["role"]),
            ", ".join(map(str, row["parents"])) or numbers.NONE,
            str(row["fold"]),
            ", ".join(map(str, row["seeds"])),
            numbers.score(row["score"]),
        )
        for row in data.lineage.to_dict("records")
    ]


def comparison_rows(comparison: pd.DataFrame) -> list[tuple[str, ...]]:
    """One row per method, in the columns of `COMPARISON_COLUMNS`."""
    return [_comparison_row(row) for row in comparison.to_dict("records")]


def comparison_markdown(comparison: pd.DataFrame) -> str:
    """The comparison as a Markdown table, for a README, a model card or a terminal.

    Args:
        comparison: as in [`ReportData`].

    Returns:
        The table, ending with a newline. Scores of two or more seeds are given as mean, 95 %
        t-interval and n; a single score has no interval.
    """
    return markdown_table([COMPARISON_COLUMNS, *comparison_rows(comparison)])


def markdown_table(table: Sequence[Sequence[str]]) -> str:
    """Rows of text as a Markdown table, the first column to the left and numbers to the right.

    Args:
        table: the first row is the heading.
    """
    cells = [[_markdown_cell(cell) for cell in row] for row in table]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    # Text to the left, numbers to the right.
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        for row in cells
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in [lines[0], rule, *lines[1:]])


def _comparison_row(row: dict[Any, Any]) -> tuple[str, ...]:
    return (
        str(row["method"]),
        numbers.score_of_seeds(row["test_scores"]),
        numbers.score_of_seeds(row["validation_scores"]),
        numbers.count(row["trained_parameters"]),
        numbers.share(row["trained_share"]),
        numbers.rate(row["lr"]),
        "none (kept)" if row.get("weights") == "kept" else numbers.duration(row["seconds"]),
        _search_cost(row["search_seconds"], row["search_trainings"]),
    )


def _search_cost(seconds: float, trainings: float) -> str:
    if not trainings and not seconds:
        return numbers.NONE
    noun = "training" if trainings == 1 else "trainings"
    return f"{numbers.duration(seconds)}, {trainings:,.1f} {noun}"


def _markdown_cell(text: str) -> str:
    """One line without markup: a method's name may hold anything."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").replace("`", "\\`")
