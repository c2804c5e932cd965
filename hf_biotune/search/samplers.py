"""Who chooses the genotypes of a search: evolution, or a sampler of Optuna to compare it with."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler

from ..evolution import BioTuneSampler, PlannedSampler, Scheme
from ..exceptions import ConfigError
from ..genotype import Genotype

if TYPE_CHECKING:
    from .search_config import SearchConfig

BIOTUNE = "biotune"
# In a search an individual that fails gets the worst score; to be tried again is for those that
# were interrupted. One that is the cause of it, by taking all of the machine's memory, must not be
# tried for ever.
MAXIMUM_DEATHS = 10
# From a seed and the size of a population. Otherwise as Optuna makes them, which is what people
# compare with.
_OF_OPTUNA: dict[str, Callable[[int, int], BaseSampler]] = {
    "random": lambda seed, size: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed, size: optuna.samplers.TPESampler(seed=seed),
    "cmaes": lambda seed, size: optuna.samplers.CmaEsSampler(
        seed=seed, warn_independent_sampling=False
    ),
    "gp": lambda seed, size: optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False),
    "nsgaii": lambda seed, size: optuna.samplers.NSGAIISampler(population_size=size, seed=seed),
}
SAMPLERS = (BIOTUNE, *_OF_OPTUNA)
# What a sampler needs beside Optuna: a package, which is also the name of our extra.
_EXTRAS = {"cmaes": "cmaes"}
_FOR_ONE_OBJECTIVE = ("cmaes",)


def check_sampler(sampler: Any) -> None:
    """Check what a user gave as the sampler of a search.

    Raises:
        ConfigError: an unknown name, or a sampler whose package is not installed.
    """
    if isinstance(sampler, BaseSampler):
        return
    if sampler not in SAMPLERS:
        raise ConfigError(
            f"sampler must be one of {', '.join(SAMPLERS)}, or a sampler of Optuna, got {sampler!r}"
        )
    package = _EXTRAS.get(sampler)
    if package is not None and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"sampler {sampler!r} needs the package {package!r}, which is not installed; "
            f"pip install 'hf-biotune[{package}]'"
        )


def check_objectives_fit(sampler: Any, objectives: Sequence[str]) -> None:
    """Check that a sampler can search for so many objectives.

    Raises:
        ConfigError: it can't.
    """
    if len(objectives) < 2:
        return
    if sampler in _FOR_ONE_OBJECTIVE or isinstance(sampler, optuna.samplers.CmaEsSampler):
        several = [name for name in SAMPLERS if name not in _FOR_ONE_OBJECTIVE]
        name = sampler if isinstance(sampler, str) else type(sampler).__name__
        raise ConfigError(
            f"sampler {name!r} searches for one objective, but objectives has {len(objectives)}: "
            f"{', '.join(objectives)}; those that can are {', '.join(several)}"
        )


def sampler_of(
    search: SearchConfig,
    scheme: Scheme,
    block_names: Sequence[str],
    first: Sequence[Genotype],
    costs: Sequence[Mapping[str, float] | None] = (),
) -> BioTuneSampler | PlannedSampler:
    """The sampler of a search.

    Args:
        search: which one.
        scheme: the sizes of its generations.
        block_names: of the partition, in order.
        first: genotypes of the first individuals, whoever chooses the others.
        costs: what each block adds to each objective after the first, as far as it is known.
    """
    if search.sampler == BIOTUNE:
        return BioTuneSampler(
            block_names,
            extra_genes=search.extra_genes,
            population_size=scheme.population_size,
            n_elites=scheme.n_elites,
            n_folds=scheme.n_folds,
            seed=search.seed,
            surrogate=search.surrogate,
            prefer_cheap=search.prefer_cheap,
            first=first,
            costs=costs,
            max_attempts=MAXIMUM_DEATHS,
        )
    make: Callable[[int], BaseSampler] | BaseSampler
    if isinstance(search.sampler, BaseSampler):
        make = search.sampler
    else:
        build = _OF_OPTUNA[search.sampler]

        def make(seed: int) -> BaseSampler:
            return build(seed, scheme.population_size)

    return PlannedSampler(
        block_names,
        make,
        scheme=scheme,
        extra_genes=search.extra_genes,
        seed=search.seed,
        first=first,
        max_attempts=MAXIMUM_DEATHS,
    )
