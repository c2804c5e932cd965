"""Units: the pieces of work of a comparison, each done once, kept at once, and never again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..exceptions import DataError, StudyMismatchError
from ..search.identity import differences_of
from ..search.output_directory import UNITS_NAME, check_directory

TUNING = "tuning"
IDENTITY_NAME = "comparison.json"
# To be raised when a method changes: results of before and after must not be mixed.
SCHEMA = 4


@dataclass(frozen=True, order=True)
class Unit:
    """One method on one split: the choice of its setting, or one final training.

    Args:
        split: number of the split.
        method: name of the method.
        seed: of the final training; `None` for tuning.
    """

    split: int
    method: str
    seed: int | None = None

    @property
    def stem(self) -> str:
        """What its files are named after."""
        return TUNING if self.seed is None else f"seed-{self.seed}"

    def __str__(self) -> str:
        what = "tuning" if self.seed is None else f"final training with seed {self.seed}"
        return f"split {self.split}, {self.method}: {what}"


class Ledger:
    """The finished units of a comparison, in a directory that any number of processes share.

    A unit is one JSON file, which appears complete or not at all. Who works on a unit holds a lock
    on a file beside it; the operating system lets go of it when the process ends, however it ends,
    so that a unit of a dead process is free at once.

    Args:
        directory: of the comparison; made if needed.

    Raises:
        ConfigError: it can't be made, or not written to.
    """

    def __init__(self, directory: str | Path) -> None:
        check_directory(directory)
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def path(self, unit: Unit, suffix: str = ".json") -> Path:
        """Where a file of a unit is."""
        folder = self.directory / UNITS_NAME / f"split-{unit.split}" / unit.method
        return folder / f"{unit.stem}{suffix}"

    def is_done(self, unit: Unit) -> bool:
        """Whether a unit is finished."""
        return self.path(unit).exists()

    def read(self, unit: Unit) -> dict[str, Any]:
        """The result of a finished unit.

        Raises:
            DataError: its file can't be read.
        """
        return _read(self.path(unit))

    def write(self, unit: Unit, result: Mapping[str, Any]) -> None:
        """Keep the result of a unit; from now on it is finished."""
        write_whole(self.path(unit), json.dumps(result, indent=1))

    @contextmanager
    def claimed(self, unit: Unit) -> Iterator[bool]:
        """Try to claim a unit for the block of code inside; `False` if another process has it."""
        with _locked(self.path(unit, ".lock")) as is_mine:
            yield is_mine

    def claim_identity(self, identity: Mapping[str, Any]) -> None:
        """Say what the comparison is about, or check that it is about the same.

        Args:
            identity: JSON values that every unit depends on.

        Raises:
            StudyMismatchError: the directory holds a comparison of something else.
        """
        path = self.directory / IDENTITY_NAME
        wanted = json.loads(json.dumps({"schema": SCHEMA, **identity}))
        with FileLock(f"{path}.lock"):
            if not path.exists():
                write_whole(path, json.dumps(wanted, indent=1))
                return
        stored = _read(path)
        if not isinstance(stored, Mapping) or "schema" not in stored:
            raise StudyMismatchError(
                f"{str(path)!r} is not of a comparison of methods: {str(self.directory)!r} is "
                f"where a search has written; give another output directory"
            )
        if differences := differences_of(stored, wanted):
            raise StudyMismatchError(
                f"{str(self.directory)!r} holds a comparison of something else; it differs in "
                f"{'; '.join(differences)}. Give another output directory, or the same settings"
            )


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def write_whole(path: Path, text: str) -> None:
    """Write a file that other processes see complete or not at all.

    Args:
        path: its directory is made if needed.
        text: the content.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(name, path)


def append_line(path: Path, values: Any) -> None:
    """Add one line of JSON to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def read_lines(path: Path) -> list[Any]:
    """The lines of such a file; a last one that a killed process left unfinished is dropped.

    Raises:
        DataError: another line is not JSON.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    *lines, unfinished = text.split("\n")
    if unfinished:
        write_whole(path, "\n".join(lines)) if lines else path.unlink()
    try:
        return [json.loads(line) for line in lines if line]
    except ValueError as error:
        raise DataError(f"{str(path)!r} is damaged: {error}; remove it to do its work again") from (
            error
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{str(path)!r} is damaged: {error}; remove it to do its work again"
        ) from error
    return values
