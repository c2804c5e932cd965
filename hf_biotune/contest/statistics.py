"""What scores of several methods allow to be said: intervals, paired tests, ranks.

Pure functions of arrays. In all of them a greater score is a better one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ..exceptions import DataError

CONFIDENCE = 0.95

BlockKey = tuple[int, int]


@dataclass(frozen=True)
class Interval:
    """A mean and how well it is known.

    Args:
        mean: of the scores.
        half_width: of the confidence interval around it; NaN for a single score.
        n: how many scores there are.
    """

    mean: float
    half_width: float
    n: int

    @property
    def low(self) -> float:
        """The lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end."""
        return self.mean + self.half_width


@dataclass(frozen=True)
class PairedTest:
    """Two methods on the same splits and seeds.

    Args:
        first: a method.
        second: another one.
        difference: mean of `first - second` and its interval; NaN where all differences are
            equal, but not 0, for then their spread is not known.
        t_test: p-value of the paired t test; NaN where it can't be made.
        wilcoxon: p-value of the Wilcoxon signed-rank test, exact for up to 50 pairs without ties.
            With n pairs it can't be less than `2 / 2**n`: 0.25 for three.
        t_test_holm: the same after Holm's correction for all pairs of methods.
        wilcoxon_holm: the same after Holm's correction.
    """

    first: str
    second: str
    difference: Interval
    t_test: float
    wilcoxon: float
    t_test_holm: float
    wilcoxon_holm: float


@dataclass(frozen=True)
class Ranking:
    """Mean ranks of methods over several blocks, and what tells them apart.

    Args:
        ranks: mean rank of each method, 1 the best; equal scores share their ranks.
        n_blocks: how many blocks (settings, or splits and seeds of one setting) were ranked.
        friedman: p-value of Friedman's test that all methods are alike; NaN for two methods.
        critical_difference: ranks that differ by less can't be told apart (Nemenyi, 0.05).
    """

    ranks: dict[str, float]
    n_blocks: int
    friedman: float
    critical_difference: float

    @property
    def cliques(self) -> list[tuple[str, ...]]:
        """The largest groups of methods, best first, that can't be told apart."""
        names = sorted(self.ranks, key=self.ranks.__getitem__)
        found: list[tuple[str, ...]] = []
        last_end = 0
        for start, name in enumerate(names):
            limit = self.ranks[name] + self.critical_difference
            end = max(i for i, other in enumerate(names) if self.ranks[other] <= limit) + 1
            if end - start > 1 and end > last_end:
                found.append(tuple(names[start:end]))
                last_end = end
        return found


