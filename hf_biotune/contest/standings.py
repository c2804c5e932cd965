"""`Standings`: what the finished units of a comparison say, method by method."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from ..baselines import get_method
from ..exceptions import DataError
from .plan import Plan
from .scores import SCORE_NAMES
from .statistics import (
    BlockKey,
    Interval,
    Ranking,
    interval,
    paired_tests,
    ranking,
    repetitions,
    split_means,
)
from .units import Ledger

NO_SEED = -1


@dataclass(frozen=True)
class MethodRecord:
    """Everything that is known of one method in one comparison.

    Args:
        name: its key.
        title: for tables.
        why_not: the reason for which it does not fit the model; empty if it does.
        tunings: `{split: result of tuning}`, as kept.
        runs: `{(split, seed): result of a final training}`, as kept.
        n_wanted: how many final trainings the plan has.
    """

    name: str
    title: str
    why_not: str = ""
    tunings: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    runs: Mapping[BlockKey, Mapping[str, Any]] = field(default_factory=dict)
    n_wanted: int = 0

    def scores(self, name: str) -> dict[BlockKey, float]:
        """One of the scores of every final model, `{(split, seed): score}`.

        A model that no seed makes a difference for has [`NO_SEED`], which it shares with others of
        its kind only.
        """
        values = {
            (split, NO_SEED if run.get("is_seedless") else seed): run["scores"][name]
            for (split, seed), run in self.runs.items()
        }
        # What has no number is `None` in a file.
        return {key: math.nan if v is None else float(v) for key, v in values.items()}

    def interval(self, name: str) -> Interval:
        """Mean and interval of a score, see [`repetitions`]; NaN without any run."""
        values = repetitions(self.scores(name))
        return interval(values) if values else Interval(math.nan, math.nan, 0)

    def mean(self, name: str) -> float:
        """Mean over final runs of a number that they hold; NaN where it was not measured."""
        values = [run[name] for run in self.runs.values() if run[name] is not None]
        return float(statistics.fmean(values)) if values else math.nan

    @property
    def final_trainings(self) -> float:
        """Mean over final runs."""
        values = [run["cost"]["trainings"] for run in self.runs.values()]
        return float(statistics.fmean(values)) if values else math.nan

    @property
    def tuning_seconds(self) -> float:
        """Mean over splits."""
        values = [tuning["compute_seconds"] for tuning in self.tunings.values()]
        return float(statistics.fmean(values)) if values else math.nan

    @property
    def tuning_trainings(self) -> float:
        """Mean over splits."""
        values = [tuning["cost"]["trainings"] for tuning in self.tunings.values()]
        return float(statistics.fmean(values)) if values else math.nan


@dataclass(frozen=True)
class Standings:
    """The result of a comparison, or what there is of it so far.

    Args:
        name: of what was compared on, for titles.
        plan: plain values that say what was compared.
        records: one per method, in the order of the plan.
        metric: the score that methods are ranked by.
    """

    name: str
    plan: Mapping[str, Any]
    records: tuple[MethodRecord, ...]
    metric: str = "macro_accuracy"

    @property
    def fitting(self) -> tuple[MethodRecord, ...]:
        """The methods that have at least one final model."""
        return tuple(record for record in self.records if record.runs)

    @property
    def is_complete(self) -> bool:
        """Whether every unit of the plan is finished."""
        return all(len(r.runs) == r.n_wanted for r in self.records if not r.why_not)

    @property
    def device(self) -> str:
        """`"CPU"` or `"GPU"`: whose seconds are counted."""
        devices = {run["device"] for record in self.records for run in record.runs.values()}
        return "CPU" if devices <= {"cpu"} else "GPU"

    @property
    def ranking(self) -> Ranking | None:
        """Mean ranks over the splits that all methods have; `None` with fewer than two methods."""
        means = {record.name: split_means(record.scores(self.metric)) for record in self.fitting}
        if len(means) < 2:
            return None
        common = sorted(set.intersection(*(set(of) for of in means.values())))
        if not common:
            return None
        return ranking({name: [of[split] for split in common] for name, of in means.items()})

    @property
    def table(self) -> pd.DataFrame:
        """One row per method: scores with half widths of their intervals, sizes and costs."""
        ranks = self.ranking.ranks if self.ranking is not None else {}
        return pd.DataFrame([self._row(record, ranks) for record in self.records])

    @property
    def tests(self) -> pd.DataFrame:
        """One row per pair of methods: difference, interval and p-values."""
        try:
            tests = paired_tests({r.name: r.scores(self.metric) for r in self.fitting})
        except DataError:
            # Unfinished: two methods have no split in common yet.
            return pd.DataFrame()
        rows = [asdict(test) for test in tests]
        for row in rows:
            difference = row.pop("difference")
            row["difference"] = difference["mean"]
            row["half_width"] = difference["half_width"]
            row["n"] = difference["n"]
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values for JSON."""
        found = self.ranking
        return {
            "name": self.name,
            "plan": dict(self.plan),
            "metric": self.metric,
            "device": self.device,
            "is_complete": self.is_complete,
            "methods": [_record_to_dict(record) for record in self.records],
            "table": self.table.to_dict("records"),
            "tests": self.tests.to_dict("records"),
            "ranking": None if found is None else asdict(found),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Standings:
        """The inverse of [`~Standings.to_dict`]; what is computed is computed again."""
        records = tuple(_record_from_dict(record) for record in values["methods"])
        return cls(values["name"], values["plan"], records, values["metric"])

    def _row(self, record: MethodRecord, ranks: Mapping[str, float]) -> dict[str, Any]:
        row: dict[str, Any] = {"method": record.name, "title": record.title}
        for score in SCORE_NAMES:
            found = record.interval(score)
            row |= {score: found.mean, f"{score}_half_width": found.half_width}
        return {
            **row,
            "n": len(record.runs),
            "mean_rank": ranks.get(record.name, math.nan),
            "trained_parameters": record.mean("trained_parameters"),
            "checkpoint_bytes": record.mean("checkpoint_bytes"),
            "tuning_seconds": record.tuning_seconds,
            "tuning_trainings": record.tuning_trainings,
            "final_seconds": record.mean("compute_seconds"),
            "final_trainings": record.final_trainings,
            "peak_bytes": record.mean("peak_bytes"),
            "why_not": record.why_not,
        }


def standings_of(plan: Plan, ledger: Ledger) -> Standings:
    """What a ledger holds of a plan.

    Args:
        plan: what is compared.
        ledger: with its finished units.
    """
    described = {**plan.identity, "seeds": list(plan.seeds), "splits": plan.splits}
    records = tuple(_record_of(plan, ledger, method) for method in plan.methods)
    return Standings(plan.arena.name, described, records, plan.metric)


def _record_of(plan: Plan, ledger: Ledger, name: str) -> MethodRecord:
    tunings, runs, why_not, n_wanted = {}, {}, "", 0
    for split in range(plan.splits):
        units = plan.units(name, split)
        n_wanted += len(units) - 1
        for unit in filter(ledger.is_done, units):
            result = ledger.read(unit)
            if "why_not" in result:
                why_not = result["why_not"]
            elif unit.seed is None:
                tunings[unit.split] = result
            else:
                runs[unit.split, unit.seed] = result
    return MethodRecord(name, get_method(name).title, why_not, tunings, runs, n_wanted)


def _record_to_dict(record: MethodRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "title": record.title,
        "why_not": record.why_not,
        "n_wanted": record.n_wanted,
        "tunings": [{"split": split, **values} for split, values in record.tunings.items()],
        "runs": [{"split": split, **values} for (split, _), values in record.runs.items()],
    }


def _record_from_dict(values: Mapping[str, Any]) -> MethodRecord:
    return MethodRecord(
        values["name"],
        values["title"],
        values["why_not"],
        {tuning["split"]: tuning for tuning in values["tunings"]},
        {(run["split"], run["seed"]): run for run in values["runs"]},
        values["n_wanted"],
    )
