"""Which progress a search shows: a live display on a terminal, lines elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from rich.live import Live

from hf_biotune.search import SearchListener

from .live_progress import LiveProgress
from .output import Output
from .plain_progress import GenerationProgress, PlainProgress


@contextmanager
def progress_of(output: Output) -> Iterator[SearchListener]:
    """The listener that suits the output, shown for as long as the context lasts.

    None if it is quiet; lines of epochs if it is verbose; a live display on a terminal; one line a
    generation in CI (where the variable `CI` is set); one line an individual in logs and notebooks.
    """
    console = output.console
    if output.quiet:
        yield SearchListener()
    elif output.verbose:
        yield PlainProgress(output.line, epochs=True)
    elif os.environ.get("CI", "").lower() not in ("", "0", "false"):
        yield GenerationProgress(output.line)
    elif console.is_terminal and not console.is_jupyter:
        live = LiveProgress()
        with Live(live, console=console, refresh_per_second=4):
            yield live
    else:
        yield PlainProgress(output.line)
