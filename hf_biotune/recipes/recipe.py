"""`Recipe`: a data set, a network and how to train, from a YAML file that is checked as it is read.

A file with `networks` is one recipe for each of them, named `<file>-<network>`; a file with `model`
is one recipe. `networks.yaml` says what the networks are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from ..contest.arena import Arena
from ..exceptions import ConfigError

_PACKAGE = files(__package__)
_NETWORKS = "networks"
_REQUIRED = {"description": str, "source": str, "dataset": str, "classes": int}
_OPTIONAL = {
    "config_name": str,
    "label_column": str,
    "model": str,
    "networks": list,
    "architecture": str,
    "blocks": int,
    "training": dict,
    "seeds": list,
    "splits": int,
    "prepare": str,
}
_NETWORK = {"model": str, "architecture": str, "blocks": int}
_TAKEN = ("model", "dataset", "config_name", "label_column", "blocks", "n_classes")
_TRAINING = {field.name for field in fields(Arena)} - set(_TAKEN)


@dataclass(frozen=True)
class Recipe:
    """A setting that methods are compared on.

    Args:
        name: by which it is asked for.
        description: one line.
        source: where the setting comes from, and the licence of the data.
        arena: model, data and training.
        classes: how many the data set has.
        architecture: the network with random weights, `timm:NAME`, or empty if a directory has it.
        n_blocks: how many the network is divided into; 0 if the recipe doesn't say.
        seeds: of the final trainings.
        splits: how many.
        prepare: what makes a local model or data set, as shell lines; empty for one on the Hub.
    """

    name: str
    description: str
    source: str
    arena: Arena
    classes: int
    architecture: str = ""
    n_blocks: int = 0
    seeds: tuple[int, ...] = (1, 2, 3)
    splits: int = 3
    prepare: str = ""

    def arena_with(self, **options: Any) -> Arena:
        """What is compared on, with some options changed.

        Args:
            options: fields of [`Arena`].
        """
        return replace(self.arena, **options)

    def check_files(self) -> None:
        """Whether a local model and data set are there.

        Raises:
            ConfigError: one is not; the message says how to make it.
        """
        for path in (self.arena.model, self.arena.dataset):
            if self.prepare and not Path(path).exists():
                raise ConfigError(
                    f"recipe {self.name!r} needs {path!r}, which is not there; make it with:\n"
                    f"{self.prepare.strip()}"
                )


def recipe_names() -> list[str]:
    """The names of all recipes, sorted."""
    return sorted(
        name
        for file in _PACKAGE.iterdir()
        if file.name.endswith(".yaml") and file.name != f"{_NETWORKS}.yaml"
        for name in _parse(file.name.removesuffix(".yaml"), file.read_text(encoding="utf-8"))
    )


def read_recipe(name: str) -> Recipe:
    """A recipe by its name, or from a YAML file with a `model`.

    Args:
        name: one of [`recipe_names`], or a path that ends with `.yaml`.

    Raises:
        ConfigError: there is no such recipe, or its file is not valid.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"recipe {name!r} can't be read: {error.strerror}") from error
        found = _parse(path.stem, text)
        if len(found) > 1:
            raise ConfigError(f"recipe {name!r} must name one model, got {', '.join(found)}")
        return next(iter(found.values()))
    for file in _PACKAGE.iterdir():
        stem = file.name.removesuffix(".yaml")
        if file.name.endswith(".yaml") and stem != _NETWORKS and name.startswith(stem):
            found = _parse(stem, file.read_text(encoding="utf-8"))
            if name in found:
                return found[name]
    raise ConfigError(
        f"recipe must be a YAML file or one of {', '.join(recipe_names())}, got {name!r}"
    )


def recipe_of(name: str | None, model: str | None, dataset: str | None) -> Recipe:
    """A named recipe, or one of a model and a data set.

    Args:
        name: of the recipe, whose local files must be there; `None` for none.
        model: Hub id or local directory. Without a recipe it is needed.
        dataset: Hub id or local path. Without a recipe it is needed.

    Raises:
        ConfigError: both or neither are given, or see [`read_recipe`].
    """
    if name is not None:
        if model or dataset:
            raise ConfigError(
                f"recipe {name!r} brings its own model and data set, got {model or dataset!r} as "
                f"well; leave one of them out"
            )
        recipe = read_recipe(name)
        recipe.check_files()
        return recipe
    if not model or not dataset:
        raise ConfigError(
            f"a comparison needs a recipe, or a model and a data set, got model {model!r} and data "
            f"set {dataset!r}; recipes are: {', '.join(recipe_names())}"
        )
    return Recipe(dataset, "", "", Arena(model, dataset), 0)


def _parse(stem: str, text: str) -> dict[str, Recipe]:
    """The recipes of one file by name."""
    values = _mapping(text, stem)
    _check_fields(stem, values, _REQUIRED, _OPTIONAL)
    if ("model" in values) == ("networks" in values):
        raise ConfigError(f"recipe {stem!r} must have either model or networks")
    if values["classes"] < 2:
        raise ConfigError(f"recipe {stem!r}: classes must be at least 2, got {values['classes']}")
    training = values.get("training", {})
    if unknown := set(training) - _TRAINING:
        raise ConfigError(
            f"recipe {stem!r}: training must have only {', '.join(sorted(_TRAINING))}, got "
            f"{', '.join(sorted(unknown))}"
        )
    if "model" in values:
        return {stem: _recipe(stem, values, values)}
    networks = _networks()
    for network in values["networks"]:
        if network not in networks:
            raise ConfigError(
                f"recipe {stem!r}: networks must be among {', '.join(networks)}, got {network!r}"
            )
    return {
        f"{stem}-{network}": _recipe(f"{stem}-{network}", values, networks[network])
        for network in values["networks"]
    }


def _recipe(name: str, values: Mapping[str, Any], network: Mapping[str, Any]) -> Recipe:
    arena = Arena(
        model=network["model"],
        dataset=values["dataset"],
        config_name=values.get("config_name"),
        label_column=values.get("label_column"),
        n_classes=values["classes"],
        **values.get("training", {}),
    )
    return Recipe(
        name=name,
        description=values["description"],
        source=values["source"].strip(),
        arena=arena,
        classes=values["classes"],
        architecture=network.get("architecture", ""),
        n_blocks=network.get("blocks", 0),
        seeds=tuple(values.get("seeds", Recipe.seeds)),
        splits=values.get("splits", Recipe.splits),
        prepare=values.get("prepare", ""),
    )


def _networks() -> dict[str, dict[str, Any]]:
    text = (_PACKAGE / f"{_NETWORKS}.yaml").read_text(encoding="utf-8")
    networks = _mapping(text, _NETWORKS)
    for name, network in networks.items():
        _check_fields(name, network, _NETWORK, {})
    return networks


def _mapping(text: str, stem: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"recipe {stem!r} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"recipe {stem!r} must be a mapping of fields to values, got {type(values).__name__}"
        )
    return values


def _check_fields(
    stem: str, values: Mapping[str, Any], required: Mapping[str, type], optional: Mapping[str, type]
) -> None:
    known = {**required, **optional}
    if missing := [name for name in required if name not in values]:
        raise ConfigError(f"recipe {stem!r} lacks {', '.join(missing)}")
    if unknown := [str(name) for name in values if name not in known]:
        raise ConfigError(
            f"recipe {stem!r} must have only {', '.join(known)}, got {', '.join(unknown)}"
        )
    for name, value in values.items():
        if not isinstance(value, known[name]) or isinstance(value, bool):
            raise ConfigError(
                f"recipe {stem!r}: {name} must be {known[name].__name__}, got {value!r}"
            )
