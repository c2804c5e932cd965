"""What several comparisons say together: mean ranks over all of them, and who wins where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..exceptions import DataError
from .standings import MethodRecord, Standings
from .statistics import (
    Interval,
    Ranking,
    difference,
    paired_tests,
    ranking,
    split_differences,
    split_means,
)


@dataclass(frozen=True)
class Duel:
    """One method against a rival in one comparison.

    Args:
        setting: name of the comparison; `""` for all of them together.
        rival: name of the rival.
        difference: mean of `ours - rival` with its 95 % interval, over what both have.
    """

    setting: str
    rival: str
    difference: Interval

    @property
    def verdict(self) -> str:
        """`"better"` or `"worse"` if the interval leaves out 0, else `"no difference shown"`."""
        if self.difference.low > 0:
            return "better"
        return "worse" if self.difference.high < 0 else "no difference shown"


def common_methods(comparisons: Sequence[Standings]) -> list[str]:
    """The methods that have a final model in every comparison, in the order of the first.

    Args:
        comparisons: at least one.
    """
    common = set.intersection(*({record.name for record in each.fitting} for each in comparisons))
    return [record.name for record in comparisons[0].records if record.name in common]


def overall_ranking(comparisons: Sequence[Standings]) -> Ranking:
    """Mean ranks over all splits of all comparisons, each split a block.

    Args:
        comparisons: with at least two methods in common; splits that a method lacks are left out.

    Raises:
        DataError: there is no comparison, or no split that all methods have.
    """
    if not comparisons:
        raise DataError("mean ranks need at least one comparison, got none")
    names = common_methods(comparisons)
    scores: dict[str, list[float]] = {name: [] for name in names}
    for each in comparisons:
        means = {name: split_means(record_of(each, name).scores(each.metric)) for name in names}
        for split in sorted(set.intersection(*(set(of) for of in means.values()))):
            for name, of_splits in means.items():
                scores[name].append(of_splits[split])
    if not any(scores.values()):
        raise DataError(
            f"no split was finished by all of {', '.join(names)}; go on with the comparison"
        )
    return ranking(scores)


def duels(comparisons: Sequence[Standings], ours: str) -> list[Duel]:
    """One method against every other, comparison by comparison.

    Args:
        comparisons: those without a final model of `ours` are left out.
        ours: name of the method.
    """
    found = []
    for each in comparisons:
        own = [record for record in each.fitting if record.name == ours]
        for record in own:
            for rival in each.fitting:
                if rival.name == ours:
                    continue
                scores = {r.name: r.scores(each.metric) for r in (record, rival)}
                (test,) = paired_tests(scores)
                found.append(Duel(each.name, rival.name, test.difference))
    return found


def overall_duels(comparisons: Sequence[Standings], ours: str) -> list[Duel]:
    """One method against every other over all splits of all comparisons, each split a block.

    Args:
        comparisons: at least one; methods that one of them lacks are left out.
        ours: name of the method, which all of them have.
    """
    found = []
    for rival in common_methods(comparisons):
        if rival == ours:
            continue
        differences: list[float] = []
        for each in comparisons:
            own, other = (record_of(each, name).scores(each.metric) for name in (ours, rival))
            differences += split_differences(own, other).values()
        if differences:
            found.append(Duel("", rival, difference(differences)))
    return found


def record_of(standings: Standings, name: str) -> MethodRecord:
    """A method of a comparison, by its name."""
    (found,) = (record for record in standings.records if record.name == name)
    return found
