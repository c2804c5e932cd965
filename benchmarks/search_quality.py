"""How good a genotype does a search find, after how many trainings? On synthetic landscapes.

    python benchmarks/search_quality.py --repetitions 20
    python benchmarks/search_quality.py --methods paper default --repetitions 8

Prints the mean normalised regret in per cent with its standard error (0 is the optimum, 100 the
median random genotype), and the time that planning one individual takes after 200 trials. The
genotype that counts after n trials is the one with the best observed score among them, for every
method; its regret is that of its true score.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from landscapes import KINDS, N_BLOCKS, Landscape, landscape
from optuna.samplers import BaseSampler

from hf_biotune.evolution import BioTuneSampler, suggest_genotype

CHECKPOINTS = (50, 100, 140, 200)
BLOCKS = [f"block{index}" for index in range(N_BLOCKS)]
RESULTS = Path(__file__).parent / "results" / "search_quality.json"

METHODS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=False),
    "tpe-default": lambda seed: optuna.samplers.TPESampler(seed=seed),
    "nsgaii": lambda seed: optuna.samplers.NSGAIISampler(population_size=10, seed=seed),
    "cmaes": lambda seed: optuna.samplers.CmaEsSampler(seed=seed),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed),
    "paper": lambda seed: BioTuneSampler(BLOCKS, seed=seed, surrogate=False),
    "default": lambda seed: BioTuneSampler(BLOCKS, seed=seed),
}
# What a method needs besides Optuna.
REQUIREMENTS = {"cmaes": "cmaes", "gp": "torch"}
# Left out unless asked for: a run takes a minute instead of seconds.
SLOW = ("gp",)


def search(method: str, terrain: Landscape, n_trials: int) -> dict[str, Any]:
    """One search: the regret of the best observed genotype after each trial, and planning times."""
    study = optuna.create_study(direction="maximize", sampler=METHODS[method](terrain.repetition))
    noise = np.random.default_rng([7, terrain.repetition])
    regrets: list[float] = []
    planning: list[float] = []
    best = -np.inf
    for _ in range(n_trials):
        start = time.perf_counter()
        trial = study.ask()
        genes = suggest_genotype(trial, BLOCKS).to_array()
        planning.append(time.perf_counter() - start)
        score = terrain.observe(genes, 0, noise)
        study.tell(trial, score)
        if score > best:
            best, regret = score, terrain.regret(genes)
        regrets.append(regret)
    return {"regret": regrets, "planning_seconds": planning}


def measure(
    methods: Sequence[str], kinds: Sequence[str], repetitions: int, checkpoints: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """`{method: {kind: {"mean": [...], "standard_error": [...], "planning_seconds": ...}}}`."""
    results: dict[str, dict[str, Any]] = {method: {} for method in methods}
    for kind in kinds:
        for method in methods:
            runs = [
                search(method, landscape(kind, repetition), max(checkpoints))
                for repetition in range(repetitions)
            ]
            regrets = np.array([[run["regret"][n - 1] for n in checkpoints] for run in runs])
            error = regrets.std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else None
            # Thirteen trials are one generation: what choosing a kernel takes is shared by them.
            planning = np.mean([run["planning_seconds"][-13:] for run in runs])
            results[method][kind] = {
                "mean": regrets.mean(axis=0).round(2).tolist(),
                "standard_error": None if error is None else error.round(2).tolist(),
                "planning_seconds": round(float(planning), 5),
            }
            print(row(kind, method, results[method][kind]), flush=True)
    return results


def row(kind: str, method: str, result: dict[str, Any]) -> str:
    """A line of the table."""
    errors = result["standard_error"] or [float("nan")] * len(result["mean"])
    cells = "  ".join(
        f"{mean:5.1f} ({error:3.1f})" for mean, error in zip(result["mean"], errors, strict=True)
    )
    return f"{kind:<10} {method:<11} {cells}   {1e3 * result['planning_seconds']:7.1f} ms"


def versions() -> dict[str, str]:
    """What the numbers were measured with."""
    packages = ("hf-biotune", "numpy", "optuna", "scipy")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **found}


def main() -> None:
    available = [
        method
        for method in METHODS
        if method not in SLOW and importlib.util.find_spec(REQUIREMENTS.get(method, "optuna"))
    ]
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=available)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--checkpoints", nargs="+", type=int, default=list(CHECKPOINTS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    print(f"{'landscape':<10} {'method':<11} regret (standard error) after", *arguments.checkpoints)
    results = measure(
        arguments.methods, arguments.kinds, arguments.repetitions, arguments.checkpoints
    )
    report = {
        "repetitions": arguments.repetitions,
        "checkpoints": arguments.checkpoints,
        "versions": versions(),
        "results": results,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
