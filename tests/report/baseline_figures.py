"""The figures that are compared with pictures in `baselines/`; as a script, it draws these anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from report_examples import WINNER, make_comparison, make_history, make_partition

from hf_biotune.report import (
    plot_blocks,
    plot_comparison,
    plot_evolution,
    plot_importances,
    plot_individuals,
    plot_pareto,
)
from hf_biotune.report.plots.style import drawing

BASELINES = Path(__file__).parent / "baselines"
DPI = 60


def figures() -> dict[str, Figure]:
    """One of each kind, and two as on a telephone."""
    partition = make_partition()
    history = make_history(partition, winner=WINNER)
    history.loc[[4, 15, 26], "score_std"] = 0.02
    history.loc[[5, 12, 25], "state"] = "pruned"
    history.loc[7, ["state", "score"]] = ["failed", np.nan]
    comparison = make_comparison()
    importances = pd.Series({"stage5": 0.52, "stage1": 0.31, "head": 0.17})
    return {
        "blocks": plot_blocks(partition, WINNER),
        "blocks_narrow": plot_blocks(partition, WINNER, width=4.0),
        "comparison": plot_comparison(comparison, "macro_accuracy", True),
        "evolution": plot_evolution(history, True, "macro_accuracy"),
        "importances": plot_importances(importances),
        "individuals": plot_individuals(history, partition, WINNER),
        "pareto": plot_pareto(history, True, "macro_accuracy", comparison),
        "pareto_narrow": plot_pareto(history, True, "macro_accuracy", comparison, width=4.0),
    }


def save(figure: Figure, path: Path) -> None:
    """As the pictures are kept."""
    with drawing():
        figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})


if __name__ == "__main__":
    BASELINES.mkdir(exist_ok=True)
    for name, figure in figures().items():
        save(figure, BASELINES / f"{name}.png")
