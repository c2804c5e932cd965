"""What a search has done so far, as its displays tell it."""

from __future__ import annotations

import math
import statistics
from collections import Counter

from hf_biotune.search import TrialReport


class Tally:
    """Counts individuals by what became of them, in the whole search and in one generation."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.newest: TrialReport | None = None
        self._generation: list[TrialReport] = []

    def add(self, report: TrialReport) -> str:
        """Take one more individual.

        Returns:
            A line about the generation before it, if it is the first of a new one; else `""`.
        """
        ended = ""
        if self._generation and report.generation != self._generation[-1].generation:
            ended = self.end_generation()
        self.states[report.state] += 1
        self._generation.append(report)
        self.newest = report
        return ended

    def end_generation(self) -> str:
        """A line about the generation that is going on, which ends; `""` if there is none."""
        reports, self._generation = self._generation, []
        if not reports:
            return ""
        states = Counter(report.state for report in reports)
        scores = [r.score for r in reports if r.state != "pruned" and math.isfinite(r.score)]
        median = f", median {statistics.median(scores):.4f}" if scores else ""
        newest = reports[-1]
        return (
            f"generation {newest.generation}: {len(reports)} individuals ({_counted(states)})"
            f"{median}, best so far {newest.best_score:.4f}; {newest.share_spent:.0%} of the budget"
        )

    def __str__(self) -> str:
        cached = self.newest.cached_share if self.newest else None
        cache = "" if cached is None else f"; {cached:.0%} of all samples from the prefix cache"
        return f"{sum(self.states.values())} individuals: {_counted(self.states)}{cache}"


def _counted(states: Counter[str]) -> str:
    words = {"pruned": "stopped early", "reused": "reused at no cost"}
    return ", ".join(f"{count} {words.get(state, state)}" for state, count in states.items())


def time_left(report: TrialReport) -> str:
    """Of the search, at the pace so far; finalists and final trainings come after it."""
    if not report.share_spent or not report.seconds:
        return ""
    whole = round(report.seconds * (1 / report.share_spent - 1))
    hours, minutes, seconds = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{seconds:02d} left" if hours else f"{minutes}:{seconds:02d} left"
