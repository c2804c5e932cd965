"""What the page lists beside its figures: individuals, what became of them, and mistakes."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import numbers
from .hotspots import in_order
from .plots.style import rate_colour
from .predictions import LARGEST_MATRIX, confusion_matrix
from .summary import multipliers_of

if TYPE_CHECKING:
    import pandas as pd

    from .data import ReportData
    from .predictions import Predictions


@dataclass(frozen=True)
class Cell:
    """A cell of a table that can be sorted.

    Args:
        text: that is shown.
        value: that is sorted by; `None` if there is none.
    """

    text: str
    value: float | None


@dataclass(frozen=True)
class IndividualRow:
    """One individual.

    Args:
        trial: its number.
        role: how it came about.
        state: what became of it.
        cells: its generation, score, spread, epochs, seconds and share of trained parameters.
        strip: its blocks as a CSS gradient, from input to output.
        trained: how many blocks it trains, in words.
    """

    trial: int
    role: str
    state: str
    cells: tuple[Cell, ...]
    strip: str
    trained: str


# Stands for an individual that the history doesn't hold.
UNKNOWN = IndividualRow(-1, "", "", (), "none", "unknown")
INDIVIDUAL_COLUMNS = (
    "Gen.", "Score", "± seeds", "Epochs", "Seconds", "Trained",
)  # fmt: skip


@dataclass(frozen=True)
class Fate:
    """The individuals that had the same end.

    Args:
        state: `complete`, `pruned`, `reused` or `failed`.
        meaning: in words.
        individuals, epochs, trainings, seconds: how many of them, and what they cost together.
    """

    state: str
    meaning: str
    individuals: str
    epochs: str
    trainings: str
    seconds: str


_MEANINGS = {
    "complete": "trained to its end",
    "pruned": "stopped early: not among the best by then",
    "reused": "trained before with the same blocks and rates: costs nothing",
    "failed": "interrupted or without a score",
}


def individual_rows(data: ReportData) -> list[IndividualRow]:
    """Every individual, in the order of generations."""
    history = in_order(data.history)
    total = max(1, data.partition.n_parameters)
    phenotypes = multipliers_of(history, data.partition.names)
    return [
        IndividualRow(
            trial=int(row["trial"]),
            role=f"{row['role']}: {row['start']}" if row.get("start") else str(row["role"]),
            state=str(row["state"]),
            cells=(
                Cell(str(int(row["generation"])), float(row["generation"])),
                _cell(row["score"], numbers.score),
                _cell(row["score_std"], numbers.score),
                _cell(row["epochs"], numbers.count),
                _cell(row["seconds"], lambda seconds: f"{seconds:.1f}"),
                _cell(row["trained_parameters"] / total, numbers.share),
            ),
            strip=_strip(rates),
            trained=f"{sum(map(math.isfinite, rates))} of {len(rates)} blocks",
        )
        for row, rates in zip(history.to_dict("records"), phenotypes.tolist(), strict=True)
    ]


def fates(history: pd.DataFrame) -> list[Fate]:
    """What became of the individuals, and what it cost."""
    found = []
    for state, rows in history.groupby("state", sort=False):
        found.append(
            Fate(
                state=str(state),
                meaning=_MEANINGS.get(str(state), ""),
                individuals=numbers.count(len(rows)),
                epochs=numbers.count(rows["epochs"].sum()),
                trainings=f"{rows['trainings'].sum():.1f}",
                seconds=numbers.duration(float(rows["seconds"].sum())),
            )
        )
    return found


def matrix_rows(predictions: Predictions) -> list[tuple[str, list[tuple[int, int]]]] | None:
    """The confusion matrix, as name of a class, and count and share in per cent of each other.

    `None` if there are too many classes to read it.
    """
    if len(predictions.label_names) > LARGEST_MATRIX:
        return None
    matrix = confusion_matrix(predictions)
    return [
        (name, [(int(n), round(100 * n / max(1, row.sum()))) for n in row])
        for name, row in zip(predictions.label_names, matrix, strict=True)
    ]


def _cell(value: Any, write: Any) -> Cell:
    value = float(value)
    return Cell(write(value), value) if math.isfinite(value) else Cell(numbers.NONE, None)


# As fine as the eye can tell on a few pixels.
_STEPS = 24
_FROZEN = "var(--frozen)"


@functools.cache
def _band(step: int) -> str:
    return rate_colour(10 ** (step / _STEPS))


def _strip(rates: list[float]) -> str:
    """Bands of equal width, in the colours of the figures."""
    stops = []
    for index, rate in enumerate(rates, start=1):
        colour = _band(round(_STEPS * math.log10(rate))) if math.isfinite(rate) else _FROZEN
        stops.append(f"{colour} 0 {100 * index / len(rates):.4g}%")
    return f"linear-gradient(90deg,{','.join(stops)})"