def interval(scores: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The mean of scores with its confidence interval by Student's t distribution.

    Splits that are drawn anew from the same pool share samples. So the interval tells how much a
    repetition on this data varies; for other data of the same kind it is too narrow.

    Args:
        scores: at least one, shape (n,); see [`repetitions`].
        confidence: in (0, 1). Default: 0.95.

    Example:
        >>> found = interval([0.8, 0.9, 1.0])
        >>> round(found.mean, 2), round(found.half_width, 2)
        (0.9, 0.25)
    """
    values = np.asarray(scores, dtype=float)
    n = len(values)
    half_width = math.nan
    if n > 1:
        # Rounding gives equal values a deviation that is not 0.
        error = values.std(ddof=1) / math.sqrt(n) if np.ptp(values) else 0.0
        half_width = float(stats.t.ppf((1 + confidence) / 2, n - 1) * error)
    return Interval(float(values.mean()), half_width, n)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's correction: p-values that hold for all tests together.

    The smallest is multiplied by their number, the next by one less, and so on; none gets smaller
    than one before it, or larger than 1.

    Args:
        p_values: shape (n,). What is NaN stays so and does not count as a test.

    Returns:
        Shape (n,), in the order of the argument.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(values), math.nan)
    order = np.argsort(values)[: np.isfinite(values).sum()]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return corrected


def paired_tests(scores: Mapping[str, Mapping[BlockKey, float]]) -> list[PairedTest]:
    """Every two methods compared, split by split and seed by seed.

    With two splits or more that both have, they are compared by their means on these, of the seeds
    that both have, if there are such. On one split they are compared seed by seed.

    Args:
        scores: `{method: {(split, seed): score}}`.

    Raises:
        DataError: two methods have no split in common.
    """
    pairs = list(combinations(scores, 2))
    differences = [_differences(scores, first, second) for first, second in pairs]
    t_tests = [_t_test(of_pair) for of_pair in differences]
    wilcoxons = [_wilcoxon(of_pair) for of_pair in differences]
    return [
        PairedTest(first, second, difference(of_pair), *p_values)
        for (first, second), of_pair, *p_values in zip(
            pairs,
            differences,
            t_tests,
            wilcoxons,
            map(float, holm(t_tests)),
            map(float, holm(wilcoxons)),
            strict=True,
        )
    ]


def ranking(scores: Mapping[str, ArrayLike]) -> Ranking:
    """Mean ranks of at least two methods, Friedman's test and Nemenyi's critical difference.

    Args:
        scores: of each method, in the same order of blocks (such as splits), shape (n,).

    Raises:
        DataError: there are fewer than two methods, or these have different numbers of scores.

    Source: Demsar, Statistical Comparisons of Classifiers over Multiple Data Sets (2006).
    """
    table = _aligned(scores)
    if len(table) < 2:
        raise DataError(f"ranks need at least two methods, got {', '.join(table) or 'none'}")
    values = np.stack(list(table.values()))
    ranks = stats.rankdata(-values, axis=0)
    n_methods, n_blocks = values.shape
    friedman = math.nan
    if n_methods > 2 and n_blocks > 1 and np.ptp(ranks) > 0:
        friedman = float(stats.friedmanchisquare(*values).pvalue)
    return Ranking(
        ranks=dict(zip(table, map(float, ranks.mean(axis=1)), strict=True)),
        n_blocks=n_blocks,
        friedman=friedman,
        critical_difference=critical_difference(n_methods, n_blocks),
    )


def critical_difference(n_methods: int, n_blocks: int, alpha: float = 0.05) -> float:
    """By how much mean ranks must differ: `q sqrt(k (k + 1) / (6 N))`.

    Args:
        n_methods: k, at least 2.
        n_blocks: N, at least 1.
        alpha: chance that any two of equal methods differ by more. Default: 0.05.

    Example:
        >>> round(critical_difference(4, 14), 2)
        1.25

    Source: Demsar (2006), section 3.2.2, where 1.25 is the worked example.
    """
    q = float(stats.studentized_range.ppf(1 - alpha, n_methods, math.inf)) / math.sqrt(2)
    return q * math.sqrt(n_methods * (n_methods + 1) / (6 * n_blocks))


def _aligned(scores: Mapping[str, ArrayLike]) -> dict[str, NDArray[np.float64]]:
    table = {name: np.asarray(values, dtype=float) for name, values in scores.items()}
    sizes = {name: len(values) for name, values in table.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(
            f"methods must be scored on the same blocks to be ranked, got {sizes}; leave out those "
            f"that not all methods have"
        )
    return table


def _t_test(differences: NDArray[np.float64]) -> float:
    if len(differences) < 2:
        return math.nan
    if np.ptp(differences) == 0:
        # Without any spread the statistic is 0 / 0 or infinite.
        return 1.0 if differences[0] == 0 else math.nan
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _wilcoxon(differences: NDArray[np.float64]) -> float:
    if len(differences) < 2:
        return math.nan
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="zsplit").pvalue)


def split_means(scores: Mapping[BlockKey, float]) -> dict[int, float]:
    """The mean over seeds of each split, sorted.

    Args:
        scores: `{(split, seed): score}`.
    """
    by_split: dict[int, list[float]] = defaultdict(list)
    for (split, _), score in sorted(scores.items()):
        by_split[split].append(score)
    return {split: float(np.mean(of_split)) for split, of_split in by_split.items()}


def repetitions(scores: Mapping[BlockKey, float]) -> list[float]:
    """The scores that count as repetitions: the means of splits, or of one split all seeds.

    Scores of one split with several seeds share their data and their tuned setting. As repetitions
    of their own they would make a method look better known than it is.

    Args:
        scores: `{(split, seed): score}`.

    Example:
        >>> repetitions({(0, 1): 0.8, (0, 2): 0.9, (1, 1): 0.7, (1, 2): 0.7})
        [0.85, 0.7]
        >>> repetitions({(0, 1): 0.8, (0, 2): 0.9})
        [0.8, 0.9]
    """
    means = split_means(scores)
    values = means if len(means) > 1 else dict(sorted(scores.items()))
    # Without what rounding adds: equal values have no spread.
    return [round(value, 12) for value in values.values()]


def split_differences(
    ours: Mapping[BlockKey, float], theirs: Mapping[BlockKey, float]
) -> dict[int, float]:
    """By how much one method is ahead on each split that both have.

    Args:
        ours: `{(split, seed): score}`.
        theirs: the same of the other method. On a split where both have some of the same seeds,
            others do not count.
    """
    seeds = ours.keys() & theirs.keys()
    splits = {split for split, _ in ours} & {split for split, _ in theirs}
    others = splits - {split for split, _ in seeds}
    means = [
        split_means({k: v for k, v in of.items() if k in seeds or k[0] in others})
        for of in (ours, theirs)
    ]
    # Without what rounding adds: equal differences have no spread.
    return {split: round(means[0][split] - means[1][split], 12) for split in sorted(splits)}


def _differences(
    scores: Mapping[str, Mapping[BlockKey, float]], first: str, second: str
) -> NDArray[np.float64]:
    ours, theirs = scores[first], scores[second]
    by_split = split_differences(ours, theirs)
    if not by_split:
        raise DataError(
            f"{first!r} and {second!r} have no split in common, got the splits "
            f"{sorted({s for s, _ in ours})} and {sorted({s for s, _ in theirs})}; compare methods "
            f"on the same splits"
        )
    seeds = sorted(ours.keys() & theirs.keys())
    if len(by_split) == 1 and seeds:
        return np.array([round(ours[key] - theirs[key], 12) for key in seeds])
    return np.array(list(by_split.values()))


def difference(differences: ArrayLike) -> Interval:
    """The mean of differences with its interval; see [`PairedTest`].

    Args:
        differences: at least one, shape (n,); each of a split, or of a seed of one split.
    """
    found = interval(differences)
    if found.half_width == 0.0 and found.mean != 0.0:
        # A few equal differences don't show that there is no spread; of it, nothing is known.
        return replace(found, half_width=math.nan)
    return found
