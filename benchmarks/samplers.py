"""The search methods that are compared, by name: every one on the same space of genes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import optuna
from optuna.samplers import BaseSampler

from hf_biotune.evolution import BioTuneSampler

METHODS: dict[str, Callable[[Sequence[str], int], BaseSampler]] = {
    "random": lambda blocks, seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda blocks, seed: optuna.samplers.TPESampler(seed=seed, multivariate=False),
    "tpe-default": lambda blocks, seed: optuna.samplers.TPESampler(seed=seed),
    "nsgaii": lambda blocks, seed: optuna.samplers.NSGAIISampler(population_size=10, seed=seed),
    "cmaes": lambda blocks, seed: optuna.samplers.CmaEsSampler(seed=seed),
    "gp": lambda blocks, seed: optuna.samplers.GPSampler(seed=seed),
    "paper": lambda blocks, seed: BioTuneSampler(blocks, seed=seed, surrogate=False),
    "default": lambda blocks, seed: BioTuneSampler(blocks, seed=seed),
}
# What a method needs besides Optuna.
REQUIREMENTS = {"cmaes": "cmaes", "gp": "torch"}
# Left out unless asked for: a run takes a minute instead of seconds.
SLOW = ("gp",)
