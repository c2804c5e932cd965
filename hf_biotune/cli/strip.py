"""The blocks of a model as a strip of cells: frozen, slow, about the base rate, fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

# A third and three times the base rate.
SLOW, FAST = 1 / 3, 3.0
LEGEND = ". frozen, - slow, = about the base rate, # fast"
# The colours of the figures; the characters tell the same where there is no colour.
_STYLES = {
    ".": "dim",
    "-": "#ffffff on #27589b",
    "=": "#000000 on #f3e2a2",
    "#": "#000000 on #e2843f",
}


def strip_of(multipliers: Mapping[str, float], names: Sequence[str]) -> str:
    """One character a block: `.` frozen, `-` below a third, `=` about 1, `#` above three times.

    Example:
        >>> strip_of({"stem": 0.1, "head": 1.0}, ["stem", "layer1", "head"])
        '-.='
    """
    return "".join(_cell(multipliers.get(name)) for name in names)


def cells_of(multipliers: Mapping[str, float], names: Sequence[str]) -> Text:
    """The same as coloured cells."""
    text = Text()
    for character in strip_of(multipliers, names):
        text.append(f" {character} ", style=_STYLES[character])
    return text


def legend() -> Text:
    """What the cells mean."""
    text = Text("  ")
    meanings = zip(_STYLES, ("frozen", "slow", "about the base rate", "fast"), strict=True)
    for character, meaning in meanings:
        text.append(f" {character} ", style=_STYLES[character])
        text.append(f" {meaning}  ", style="dim")
    return text


def _cell(multiplier: float | None) -> str:
    if multiplier is None:
        return "."
    return "-" if multiplier < SLOW else "#" if multiplier > FAST else "="
