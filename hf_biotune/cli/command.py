"""What every command has: where its words go, and a file that it takes its options from."""

from __future__ import annotations

import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hf_biotune.exceptions import ConfigError
from hf_biotune.passwords import without_password

from .output import output
from .run_file import RUN_FILE, read_run_file, write_run_file

_PANEL = "Output"


def command_line() -> str:
    """The line that runs the present command again; a file of options is spelled out.

    The password of a storage is left out: the line is kept and shown.
    """
    words = map(without_password, sys.argv[1:])
    return output.command_line or shlex.join(["hf-biotune", *words])


def _take_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make what the file says the defaults of this call, so that the command line wins."""
    if path is not None and not context.resilient_parsing:
        group = context.parent.command if context.parent else None
        others = {
            name: _names(command)
            for name, command in getattr(group, "commands", {}).items()
            if command is not context.command
        }
        known = _names(context.command)
        context.default_map = read_run_file(path, known, context.info_name or "", others)
    return path


def _names(command: Any) -> dict[str, bool]:
    """The parameters that a file may hold, and whether each can be given several times."""
    left_out = {*_OUTPUT, *_CONFIG, "help"}
    return {
        param.name: getattr(param, "multiple", False) or param.nargs != 1
        for param in command.params
        if param.name not in left_out
    }


_OUTPUT = {
    "json": Annotated[
        bool,
        typer.Option(
            "--json",
            help="One JSON document on standard output, all else on standard error.",
            rich_help_panel=_PANEL,
        ),
    ],
    "quiet": Annotated[
        bool,
        typer.Option("--quiet", "-q", help="The result, no progress.", rich_help_panel=_PANEL),
    ],
    "verbose": Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="A line for every epoch, and what libraries say.",
            rich_help_panel=_PANEL,
        ),
    ],
    "debug": Annotated[
        bool,
        typer.Option("--debug", help="Show where an error came from.", rich_help_panel=_PANEL),
    ],
}
_CONFIG = {
    "config": Annotated[
        Path | None,
        typer.Option(
            is_eager=True,
            callback=_take_config,
            help="YAML file of these options, such as the run.yaml of an earlier run; the command "
            "line wins. Default: none.",
        ),
    ]
}


class CommandGroup(TyperGroup):
    """The commands together; the help fits a screen."""

    _SHORTER = MappingProxyType(
        {
            "install_completion": "Let this shell complete commands.",
            "show_completion": "Print what that would install.",
        }
    )

    def get_params(self, ctx: Any) -> Any:
        """The options of `hf-biotune` itself."""
        params: list[Any] = super().get_params(ctx)
        for param in params:
            param.help = self._SHORTER.get(param.name, param.help)
        return params


class CommandLine(typer.Typer):
    """A typer application whose commands all have the options above.

    `--config` is for those that have an `--output-dir`, where their options are saved.
    """

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:
        """Register a function as a command; see `typer.Typer.command`."""

        def register(function: Callable[..., None]) -> Callable[..., None]:
            super(CommandLine, self).command(name, **settings)(_with_common_options(function))
            return function

        return register


def _with_common_options(function: Callable[..., None]) -> Callable[..., None]:
    # Not `get_type_hints`: where the default is `None`, Python 3.10 hides options in an `Optional`.
    signature = inspect.signature(function, eval_str=True)
    hints = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    is_run = _has_output_dir(hints)
    added = {**(_CONFIG if is_run else {}), **_OUTPUT}

    @functools.wraps(function)
    def command(context: typer.Context, **options: Any) -> None:
        common = {name: options.pop(name) for name in added}
        if common["quiet"] and common["verbose"]:
            raise ConfigError("--quiet and --verbose can't be used together; leave one of them out")
        from_file = common.get("config") is not None
        output.command_line = _spelled_out(context, options) if from_file else ""
        name = context.info_name or ""
        output.keep_options = lambda: _keep_first(options, name) if is_run else None
        with output.of_command(**{name: common[name] for name in _OUTPUT}):
            function(**options)
            if is_run:
                write_run_file(options["output_dir"], options, name)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter("context", keyword, annotation=typer.Context)]
    for parameter in signature.parameters.values():
        parameters.append(parameter.replace(kind=keyword))
    for name, hint in added.items():
        default = None if name in _CONFIG else False
        parameters.append(inspect.Parameter(name, keyword, default=default, annotation=hint))
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {**hints, **added, "context": typer.Context}
    return command


def _keep_first(options: Mapping[str, Any], command: str) -> None:
    """Write the options before the run, to go on with it; those of an earlier run stay."""
    if not (options["output_dir"] / RUN_FILE).exists():
        write_run_file(options["output_dir"], options, command)


def _has_output_dir(hints: Mapping[str, Any]) -> bool:
    """Whether the directory is an option, as of what makes it, and not an argument."""
    described = getattr(hints.get("output_dir"), "__metadata__", ())
    return any(isinstance(one, typer.models.OptionInfo) for one in described)


def _spelled_out(context: typer.Context, options: Mapping[str, Any]) -> str:
    """The command with every option that differs from its default."""
    words = ["hf-biotune", context.info_name or ""]
    for param in context.command.params:
        value = options.get(param.name)
        if value is None or value == param.default:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            if isinstance(one, bool):
                words.append((param.opts if one else param.secondary_opts)[0])
            else:
                words += [param.opts[0], str(one.value if isinstance(one, Enum) else one)]
    return shlex.join(map(without_password, words))
