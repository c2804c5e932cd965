"""Whole searches on recorded trainings: the real engine, whose trainings come from the table.

    python benchmarks/replayed_search.py --repetitions 20

Halving, patience, folds, seeds, reuse, finalists and budgets are those of `biotune_search`; only
the training itself is looked up. Prints, for each preset and for the default without each of its
savings, the regret of the genotype that the search chooses (`replay.py` says of what), and what it
would have spent. `tests/benchmarks` holds the default preset to what is kept in `results/`.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from environment import save_results
from landscapes import Phenotype
from replay import TABLE, RealTable
from table import ALL_DATA, Table
from torch import nn

from hf_biotune import BioTuneConfig
from hf_biotune.search import (
    EncodedSplit,
    FitnessEvaluator,
    FitnessResult,
    SearchConfig,
    SearchListener,
    default_training_arguments,
)
from hf_biotune.search.engine import SearchEngine
from hf_biotune.search.fitness import EpochHook, RunKeeper
from hf_biotune.search.fitness_result import EpochRecord, SeedRun
from hf_biotune.search.folds import Split
from hf_biotune.search.starts import STARTS_KEY
from hf_biotune.search.training import Training

RESULTS = Path(__file__).parent / "results" / "replayed_search.json"
PACKAGES = ("hf-biotune", "numpy", "optuna", "scipy", "torch")


class Blocks(nn.Module):
    """Stands for the recorded model: one tiny layer for each of its blocks."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Never called: nothing is trained."""
        raise RuntimeError("recorded trainings need no forward pass")


class RecordedFitness(FitnessEvaluator):
    """Looks trainings up instead of doing them.

    Args:
        evaluator: what it stands in for.
        terrain: the table.
        splits: the folds of the search.
    """

    def __init__(
        self, evaluator: FitnessEvaluator, terrain: RealTable, splits: Sequence[Split]
    ) -> None:
        self.__dict__.update(evaluator.__dict__)
        self._terrain = terrain
        self._splits = splits

    def evaluate(
        self,
        config: BioTuneConfig | Training,
        seeds: Sequence[int],
        train_indices: np.ndarray | None = None,
        validation_indices: np.ndarray | None = None,
        after_epoch: EpochHook | None = None,
        keeper: RunKeeper | None = None,
    ) -> FitnessResult:
        """See [`FitnessEvaluator.evaluate`]; there are no weights to keep."""
        assert isinstance(config, BioTuneConfig)
        table = self._terrain.table
        row = self._terrain.nearest_to(phenotype_of(config, table.block_names))
        part = table.part(self._fold(train_indices))
        runs: list[SeedRun] = []
        for seed in seeds:
            place = (row, list(table.seeds).index(seed), part)
            runs.append(self._replay(place, seed, after_epoch))
            if runs[-1].stopped == "halving":
                break
        samples = len(self.train) if train_indices is None else len(train_indices)
        return FitnessResult(
            runs=tuple(runs),
            trained_parameters=int(table.trained_parameters[row]),
            trainings=samples / len(self.train) / self.epochs * sum(run.epochs for run in runs),
        )

    def _fold(self, indices: np.ndarray | None) -> int:
        if indices is None or len(indices) == len(self.train):
            return ALL_DATA
        return next(n for n, split in enumerate(self._splits) if split.train is indices)

    def _replay(
        self, place: tuple[int, int, int], seed: int, after_epoch: EpochHook | None
    ) -> SeedRun:
        table = self._terrain.table
        if not table.recorded[place]:
            raise LookupError(f"genotype {place[0]} has no training with seed {seed} on this fold")
        whole = [
            EpochRecord(*map(float, values), learning_rate=float("nan"))
            for values in zip(
                table.train_loss[place],
                table.validation_loss[place],
                table.validation_score[place],
                strict=True,
            )
            if np.isfinite(values).all()
        ]
        curve: list[EpochRecord] = []
        stopped = "diverged" if table.diverged[place] else ""
        for epoch in whole:
            curve.append(epoch)
            if after_epoch is not None and not after_epoch(seed, curve):
                stopped = "halving"
                break
            scores = [e.score for e in curve]
            if self.stopping.is_over(scores, self.epochs, self.metric):
                stopped = "patience" if len(curve) < self.epochs else ""
                break
        score = self.metric.worst if stopped == "diverged" else max(e.score for e in curve)
        seconds = float(table.cpu_seconds[place]) * len(curve) / self.epochs
        return SeedRun(seed, tuple(curve), score, seconds, stopped)


def phenotype_of(config: BioTuneConfig, block_names: Sequence[str]) -> Phenotype:
    """Which blocks a configuration trains, and log10 of their multipliers; one row."""
    multipliers = [config.lr_multipliers.get(name, np.nan) for name in block_names]
    trained = ~np.isnan(multipliers)
    return Phenotype(trained[None], np.log10(np.where(trained, multipliers, 1.0))[None])


