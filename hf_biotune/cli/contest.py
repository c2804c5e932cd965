"""From options to a comparison, and what a terminal shows of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

import optuna
from rich.console import Console
from rich.table import Table
from transformers.utils import logging

from hf_biotune.contest import (
    DEFAULT_METHODS,
    Arena,
    BackboneScore,
    ContestListener,
    Plan,
    Standings,
    checked_methods,
)
from hf_biotune.contest.outputs import table_rows
from hf_biotune.contest.units import Unit
from hf_biotune.exceptions import ConfigError
from hf_biotune.recipes import Recipe

from .output import Output
from .run import block_spec


def given_options(options: Mapping[str, Any], but: Collection[str] = ()) -> dict[str, Any]:
    """The options of an [`Arena`] that were given.

    Args:
        options: the parameters of a command, by name.
        but: names to leave out.
    """
    logging.set_verbosity_error()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = {field.name for field in fields(Arena)} - set(but)
    # Not `in (None, False)`: 0 is given, and refused.
    given = {name: v for name in names if (v := options.get(name)) is not None and v is not False}
    if options.get("dataset_config"):
        given["config_name"] = options["dataset_config"]
    if "blocks" in given:
        given["blocks"] = block_spec(given["blocks"])
    return given


def plan_of(recipe: Recipe, options: Mapping[str, Any]) -> Plan:
    """What `compare` was asked for.

    Args:
        recipe: what is compared on, unless options say otherwise.
        options: the parameters of the command, by name.
    """
    methods = options["methods"]
    return Plan(
        recipe.arena_with(**given_options(options, ("model", "dataset"))),
        DEFAULT_METHODS if methods is None else checked_methods(_words(methods)),
        recipe.seeds if options["seeds"] is None else _numbers(options["seeds"]),
        options["splits"] or recipe.splits,
        options["budget"],
        options["metric"],
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> tuple[int, ...]:
    words = _words(text)
    if not all(word.isdecimal() for word in words):
        raise ConfigError(
            f"--seeds must be numbers separated by commas, such as 1,2,3, got {text!r}"
        )
    return tuple(map(int, words))


def reporter_of(output: Output) -> ContestListener:
    """The listener that suits the output."""
    return ContestListener() if output.quiet else Reporter(output.console)


class Reporter(ContestListener):
    """One line per unit and per training."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    def on_unit_begin(self, unit: Unit, n_done: int, n_units: int) -> None:
        """A unit was claimed by this process."""
        self._line(f"[{n_done} of {n_units} done] {unit}")

    def on_misfit(self, unit: Unit, reason: str) -> None:
        """A method does not fit the model, and is left out."""
        self._line(f"{unit.method} is left out: {reason}")

    def on_stage(self, name: str) -> None:
        """A training begins."""
        self._line(f"  {name}")

    def on_wait(self) -> None:
        """What is left is being done by other processes."""
        self._line("waiting for other workers to finish")

    def _line(self, text: str) -> None:
        elapsed = time.monotonic() - self._started
        self._console.print(
            f"{elapsed:6.0f} s  {text}", soft_wrap=True, highlight=False, markup=False
        )


def print_standings(console: Console, standings: Standings) -> None:
    """The table of methods, and their ranks."""
    # What fits a terminal; everything is in the files.
    columns = (0, 1, 6, 7, 9, 10)
    heading, *rows = table_rows(standings)
    table = Table(title=standings.name)
    for position in columns:
        table.add_column(heading[position], justify="right" if position else "left")
    for row in rows:
        table.add_row(*(row[position] for position in columns))
    console.print(table)
    found = standings.ranking
    if found is not None:
        console.print(
            f"critical difference of mean ranks, n = {found.n_blocks}: "
            f"{found.critical_difference:.2f}",
            highlight=False,
        )


def print_ranking(console: Console, ranking: Sequence[BackboneScore]) -> None:
    """The models, the most promising first."""
    table = Table(title="LogME, the greater the better")
    for name in ("model", "LogME", "features", "seconds"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for score in ranking:
        table.add_row(
            score.model, f"{score.logme:.4f}", str(score.n_features), f"{score.seconds:.1f}"
        )
    console.print(table)
