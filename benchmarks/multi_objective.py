"""How good a front of score and trained parameters does a search find, after how many trainings?

    python benchmarks/multi_objective.py --repetitions 10

On the synthetic landscapes of `landscapes.py`, whose blocks get sizes spread over two decades, as
those of real networks are. Prints the hypervolume (larger is better) that the tried genotypes
dominate after 50 and 100 trainings, and its standard error. The score counts without noise, as a
share of the way from the median random genotype to the optimum, and a cost as the share of all
parameters, so that 1 would be the optimum for nothing. What isn't measured again stays in the
results.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from environment import save_results
from landscapes import BLOCK_NAMES, KINDS, N_BLOCKS, Landscape, landscape
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume
from optuna.samplers import BaseSampler

from hf_biotune.evolution import BioTuneSampler, suggest_genotype

CHECKPOINTS = (50, 100)
RESULTS = Path(__file__).parent / "results" / "multi_objective.json"
PACKAGES = ("hf-biotune", "numpy", "optuna", "scipy")
REFERENCE = np.array([1.0, 1.0])

METHODS: dict[str, Callable[[Mapping[str, float], int], BaseSampler]] = {
    "random": lambda sizes, seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda sizes, seed: optuna.samplers.TPESampler(seed=seed),
    "nsgaii": lambda sizes, seed: optuna.samplers.NSGAIISampler(population_size=10, seed=seed),
    "paper": lambda sizes, seed: BioTuneSampler(
        BLOCK_NAMES, seed=seed, surrogate=False, costs=[sizes]
    ),
    "default": lambda sizes, seed: BioTuneSampler(BLOCK_NAMES, seed=seed, costs=[sizes]),
    # The same, but that it has to learn what a genotype costs.
    "learned cost": lambda sizes, seed: BioTuneSampler(BLOCK_NAMES, seed=seed),
}


def sizes_of(repetition: int) -> NDArray[np.float64]:
    """The share of all parameters that each block has."""
    sizes = 10.0 ** np.random.default_rng([99, repetition]).uniform(0.0, 2.0, N_BLOCKS)
    return np.asarray(sizes / sizes.sum())


def search(method: str, place: Landscape) -> list[float]:
    """One search: the hypervolume at each checkpoint, and the CPU seconds of planning a trial."""
    sizes = sizes_of(place.repetition)
    sampler = METHODS[method](dict(zip(BLOCK_NAMES, sizes, strict=True)), place.repetition)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    noise = np.random.default_rng([7, place.repetition])
    points: list[tuple[float, float]] = []
    planning = 0.0
    for _ in range(max(CHECKPOINTS)):
        start = time.process_time()
        trial = study.ask()
        genes = suggest_genotype(trial, BLOCK_NAMES).to_array()
        planning += time.process_time() - start
        cost = float((genes[:-1] > genes[-1]) @ sizes)
        study.tell(trial, [place.observe(genes, 0, noise), cost])
        points.append((min(1.0, place.regret(genes) / 100.0), min(1.0, cost)))
    volumes = [compute_hypervolume(np.array(points[:n]), REFERENCE) for n in CHECKPOINTS]
    return [*map(float, volumes), planning / max(CHECKPOINTS)]


def measure(method: str, kind: str, repetitions: int) -> dict[str, Any]:
    """Means over repetitions, with standard errors."""
    runs = np.array([search(method, landscape(kind, number)) for number in range(repetitions)])
    volumes = runs[:, :-1]
    return {
        "checkpoints": list(CHECKPOINTS),
        "repetitions": repetitions,
        "mean": volumes.mean(axis=0).round(4).tolist(),
        "standard_error": (volumes.std(axis=0, ddof=1) / np.sqrt(repetitions)).round(4).tolist(),
        "planning_seconds": round(float(runs[:, -1].mean()), 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=10, help="at least 2")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    path: Path = arguments.output
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    print(f"{'landscape':<10} {'method':<13} hypervolume (standard error) after", *CHECKPOINTS)
    for kind in arguments.kinds:
        for method in arguments.methods:
            result = measure(method, kind, arguments.repetitions)
            results.setdefault(kind, {})[method] = result
            pairs = zip(result["mean"], result["standard_error"], strict=True)
            cells = "  ".join(f"{mean:.3f} ({error:.3f})" for mean, error in pairs)
            print(f"{kind:<10} {method:<13} {cells}", flush=True)
            write(path, results)


def write(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """Keep `{landscape: {method: what was measured}}`."""
    save_results(path, {"results": results}, PACKAGES)


if __name__ == "__main__":
    main()
