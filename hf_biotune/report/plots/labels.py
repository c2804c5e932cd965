"""How names that strangers chose become labels that fit: short, printable, and still distinct."""

from __future__ import annotations

from collections.abc import Sequence


def label(text: str, longest: int = 24) -> str:
    """A name as a label: one line, printable, and shortened in the middle if it is long."""
    text = _printable(text)
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def labels(names: Sequence[str], longest: int = 24) -> list[str]:
    """Names as labels that can be told apart.

    If names are too long, what all of those begin with is dropped first: in
    `encoder.layer.11.attention` it is the 11 that matters. Names that still look the same are
    numbered.

    Args:
        names: all different.
        longest: how many characters a label may have.

    Returns:
        One label per name.

    Example:
        >>> labels(["stem", "encoder.layer.0.output", "encoder.layer.1.output"], longest=12)
        ['stem', '…0.output', '…1.output']
    """
    names = [_printable(name) for name in names]
    long = [name for name in names if len(name) > longest]
    shared = _shared_path(long) if len(long) > 1 else ""
    short = [
        label(f"…{name[len(shared) :]}" if shared and name.startswith(shared) else name, longest)
        for name in names
    ]
    return [
        label(f"{index}…{name}", longest) if short.count(text) > 1 else text
        for index, (name, text) in enumerate(zip(names, short, strict=True))
    ]


def _shared_path(names: Sequence[str]) -> str:
    """What all names begin with, up to and including a dot."""
    first, last = min(names), max(names)
    size = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    path, dot, _ = first[:size].rpartition(".")
    return path + dot


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in str(text))
