"""The report of a study as it is: of a search that goes on, was interrupted, or is elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import optuna
import pandas as pd

from .blocks import Partition
from .exceptions import DataError
from .report import ReportData
from .report.plots.pareto import shown_rows
from .search import resolve_metric
from .search.history import history_of
from .search.identity import IDENTITY_KEY
from .search.storages import STUDY_NAME, open_storage


def unfinished_report_data(
    output_dir: str | os.PathLike[str],
    partition: Partition,
    *,
    model: str,
    dataset: str,
    command: str = "",
    metric: str = "macro_accuracy",
    learning_rate: float | None = None,
    storage: str | None = None,
    study_name: str = STUDY_NAME,
) -> ReportData:
    """What is known of a search so far. Nothing is trained, and the study is not changed.

    Args:
        output_dir: of the search.
        partition: the blocks that it is about.
        model, dataset: their names.
        command: that goes on with it.
        metric: the score.
        learning_rate: the base rate. Default: unknown.
        storage: see [`open_storage`].
        study_name: in that storage.

    Raises:
        ConfigError: the storage can't be opened.
        DataError: there is no study in it, or one without a score.
    """
    where = storage or str(Path(output_dir) / "study.journal")
    if storage is None and not Path(where).is_file():
        raise DataError(f"there is no study at {where!r}; give the directory of a search")
    opened = open_storage(storage, output_dir)
    try:
        study = optuna.load_study(study_name=study_name, storage=opened)
    except KeyError:
        raise DataError(
            f"{where!r} holds no study named {study_name!r}; give another storage"
        ) from None
    history = history_of(study, partition)
    if not len(history) or not history["score"].notna().any():
        raise DataError(f"no individual of the study at {where!r} has a score yet; try again later")
    resolved = resolve_metric(metric)
    best = _best(history, resolved.greater_is_better)
    facts = {
        "state": "the search has not ended; the winner may change, and was not confirmed",
        "spent": (
            f"{history['trainings'].sum():.1f} full trainings, {history['seconds'].sum():.0f} s"
        ),
        "best so far": f"individual {best['trial']}",
    }
    if learning_rate is not None:
        facts["base learning rate"] = f"{learning_rate:g}"
    return ReportData(
        title=f"BioTune on {dataset} (unfinished)",
        model_name=model,
        dataset_name=dataset,
        metric=resolved.name,
        greater_is_better=resolved.greater_is_better,
        partition=partition,
        history=history,
        best_multipliers={
            name: float(best[f"multiplier:{name}"])
            for name in partition.names
            if pd.notna(best[f"multiplier:{name}"])
        },
        norm_statistics=str(best.get("norm_statistics", _norm_statistics(study))),
        comparison=None,
        facts=facts,
        command=command,
        python="# The search has not ended: there is no adapter yet.",
    )


def _norm_statistics(study: optuna.Study) -> str:
    """What the search was told to do with them; a study of other origin tells nothing."""
    identity = study.user_attrs.get(IDENTITY_KEY)
    return str(identity.get("norm_statistics", "")) if isinstance(identity, Mapping) else ""


def _best(history: pd.DataFrame, greater_is_better: bool) -> pd.Series[float]:
    """The best individual with a full score; if there is none yet, of all."""
    rows = shown_rows(history)
    if not len(rows):
        rows = history.loc[history["score"].notna()]
    score = rows["score"].astype(float).to_numpy()
    best: pd.Series[float] = rows.iloc[int(score.argmax() if greater_is_better else score.argmin())]
    return best
