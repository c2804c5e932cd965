"""How good a genotype does a search find, after how many trainings?

    python benchmarks/search_quality.py --repetitions 20
    python benchmarks/search_quality.py --methods gp --repetitions 5
    python benchmarks/search_quality.py --methods paper default --kinds digits

On three synthetic landscapes (`landscapes.py`) and on recorded trainings of a real model
(`replay.py`). Prints the mean normalised regret in per cent with its standard error (0 is the
optimum, 100 the median random genotype), and the time that planning one individual takes after 200
trials. The genotype that counts after n trials is the one with the best observed score among them,
for every method; its regret is that of its true score. What was measured before and isn't measured
again stays in the results.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
from environment import save_results
from landscapes import KINDS, landscape
from numpy.typing import NDArray
from replay import KIND, TABLE, RealTable
from samplers import METHODS, REQUIREMENTS, SLOW
from table import Table

from hf_biotune.evolution import suggest_genotype

CHECKPOINTS = (50, 100, 140, 200)
RESULTS = Path(__file__).parent / "results" / "search_quality.json"
PACKAGES = ("hf-biotune", "cmaes", "numpy", "optuna", "scipy", "torch")


class Terrain(Protocol):
    """What a search is measured on; see `landscapes.Landscape`."""

    repetition: int

    @property
    def block_names(self) -> Sequence[str]:
        """One gene each, and one for the freezing threshold."""

    def observe(
        self, genes: NDArray[np.float64], fold: int, generator: np.random.Generator
    ) -> float:
        """The score that a training would report."""

    def regret(self, genes: NDArray[np.float64]) -> float:
        """How far below the optimum, in per cent: 100 for the median random genotype."""


def terrain(kind: str, repetition: int) -> Terrain:
    """The landscape of a kind, one of `landscapes.KINDS` or `replay.KIND`, and a number."""
    return RealTable(repetition, _table()) if kind == KIND else landscape(kind, repetition)


@cache
def _table() -> Table:
    return Table.load(TABLE)


def search(method: str, place: Terrain, n_trials: int) -> dict[str, list[float]]:
    """One search: the regret of the best observed genotype after each trial, and planning times."""
    blocks = place.block_names
    sampler = METHODS[method](blocks, place.repetition)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    noise = np.random.default_rng([7, place.repetition])
    regrets: list[float] = []
    planning: list[float] = []
    best = -np.inf
    for _ in range(n_trials):
        start = time.perf_counter()
        trial = study.ask()
        genes = suggest_genotype(trial, blocks).to_array()
        planning.append(time.perf_counter() - start)
        score = place.observe(genes, 0, noise)
        study.tell(trial, score)
        if score > best:
            best, regret = score, place.regret(genes)
        regrets.append(regret)
    return {"regret": regrets, "planning_seconds": planning}


def measure(
    method: str, kind: str, repetitions: Sequence[int], checkpoints: Sequence[int]
) -> dict[str, Any]:
    """The mean regret at each checkpoint, its standard error, and the time to plan one trial."""
    runs = [search(method, terrain(kind, number), max(checkpoints)) for number in repetitions]
    regrets = np.array([[run["regret"][n - 1] for n in checkpoints] for run in runs])
    error = regrets.std(axis=0, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else None
    # Thirteen trials are one generation: what choosing a kernel takes is shared by them.
    planning = np.mean([run["planning_seconds"][-13:] for run in runs])
    return {
        "checkpoints": list(checkpoints),
        "repetitions": len(runs),
        "mean": regrets.mean(axis=0).round(2).tolist(),
        "standard_error": None if error is None else error.round(2).tolist(),
        "planning_seconds": round(float(planning), 5),
    }


def row(kind: str, method: str, result: dict[str, Any]) -> str:
    """A line of the table."""
    errors = result["standard_error"] or [float("nan")] * len(result["mean"])
    cells = "  ".join(
        f"{mean:5.1f} ({error:3.1f})" for mean, error in zip(result["mean"], errors, strict=True)
    )
    return f"{kind:<10} {method:<11} {cells}   {1e3 * result['planning_seconds']:7.1f} ms"


def main() -> None:
    available = [
        method
        for method in METHODS
        if method not in SLOW and importlib.util.find_spec(REQUIREMENTS.get(method, "optuna"))
    ]
    kinds = (*KINDS, KIND)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=available)
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=list(kinds))
    parser.add_argument("--checkpoints", nargs="+", type=int, default=list(CHECKPOINTS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    path: Path = arguments.output
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    repetitions = range(arguments.first, arguments.first + arguments.repetitions)
    print(f"{'landscape':<10} {'method':<11} regret (standard error) after", *arguments.checkpoints)
    for kind in arguments.kinds:
        for method in arguments.methods:
            result = measure(method, kind, repetitions, arguments.checkpoints)
            results.setdefault(kind, {})[method] = result
            print(row(kind, method, result), flush=True)
            write(path, results)


def write(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Keep `{landscape: {method: what was measured}}`."""
    save_results(path, {"results": results}, PACKAGES)


if __name__ == "__main__":
    main()
