"""Results as machines read them: what `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hf_biotune.blocks import Partition
    from hf_biotune.search import SearchResult
    from hf_biotune.tune import TuneResult


def blocks_document(partition: Partition) -> dict[str, Any]:
    """The blocks of a model, from input to output."""
    return {
        "parameters": partition.n_parameters,
        "blocks": [
            {"name": block.name, "modules": list(block.modules), "parameters": block.n_parameters}
            for block in partition
        ],
    }


def winner_document(result: SearchResult, output_dir: Path) -> dict[str, Any]:
    """What a search found, what that cost, and where it is written."""
    report = result.budget_report
    return {
        "best_trial": result.best_trial,
        "best_score": result.best_score,
        "lr_multipliers": dict(result.best_config.lr_multipliers),
        "frozen": [
            name for name in result.partition.names if name not in result.best_config.lr_multipliers
        ],
        "finalists": [
            {
                "trial": finalist.trial,
                "score": finalist.fitness.score,
                "scores": {str(run.seed): run.score for run in finalist.fitness.runs},
            }
            for finalist in result.finalists
        ],
        "front": result.pareto_front.to_dict("records"),
        "trainings": result.trainings,
        "seconds": result.seconds,
        "individuals": _counts(result),
        "planned": str(report.plan),
        "done": str(report),
        "config": output_dir / "best_config.json",
        "history": output_dir / "history.csv",
    }


def tune_document(result: TuneResult, output_dir: Path) -> dict[str, Any]:
    """What `tune` made."""
    return {
        **winner_document(result.search, output_dir),
        "comparison": result.comparison.to_dict("records"),
        "adapter": result.adapter,
        "ensemble": result.ensemble,
        "report": result.report,
    }


def _counts(result: SearchResult) -> Mapping[str, int]:
    counts = result.history["state"].value_counts().to_dict()
    return {str(state): int(count) for state, count in counts.items()}
