"""What a report is made of: plain data, collected by whoever ran the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ..blocks import Partition
    from .predictions import Predictions


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that [`write_report`] puts on the page. No text in it is trusted: all is escaped.

    Args:
        title: such as `"BioTune on mnist-200"`.
        model_name: of the pre-trained model.
        dataset_name: of the data it was fine-tuned on.
        metric: name of the score, such as `"macro_accuracy"`.
        greater_is_better: whether a greater score is a better one.
        partition: the blocks of the model.
        history: one row per evaluated individual, in the order of evaluation. Columns: `trial`,
            `generation`, `role`, `fold`, `parents`, `state` (`complete`, `pruned`, `failed` or
            `reused`), `score` (NaN if failed), `score_std`, `epochs`, `trainings`, `seconds`,
            `trained_parameters`, `key`, `freezing_threshold`, and for every block
            `importance:<block>` and `multiplier:<block>` (NaN: frozen).
        best_multipliers: the winner, `{block: learning-rate multiplier}`; other blocks are frozen.
        norm_statistics: `"epoch"`, `"train"` or `"frozen"`: what BatchNorm does in trained blocks.
        comparison: one row per method, or `None` if there was no final comparison. Columns:
            `method`, `seeds`, `test_scores` and `validation_scores` (lists, one entry per seed),
            `trained_parameters`, `trained_share` (0 to 1; of an ensemble: all members together),
            `weights` (`"trained"` by a final training, or `"kept"`: as the search trained them),
            `seconds` (final training only),
            `search_seconds`, `search_trainings`, `lr`.
        facts: what the run cost and ran on, `{label: value}` in the order to show. The entry
            `"base learning rate"`, if a number, also fills the rates in the winner's table.
        command: the shell line that reproduces the run.
        python: the snippet that loads the adapter.
        finalists: the individuals that the winner was chosen from, or `None`. Columns: `trial`,
            `scores` (on validation, a list with an entry per seed), `trained_parameters`,
            `in_contention` (whether no test found it worse than the leader), `winner`.
        importances: how much each block matters, by block, with sum 1; `None` if unknown.
        lineage: the winner and its ancestors, the newest first, or `None`; see
            [`SearchResult.lineage`] for its columns.
        front: the individuals that nobody dominates, the cheapest first, or `None`; see
            [`SearchResult.pareto_front`] for its columns.
        predictions: what the saved model says about the test samples, or `None`.
    """

    title: str
    model_name: str
    dataset_name: str
    metric: str
    greater_is_better: bool
    partition: Partition
    history: pd.DataFrame
    best_multipliers: dict[str, float]
    norm_statistics: str
    comparison: pd.DataFrame | None
    facts: dict[str, str]
    command: str
    python: str
    finalists: pd.DataFrame | None = None
    importances: pd.Series[float] | None = None
    lineage: pd.DataFrame | None = None
    front: pd.DataFrame | None = None
    predictions: Predictions | None = None
