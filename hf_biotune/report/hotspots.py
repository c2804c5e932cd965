"""Where figures can be pointed at, and what is said there: plain data for the page's script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import numbers
from .plots.evolution import positions
from .summary import multipliers_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from .data import ReportData

# Of a page that a browser lays out; half a point is less than a pixel.
_DECIMALS = 1


def in_order(history: pd.DataFrame) -> pd.DataFrame:
    """Individuals in the order of the figures: by generation, then by trial."""
    return history.sort_values(["generation", "trial"], kind="stable").reset_index(drop=True)


def individual_texts(data: ReportData) -> list[str]:
    """What is said of each individual, in the order of [`in_order`]."""
    total = max(1, data.partition.n_parameters)
    texts = []
    for row in in_order(data.history).to_dict("records"):
        spread = numbers.finite([row["score_std"]])
        score = numbers.score(row["score"]) + (f" ± {numbers.score(spread[0])}" if spread else "")
        made = f"{row['role']}, {row['start']}" if row.get("start") else str(row["role"])
        texts.append(
            f"individual {row['trial']}, generation {row['generation']} ({made})\n"
            f"score {score}, {row['state']}\n"
            f"trains {numbers.share(row['trained_parameters'] / total)} of the parameters"
        )
    return texts


def individual_points(figure: Figure, data: ReportData) -> list[list[float]]:
    """The individuals in `plot_evolution`."""
    history = in_order(data.history)
    x, y = positions(history), history["score"].to_numpy(dtype=float)
    axes = figure.axes[0]
    low = axes.transData.inverted().transform(axes.transAxes.transform((0, 0.025)))[1]
    return _places(figure, x, np.where(np.isfinite(y), y, low))


def size_points(figure: Figure, rows: pd.DataFrame) -> list[list[float]]:
    """The individuals in `plot_pareto`.

    Args:
        figure: drawn.
        rows: the individuals that it shows.
    """
    x = rows["trained_parameters"].to_numpy(dtype=float)
    return _places(figure, x, rows["score"].to_numpy(dtype=float))


def seed_points(figure: Figure, comparison: pd.DataFrame) -> list[list[float]]:
    """The seeds in `plot_comparison`, in the order of [`seed_texts`]."""
    rows = [(score, row) for row, _, _, score in _seeds(comparison)]
    return _places(figure, np.array([r[0] for r in rows]), np.array([r[1] for r in rows]))


def seed_texts(comparison: pd.DataFrame) -> list[str]:
    """What is said of each seed in `plot_comparison`."""
    return [
        f"{method}{'' if seed is None else f', seed {seed}'}\n{numbers.score(score)}"
        for _, method, seed, score in _seeds(comparison)
    ]


def block_boxes(figure: Figure, n_blocks: int) -> list[list[float]]:
    """The blocks in `plot_blocks`, as boxes."""
    patches = {patch.get_gid(): patch for patch in figure.axes[0].patches}
    boxes = []
    for index in range(n_blocks):
        box = patches[f"block-{index}"].get_window_extent()
        (left, top), (right, bottom) = _to_page(figure, [(box.x0, box.y1), (box.x1, box.y0)])
        boxes.append([left, top, round(right - left, 1), round(bottom - top, 1)])
    return boxes


def block_texts(data: ReportData) -> list[str]:
    """What is said of each block in `plot_blocks`."""
    total = max(1, data.partition.n_parameters)
    texts = []
    for block in data.partition:
        factor = data.best_multipliers.get(block.name)
        fate = (
            "frozen" if factor is None else f"{numbers.multiplier(factor)} the base learning rate"
        )
        size = f"{numbers.count(block.n_parameters)} parameters"
        texts.append(f"{block.name}\n{fate}\n{size} ({numbers.share(block.n_parameters / total)})")
    return texts


def map_box(figure: Figure) -> list[float]:
    """The corners of the heat map in `plot_individuals`: left, top, right, bottom."""
    box = figure.axes[0].bbox
    corners = _to_page(figure, [(box.x0, box.y1), (box.x1, box.y0)])
    return [*corners[0], *corners[1]]


def multipliers(data: ReportData) -> list[list[float | None]]:
    """What the heat map shows: for each individual, in order, the multiplier of each block."""
    values = multipliers_of(in_order(data.history), data.partition.names)
    return [[float(f"{x:.3g}") if np.isfinite(x) else None for x in row] for row in values]


def _seeds(comparison: pd.DataFrame) -> list[tuple[int, str, Any, float]]:
    """Row, method, seed and score of every finite test score."""
    found = []
    for index, record in enumerate(comparison.to_dict("records")):
        seeds: Sequence[Any] = record["seeds"]
        for number, score in enumerate(record["test_scores"]):
            if numbers.finite([score]):
                seed = seeds[number] if number < len(seeds) else None
                found.append((index, str(record["method"]), seed, float(score)))
    return found


def _places(figure: Figure, x: np.ndarray, y: np.ndarray) -> list[list[float]]:
    if not len(x):
        return []
    return _to_page(figure, figure.axes[0].transData.transform(np.column_stack([x, y])))


def _to_page(figure: Figure, places: Any) -> list[list[float]]:
    """From pixels of the figure to units of its SVG: points, from the upper left corner."""
    width, height = figure.get_size_inches() * 72
    fractions = figure.transFigure.inverted().transform(np.asarray(places, dtype=float))
    page = np.column_stack([fractions[:, 0] * width, (1 - fractions[:, 1]) * height])
    return [[float(value) for value in place] for place in page.round(_DECIMALS)]