@dataclass(frozen=True)
class Outcome:
    """What a search found and spent.

    Args:
        regret: of the genotype that it chose, in per cent.
        test_score: of that genotype.
        individuals: that it tried, reused ones included.
        trainings: in units of one full training.
        seconds: of CPU, as recorded.
    """

    regret: float
    test_score: float
    individuals: int
    trainings: float
    seconds: float


def replay(search: SearchConfig, table: Table) -> Outcome:
    """Run a whole search on recorded trainings.

    Args:
        search: its fold fraction must be one that was recorded; its seeds are those of the table.
        table: where the trainings are.
    """
    seeds = tuple(table.seeds.tolist())
    per_individual = min(search.seeds_per_individual, len(seeds))
    search = replace(search, seeds=seeds, seeds_per_individual=per_individual)
    terrain = RealTable(search.seed, table)
    names = table.block_names
    engine = SearchEngine(
        lambda: Blocks(names),
        _samples(table, "train"),
        _samples(table, "validation"),
        default_training_arguments(num_train_epochs=table.about["n_epochs"], use_cpu=True),
        search,
        list(names),
        SearchListener(),
    )
    engine._evaluator = RecordedFitness(engine._evaluator, terrain, engine._folds)
    storage = optuna.storages.InMemoryStorage()
    # Those of the real model: gradients of the stand-in say nothing.
    study = optuna.create_study(storage=storage, study_name="replay", direction="maximize")
    study.set_user_attr(STARTS_KEY, table.about["starts"])
    with engine.open(storage, "replay"):
        engine.work()
        result = engine.choose()
    genes = result.best_genotype.to_array()
    return Outcome(
        regret=terrain.regret(genes),
        test_score=terrain.true(genes),
        individuals=len(result.history),
        trainings=result.trainings,
        seconds=result.seconds,
    )


def _samples(table: Table, split: str) -> EncodedSplit:
    """As many samples as were recorded on, the same number in each class."""
    n_classes = table.about["n_classes"]
    labels = torch.arange(table.about["samples"][split]) % n_classes
    names = tuple(map(str, range(n_classes)))
    return EncodedSplit({"x": torch.zeros(len(labels), 1)}, labels, names)


# Nothing is computed, so there is nothing to time, and there are no weights to keep.
PLAIN: dict[str, Any] = {
    "memory_layout": "contiguous",
    "precision": "fp32",
    "fused_optimizer": False,
    "keep_best": 0,
}


def _paper(**settings: Any) -> SearchConfig:
    """The published scheme on all data, which tells it more than its folds would."""
    return SearchConfig.paper(**{"fold_fraction": 1.0, **settings})


def _without(**changed: Any) -> Callable[..., SearchConfig]:
    return lambda **settings: SearchConfig(**{**changed, **settings})


VARIANTS: dict[str, Callable[..., SearchConfig]] = {
    "paper": _paper,
    "default": SearchConfig,
    # One lever less each, at the same budget.
    "- halving": _without(halving=False),
    "- racing": _without(racing=False),
    "- reuse": _without(memoise=False),
    "- surrogate": _without(surrogate=False),
    "- preference for cheap": _without(prefer_cheap=False),
    "- seeded start": _without(seeded_start=False),
    "- finalists": _without(n_finalists=0),
    # Others that choose, with all of the default's savings.
    "random": _without(sampler="random"),
    "tpe": _without(sampler="tpe"),
    # Other budgets.
    **{f"budget {budget}": _without(budget=budget) for budget in (10, 15, 25, 30, 40, 60)},
}


def repeat(variant: str, seeds: Sequence[int], table: Table) -> list[Outcome]:
    """The same search with several seeds of the evolution."""
    return [replay(VARIANTS[variant](seed=seed, **PLAIN), table) for seed in seeds]


def summary(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """The mean of each measure, and its standard error."""
    values = np.array([list(vars(outcome).values()) for outcome in outcomes], dtype=float)
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return {
        name: {"mean": round(float(mean), 4), "standard_error": round(float(error), 4)}
        for name, mean, error in zip(vars(outcomes[0]), values.mean(axis=0), errors, strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first repetition")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    table = Table.load(TABLE)
    seeds = range(arguments.first, arguments.first + arguments.repetitions)
    path: Path = arguments.output
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    for variant in arguments.variants:
        measured = summary(repeat(variant, seeds, table))
        results[variant] = {"repetitions": len(seeds), **measured}
        cells = [f"{n} {m['mean']:.4g} ({m['standard_error']:.2g})" for n, m in measured.items()]
        print(f"{variant:<15}", *cells, flush=True)
    about = {name: table.about[name] for name in ("model", "data", "image_size", "n_epochs")}
    save_results(path, {"table": about, "results": results}, PACKAGES)


if __name__ == "__main__":
    main()
