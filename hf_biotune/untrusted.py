"""Reading what a stranger wrote: JSON with bounds, and values as an error message can hold them."""

from __future__ import annotations

import json
import math
import os
import reprlib
from pathlib import Path
from typing import Any, NoReturn

from .exceptions import ConfigError

# A partition of a model with 5,000 modules takes a quarter of a megabyte.
MAX_JSON_BYTES = 4 * 1024 * 1024
MAX_NAME_LENGTH = 500

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100


def shown(value: object) -> str:
    """`repr` for an error message: short, one line, and harmless whatever the value is.

    Example:
        >>> shown([1] * 1_000_000)
        '[1, 1, 1, 1, 1, 1, ...]'
    """
    try:
        return _REPR.repr(value)
    except ValueError:
        # An integer of more digits than Python is willing to write.
        return f"<{type(value).__name__} that is too long to show>"


def as_float(number: int | float) -> float:
    """A number as a float; infinity for an integer beyond the largest one, which JSON can hold.

    Example:
        >>> as_float(10**400)
        inf
    """
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises:
        ConfigError: the file can't be read, or isn't what [`parse_json`] takes.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{shown(str(path))} can't be read: {error}") from error
    return parse_json(data, shown(str(path)))


def parse_json(data: bytes | str, source: str) -> dict[str, Any]:
    """Parse one JSON object, strictly: what `json` tolerates beyond the standard is an error.

    Args:
        data: the text, or its bytes in UTF-8.
        source: what it is, for error messages.

    Raises:
        ConfigError: it is too long or nested too deeply, is not valid JSON in UTF-8, holds a name
            twice, NaN or an infinity, or is not an object.
    """
    if len(data) > MAX_JSON_BYTES:
        raise ConfigError(
            f"{source} is longer than {MAX_JSON_BYTES:,} bytes, the most that a configuration may "
            f"have; it is damaged or no configuration"
        )
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        # Half of a surrogate pair passes as an escape, and then fails wherever it is written.
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
        json.dumps(values, ensure_ascii=False).encode("utf-8")
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(
            f"{source} is not valid JSON in UTF-8: {reason}; save or download it again"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{source} must hold a JSON object, got {shown(values)}; save or download it again"
        )
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ConfigError(f"a name must stand once, but {shown(name)} stands twice; drop one")
        values[name] = value
    return values


def _refuse(constant: str) -> NoReturn:
    raise ConfigError(f"{constant} is not a number that JSON allows; give a finite one")
