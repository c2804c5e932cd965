"""What a search tells to TensorBoard, trackio or Weights & Biases: one point per generation."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers
from transformers import TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from ..exceptions import ConfigError
from .listener import SearchListener, TrialReport

PROJECT = "hf_biotune"
LOG_DIRECTORY = "runs"


class Together(SearchListener):
    """Several listeners as one; each is told everything, in order."""

    def __init__(self, *listeners: SearchListener) -> None:
        self._listeners = listeners

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return super().__getattribute__(name)
        hooks: list[Callable[..., None]] = [getattr(one, name) for one in self._listeners]

        def tell(*arguments: Any, **named: Any) -> None:
            for hook in hooks:
                hook(*arguments, **named)

        return tell


class Trackers(SearchListener):
    """Logs every generation, when it is over, by the trackers of Accelerate.

    Metrics, at the generation as the step: `search/best_score` and `search/median_score` (of the
    generation, pruned individuals left out), `search/best_score_so_far`, `search/complete`,
    `search/pruned`, `search/reused` (individuals), and what the search spent until then:
    `search/trainings`, `search/seconds`, `search/share_spent`; with a prefix cache
    `search/cached_share`.

    Args:
        trackers: of Accelerate, started.
        greater_is_better: whether a greater score is a better one.
    """

    def __init__(self, trackers: list[Any], greater_is_better: bool) -> None:
        self._trackers = trackers
        self._best = max if greater_is_better else min
        self._reports: list[TrialReport] = []

    def on_trial_end(self, report: TrialReport) -> None:
        """The first individual of a generation ends the one before it."""
        if self._reports and report.generation != self._reports[-1].generation:
            self._log()
        self._reports.append(report)

    def on_search_end(self) -> None:
        """End the last generation, and the trackers."""
        self._log()
        for tracker in self._trackers:
            tracker.finish()

    def _log(self) -> None:
        reports, self._reports = self._reports, []
        if not reports:
            return
        states = Counter(report.state for report in reports)
        scores = [r.score for r in reports if r.state != "pruned" and math.isfinite(r.score)]
        newest = reports[-1]
        values: dict[str, float] = {
            "best_score_so_far": newest.best_score,
            "trainings": newest.trainings,
            "seconds": newest.seconds,
            "share_spent": newest.share_spent,
            **{state: states[state] for state in ("complete", "pruned", "reused")},
        }
        if newest.cached_share is not None:
            values["cached_share"] = newest.cached_share
        if scores:
            values["best_score"] = self._best(scores)
            values["median_score"] = statistics.median(scores)
        for tracker in self._trackers:
            named = {f"search/{name}": value for name, value in values.items()}
            tracker.log(named, step=newest.generation)


def check_trackers(report_to: str) -> None:
    """Check the name of a tracker, before anything is done.

    Args:
        report_to: of `TrainingArguments`.

    Raises:
        ConfigError: neither Accelerate nor `Trainer` knows it.
    """
    known = sorted({*LOGGER_TYPE_TO_CLASS, *INTEGRATION_TO_CALLBACK})
    if report_to not in ("none", "all", *known):
        raise ConfigError(f"report_to must be none or one of {', '.join(known)}, got {report_to!r}")


def tracked(
    listener: SearchListener, args: TrainingArguments, greater_is_better: bool
) -> SearchListener:
    """A listener, and the trackers that `args.report_to` asks for.

    Args:
        listener: is told everything as well.
        args: `report_to` names them; what Accelerate has no tracker for is `Trainer`'s alone.
            TensorBoard's files are in the directory `runs` under `output_dir`.
        greater_is_better: whether a greater score is a better one.

    Raises:
        ConfigError: a tracker is not installed.
    """
    names = [name for name in args.report_to or [] if name in LOGGER_TYPE_TO_CLASS]
    if not names:
        return listener
    directory = Path(args.output_dir or ".") / LOG_DIRECTORY
    trackers = []
    for name in names:
        found = filter_trackers([name], directory)
        if not found:
            raise ConfigError(
                f"report_to={name!r} needs the package {name}: pip install {name}, or leave it out"
            )
        kind = LOGGER_TYPE_TO_CLASS[name]
        is_local = kind.requires_logging_directory
        tracker = kind(PROJECT, **({"logging_dir": str(directory)} if is_local else {}))
        tracker.start()
        trackers.append(tracker)
    return Together(listener, Trackers(trackers, greater_is_better))
