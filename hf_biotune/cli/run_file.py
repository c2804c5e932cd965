"""`run.yaml`: the options of a command as a file: runs write it, `--config` reads it."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from hf_biotune.exceptions import ConfigError
from hf_biotune.passwords import without_password

RUN_FILE = "run.yaml"


def read_run_file(
    path: Path, known: Mapping[str, bool], command: str, others: Mapping[str, Collection[str]]
) -> dict[str, Any]:
    """Options from a file, by name.

    Args:
        path: a YAML file of `option: value` lines; `-` and `_` in names are the same.
        known: the options that the command has, and whether each can be given several times.
        command: its name.
        others: the options of the other commands.

    Raises:
        ConfigError: the file can't be read, holds something else, or an unknown option; the
            message names those that are nearest.
    """
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _loader_of_texts())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {str(path)!r} can't be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--config {str(path)!r} is no YAML: {' '.join(str(error).split())}"
        ) from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"--config {str(path)!r} must hold lines of the form 'option: value', such as "
            f"'epochs: 5', but holds {type(content).__name__}"
        )
    options = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise ConfigError(
                f"--config {str(path)!r}: {_unknown(str(key), known, command, others)}"
            )
        if value is not None:
            options[name] = _as_typed(str(key), value, path, known[name])
    return options


def _loader_of_texts() -> type[Any]:
    """YAML whose values are what was typed: `yes` may be a column, `1.10` a configuration."""
    import yaml

    class Texts(yaml.SafeLoader):
        """Knows no numbers and no truth values."""

    Texts.yaml_implicit_resolvers = {
        first: [each for each in resolvers if each[0] == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    return Texts


def write_run_file(directory: Path, options: Mapping[str, Any], command: str) -> Path:
    """Write the options of a run, as they were merged, so that `--config` can take them again.

    The password of a storage is left out.

    Args:
        directory: made if needed.
        options: by name; those that are `None` are left out.
        command: that was run.
    """
    import yaml

    directory.mkdir(parents=True, exist_ok=True)
    path = directory / RUN_FILE
    values = {name: _storable(value) for name, value in options.items() if value is not None}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    path.write_text(f"# hf-biotune {command} --config {RUN_FILE}\n{text}", encoding="utf-8")
    return path


def options_of_run(directory: Path) -> dict[str, Any]:
    """The options that a run in a directory was started with, and its command as `command`.

    Raises:
        ConfigError: there is no `run.yaml`, or it is not as runs write it.
    """
    import yaml

    path = directory / RUN_FILE
    try:
        text = path.read_text(encoding="utf-8")
        options = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{str(directory)!r} holds neither the report.json of a finished run nor the "
            f"{RUN_FILE} of one that goes on; give a directory that `tune` or `search` wrote"
        ) from error
    if not isinstance(options, dict) or not {"model", "dataset"} <= set(options):
        raise ConfigError(f"{str(path)!r} names no model and data set; it is not as runs write it")
    first = text.partition("\n")[0].removeprefix("# ")
    return {**options, "command": first.replace(RUN_FILE, str(path))}


def _unknown(
    key: str, known: Collection[str], command: str, others: Mapping[str, Collection[str]]
) -> str:
    owners = [name for name, options in others.items() if key.replace("-", "_") in options]
    if owners:
        return f"{key!r} is an option of {' and '.join(owners)}, not of {command}; leave it out"
    near = difflib.get_close_matches(key.replace("-", "_"), sorted(known), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"{command} knows {', '.join(known)}"
    return f"{key!r} is no option of {command}; {hint}"


def _as_typed(key: str, value: Any, path: Path, is_repeatable: bool) -> Any:
    """A value as if it had been typed, so that it is checked like one."""
    if isinstance(value, str):
        return [value] if is_repeatable else value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value if is_repeatable else ",".join(value)
    raise ConfigError(
        f"--config {str(path)!r}: {key!r} must be a text, a number, true or false, or a list of "
        f"texts, got {type(value).__name__}"
    )


def _storable(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_storable(item) for item in value]
    if isinstance(value, str):
        return without_password(value)
    return str(value) if isinstance(value, Path) else value
