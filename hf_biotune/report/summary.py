"""What the search found, in one honest sentence, and what happened in each generation."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import numbers

if TYPE_CHECKING:
    import pandas as pd

    from .data import ReportData

OWN_METHOD = "BioTune"
USUAL_RIVALS = ("full fine-tuning", "linear probe")
SEED_NOISE = "within seed noise"
# A pruned individual was scored after fewer epochs: its score can't be compared with the others.
COMPARABLE_STATES = ("complete", "reused")


@dataclass(frozen=True)
class Headline:
    """The result in one sentence, and what it can't tell.

    Args:
        sentence: blocks, parameters, test score and the difference to every rival.
        note: how many seeds stand behind the scores.
    """

    sentence: str
    note: str


@dataclass(frozen=True)
class Generation:
    """The individuals of one generation that were scored on one fold.

    Args:
        generation: its number, from 0.
        fold: the fold that scored them; scores of other folds can't be compared with these.
        individuals: how many were evaluated, failed and pruned ones included.
        scored: how many have a comparable score.
        best: the best comparable score, NaN if there is none.
        median: of the comparable scores, NaN if there is none.
    """

    generation: int
    fold: int
    individuals: int
    scored: int
    best: float
    median: float


def headline(data: ReportData) -> Headline:
    """Say what was found, in numbers, whoever won."""
    trained = [block for block in data.partition if block.name in data.best_multipliers]
    part = sum(block.n_parameters for block in trained) / max(1, data.partition.n_parameters)
    found = (
        f"BioTune trains {len(trained)} of {len(data.partition)} blocks "
        f"({numbers.share(part)} of the parameters)"
    )
    metric = numbers.metric_name(data.metric)
    scores = test_scores(data.comparison)
    if not scores.get(OWN_METHOD):
        return Headline(f"{found}{_validation_clause(data, metric)}.", _UNTESTED)
    own = scores.pop(OWN_METHOD)
    # Other forms of our own, such as an ensemble, are no rivals.
    scores = {name: of for name, of in scores.items() if not name.startswith(f"{OWN_METHOD} ")}
    found += f" and scores {numbers.score(statistics.fmean(own))} {metric} on the test set"
    verdicts = [
        _verdict(name, own, scores[name], data.greater_is_better)
        for name in _rivals(scores, data.greater_is_better)
    ]
    sentence = f"{found}: {_enumerate(verdicts)}." if verdicts else f"{found}."
    note = _seed_note([own, *scores.values()])
    if any(verdict.startswith(SEED_NOISE) for verdict in verdicts):
        note += (
            f" “{SEED_NOISE.capitalize()}” means that the difference is no greater than the pooled "
            "standard deviation between seeds."
        )
    return Headline(sentence, note if data.greater_is_better else f"{note} Lower is better.")


def test_scores(comparison: pd.DataFrame | None) -> dict[str, list[float]]:
    """The finite test scores of each method that has any, in the order of the table."""
    if comparison is None:
        return {}
    pairs = zip(comparison["method"], comparison["test_scores"], strict=True)
    return {str(name): values for name, seeds in pairs if (values := numbers.finite(seeds))}


def generations(history: pd.DataFrame, greater_is_better: bool) -> list[Generation]:
    """Best and median score of each generation on each fold."""
    summaries = []
    for _, rows in history.groupby(["generation", "fold"]):
        scores = rows["score"][comparable(rows)]
        summaries.append(
            Generation(
                generation=int(rows["generation"].iloc[0]),
                fold=int(rows["fold"].iloc[0]),
                individuals=len(rows),
                scored=len(scores),
                best=float(scores.max() if greater_is_better else scores.min()),
                median=float(scores.median()),
            )
        )
    return summaries


def comparable(history: pd.DataFrame) -> pd.Series[bool]:
    """Which individuals have a score at full fidelity."""
    return history["state"].isin(COMPARABLE_STATES) & np.isfinite(history["score"].astype(float))


def multipliers_of(history: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """The phenotypes. Shape: (individuals, blocks); NaN where a block is frozen."""
    columns = [f"multiplier:{name}" for name in names]
    return np.asarray(history.reindex(columns=columns), dtype=float)


def winner_of(data: ReportData) -> int | None:
    """Position of the winner's row in the history, or `None` if no row is."""
    finalist = _winning_finalist(data)
    if finalist is not None:
        rows = np.flatnonzero(data.history["trial"].to_numpy() == finalist["trial"])
        if len(rows):
            return int(rows[0])
    return find_winner(data.history, data.partition.names, data.best_multipliers)


