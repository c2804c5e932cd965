"""How numbers are written in tables, sentences and figures: one format per quantity."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Sequence

from scipy import stats

CONFIDENCE = 0.95
NONE = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"
_LOOSE = re.compile(
    r" (?=[%±=])|(?<=[<>±=]) |(?<=[0-9]) (?=(?:s|min|h)\b)|(?<=min|. h) (?=[0-9])| (?=training)"
)


def finite(values: Iterable[float]) -> list[float]:
    """The values that are numbers; a failed seed leaves a NaN."""
    return [float(value) for value in values if math.isfinite(value)]


def score(value: float) -> str:
    """Three decimals, as in `0.953`."""
    return _minus(f"{value:.3f}") if math.isfinite(value) else NONE


def difference(value: float) -> str:
    """Three decimals with a sign; a difference that rounds to nothing is `±0.000`."""
    text = f"{value:+.3f}"
    return f"±{text[1:]}" if float(text) == 0 else _minus(text)


def half_width(scores: Sequence[float]) -> float:
    """Half of the 95 % t-interval of the mean over seeds; NaN for fewer than two.

    Args:
        scores: one per seed, finite.

    Example:
        >>> round(half_width([0.95, 0.96]), 4)
        0.0635
    """
    if len(scores) < 2:
        return math.nan
    error = statistics.stdev(scores) / math.sqrt(len(scores))
    return error * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(scores) - 1))


def score_of_seeds(scores: Sequence[float]) -> str:
    """Mean, 95 % t-interval and n; one seed tells nothing about others and is given none."""
    values = finite(scores)
    if not values:
        return NONE
    mean = score(statistics.fmean(values))
    if len(values) < 2:
        return f"{mean} (n = 1)"
    return f"{mean} ± {score(half_width(values))} ({100 * CONFIDENCE:.0f} %, n = {len(values)})"


def share(value: float) -> str:
    """A share of 0 to 1 in per cent; a part is never rounded to nothing or to the whole."""
    if not math.isfinite(value):
        return NONE
    percent = 100 * value
    if percent in (0, 100):
        return f"{percent:.0f} %"
    if 0 < percent < 0.05:
        return "< 0.1 %"
    if 99.95 <= percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %"


def count(value: float) -> str:
    """Every digit, in groups of three."""
    return f"{int(value):,}" if math.isfinite(value) else NONE


def short_count(value: float) -> str:
    """Three digits and a unit, as in `4.65 M`, where every digit would not fit."""
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        # 999,999 must become 1 M, not 1000 k: compare what three digits round to.
        if float(f"{value:.3g}") >= factor:
            scaled = value / factor
            decimals = max(0, 2 - math.floor(math.log10(float(f"{scaled:.3g}"))))
            return f"{scaled:.{decimals}f}{unit}"
    return f"{value:.0f}"


def multiplier(value: float) -> str:
    """Three digits after a times sign."""
    return f"{TIMES}{value:.3g}"


def rate(value: float) -> str:
    """Three digits, as in `0.00251`."""
    return f"{value:.3g}" if math.isfinite(value) else NONE


def duration(seconds: float) -> str:
    """Two units at most, as in `4 min 10 s`."""
    if not math.isfinite(seconds):
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def bind(text: str) -> str:
    """Keep a number and its unit or sign on one line, whatever breaks around them."""
    return _LOOSE.sub("\N{NO-BREAK SPACE}", text)


def metric_name(metric: str) -> str:
    """`macro_accuracy` as people say it."""
    return metric.replace("_", " ").strip() or "score"


def _minus(text: str) -> str:
    """A hyphen is too short to be read as a sign."""
    return text.replace("-", "\N{MINUS SIGN}")
