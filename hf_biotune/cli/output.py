"""Where a command's words go: results and progress for people, one JSON document for machines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console


class Output:
    """What one run of the command line prints.

    With `json` the only thing on standard output is a document; all else goes to standard error.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self, *, json: bool = False) -> None:
        """As it is before a command has said what it wants.

        Args:
            json: whether a mistake in the options shall be a document, too.
        """
        self.console = Console()
        self.errors = Console(stderr=True)
        self.json = json
        self.quiet = self.verbose = self.debug = False
        self.command_line = ""
        # Keeps the options of a run, as soon as they are known to be right.
        self.keep_options: Callable[[], None] = lambda: None
        self._stdout: TextIO | None = None
        self._has_document = False

    @contextmanager
    def of_command(self, *, json: bool, quiet: bool, verbose: bool, debug: bool) -> Iterator[None]:
        """The output of one command, as its options ask.

        Args:
            json: whether machines read standard output.
            quiet: whether progress is left out.
            verbose: whether libraries may speak, and every epoch has a line.
            debug: whether an error shows where it came from.
        """
        self.json, self.quiet, self.verbose, self.debug = json, quiet, verbose, debug
        self._has_document = False
        if not json:
            self.console = Console()
            yield
            return
        self.console, self._stdout = Console(stderr=True), sys.stdout
        # Whatever a library prints is not part of the document.
        with redirect_stdout(sys.stderr):
            yield
            if not self._has_document:
                self.document({})

    def line(self, text: str) -> None:
        """One line for people, never broken."""
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def error(self, text: str) -> None:
        """What went wrong, for people."""
        self.errors.print("[bold red]error:[/]", end=" ")
        self.errors.print(text, soft_wrap=True, highlight=False, markup=False)

    def document(self, content: Mapping[str, Any]) -> None:
        """The result for machines; printed only if it was asked for, once.

        Args:
            content: paths, enumerations and numbers that JSON lacks may be in it.
        """
        if not self.json or self._has_document:
            return
        self._has_document = True
        stream = self._stdout or sys.stdout
        stream.write(json.dumps(plain(content), indent=2, allow_nan=False) + "\n")
        stream.flush()


def plain(value: Any) -> Any:
    """A value as JSON knows it; what is not a finite number becomes `None`."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


output = Output()