def _winning_finalist(data: ReportData) -> pd.Series[Any] | None:
    if data.finalists is None:
        return None
    winners = data.finalists[data.finalists["winner"].astype(bool)]
    return winners.iloc[0] if len(winners) else None


def find_winner(
    history: pd.DataFrame, names: Sequence[str], multipliers: Mapping[str, float]
) -> int | None:
    """Position of the first row that trains what the winner does, or `None` if no row does."""
    wanted = np.array([multipliers.get(name, math.nan) for name in names])
    same = np.isclose(multipliers_of(history, names), wanted, equal_nan=True).all(axis=1)
    # An evaluation that failed says nothing for it: prefer the first one with a score.
    for candidates in (same & comparable(history).to_numpy(), same):
        if candidates.any():
            return int(candidates.argmax())
    return None


def census(history: pd.DataFrame) -> str:
    """How many individuals there were, and what became of them."""
    states = history["state"].value_counts(sort=False)
    parts = [f"{numbers.count(n)} {state}" for state, n in sorted(states.items(), key=str)]
    return (
        f"{_plural(len(history), 'individual')} in "
        f"{_plural(history['generation'].nunique(), 'generation')}: {', '.join(parts)}."
    )


_UNTESTED = "There was no comparison on a test set, so this says nothing about other methods."


def _validation_clause(data: ReportData, metric: str) -> str:
    position = winner_of(data)
    if position is None:
        return ""
    value = float(data.history["score"].iloc[position])
    finalist = _winning_finalist(data)
    if finalist is not None:
        # The mean over its seeds: the score of the first one is that of a lucky individual.
        value = statistics.fmean(finalist["scores"])
    return f"; the search scored it {numbers.score(value)} validation {metric}"


def _rivals(scores: Mapping[str, Sequence[float]], greater_is_better: bool) -> list[str]:
    """The two usual rivals and the best of the others, so that no defeat goes unmentioned."""
    others = [name for name in scores if name not in USUAL_RIVALS]
    choose = max if greater_is_better else min
    best = [choose(others, key=lambda name: statistics.fmean(scores[name]))] if others else []
    return [*(name for name in USUAL_RIVALS if name in scores), *best]


def _verdict(
    name: str, own: Sequence[float], rival: Sequence[float], greater_is_better: bool
) -> str:
    gap = statistics.fmean(own) - statistics.fmean(rival)
    if numbers.difference(gap).startswith("±"):
        relation = "level with"
    elif len(own) > 1 and len(rival) > 1 and abs(gap) <= _pooled_deviation(own, rival):
        relation = f"{SEED_NOISE} of"
    else:
        relation = "better than" if (gap > 0) == greater_is_better else "worse than"
    title = f"the {name}" if name == "linear probe" else name
    return (
        f"{relation} {title} ({numbers.score(statistics.fmean(rival))}, {numbers.difference(gap)})"
    )


def _pooled_deviation(first: Sequence[float], second: Sequence[float]) -> float:
    return math.sqrt((statistics.variance(first) + statistics.variance(second)) / 2)


def _seed_note(scores: Sequence[Sequence[float]]) -> str:
    sizes = sorted({len(values) for values in scores})
    if sizes[-1] == 1:
        return (
            "One seed per method: the spread between seeds is unknown, and a small difference "
            "may be chance."
        )
    seeds = str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"Means over {seeds} seeds."


def _enumerate(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]


def _plural(number: int, noun: str) -> str:
    return f"{numbers.count(number)} {noun}{'' if number == 1 else 's'}"
