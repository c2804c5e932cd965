"""What does a search cost, and what is it worth? The paper's scheme against the default, for real.

    for seed in 0 1 2; do python examples/prepare_demo.py --output demo --seed $seed; done
    OMP_NUM_THREADS=1 python benchmarks/search_cost.py run --settings digits-100 --variants paper
    OMP_NUM_THREADS=1 python benchmarks/search_cost.py run --settings digits-100 --variants default
    python benchmarks/search_cost.py report

EfficientNet-Lite0 with ImageNet weights, on digits, MNIST and solar cells at 32 pixels: on two
cores, at 64 pixels the paper's 510 trainings alone would take hours for each split. Even at 32 they
take one to two, so that on MNIST (100 images, not 200) and solar cells the variant `paper, our
layout` stands for `paper`: the same trainings but for rounding, at less cost. `run` searches, then
trains the winner with seeds that no search has seen, on all training data, and tests it. Each run
is kept in `--directory` as soon as it is finished and is not repeated; a search that is killed goes
on where it was. Costs are seconds of this process on the CPU, with one thread: work of other
processes slows a search down, but hardly costs it CPU seconds. What it does cost them (caches are
shared) is seen by a reference training before and after each search.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from environment import save_results
from search_cost_report import search_cost_section
from torch import nn

from hf_biotune import BioTuneConfig, SearchConfig, biotune_search, partition
from hf_biotune.baselines import baseline_config
from hf_biotune.evolution import genotype_of
from hf_biotune.search import (
    DataSplits,
    FineTuner,
    FitnessEvaluator,
    SearchListener,
    SearchResult,
    StoppingRule,
    TrialReport,
    default_training_arguments,
    load_dataset_splits,
    resolve_metric,
)
from hf_biotune.search.encode import encode_splits
from hf_biotune.search.execution import Execution
from hf_biotune.search.finalists import confirmations
from hf_biotune.search.models import image_classifier, load_image_processor
from hf_biotune.search.weights import BaseModelPool

MODEL = "efficientnet-lite0"
SETTINGS = ("digits-100", "mnist-100", "mnist-200", "elpv-256")
IMAGE_SIZE = 32
# Of the final trainings: the search has seen others.
FINAL_SEEDS = tuple(range(1, 6))
RESULTS = Path(__file__).parent / "results" / "search_cost.json"
PACKAGES = ("hf-biotune", "torch", "transformers", "peft", "optuna", "timm")
# So many individuals tell what one costs, for the table of levers.
FEW = {"budget": None, "generations": 1, "n_finalists": 0}
# Memory layout, precision and optimizer kernel: by measurement, or none of it.
MEASURED = {"memory_layout": "auto", "precision": "auto", "fused_optimizer": "auto"}
PLAIN = {"memory_layout": "contiguous", "precision": "fp32", "fused_optimizer": False}
# Random genotypes and the published operators.
UNGUIDED = {"surrogate": False, "seeded_start": False}

VARIANTS: dict[str, Callable[[], SearchConfig]] = {
    "paper": SearchConfig.paper,
    "default": SearchConfig,
    # The same trainings but for rounding, at less cost: where the paper's own take too long.
    "paper, our layout": lambda: SearchConfig.paper(
        memory_layout="channels_last", fused_optimizer=True
    ),
    "extra genes": lambda: SearchConfig(extra_genes=("norm_statistics", "base_lr")),
    "norm statistics": lambda: SearchConfig(extra_genes=("norm_statistics",)),
    "15 trainings": lambda: SearchConfig(budget=15),
    "10 trainings": lambda: SearchConfig(budget=10),
    "PyTorch's statistics": lambda: SearchConfig(norm_statistics="train"),
    # What people do by hand: no search, the final trainings alone.
    "full fine-tuning": SearchConfig,
    "linear probe": SearchConfig,
    # One more lever each, from the paper's scheme to the default's.
    "paper, few": lambda: SearchConfig.paper(**FEW),
    "+ layout": lambda: SearchConfig.paper(**FEW, **MEASURED),
    "+ one seed": lambda: SearchConfig.paper(
        **FEW, **MEASURED, seeds_per_individual=1, fold_fraction=1.0
    ),
    "+ halving, racing": lambda: SearchConfig(
        **FEW, **UNGUIDED, memoise=False, patience_from=0.0, prefix_cache=False
    ),
    "+ reuse": lambda: SearchConfig(**FEW, **UNGUIDED, prefix_cache=False),
    "+ cache": lambda: SearchConfig(**FEW, **UNGUIDED),
    "default, few": lambda: SearchConfig(**FEW),
    # One lever less each.
    "- layout": lambda: SearchConfig(**FEW, **PLAIN),
    "- racing": lambda: SearchConfig(**FEW, racing=False, seeds_per_individual=3),
    "- halving": lambda: SearchConfig(**FEW, halving=False),
    "- reuse": lambda: SearchConfig(**FEW, memoise=False),
    "- cache": lambda: SearchConfig(**FEW, prefix_cache=False),
    "- surrogate": lambda: SearchConfig(**FEW, surrogate=False),
    "- seeded start": lambda: SearchConfig(**FEW, seeded_start=False),
    "- preference for cheap": lambda: SearchConfig(**FEW, prefer_cheap=False),
}
BY_HAND = ("full fine-tuning", "linear probe")


@dataclass
class Run:
    """One search and its winner's worth.

    Args:
        setting: name of the data set.
        split: which images are for training, validation and test.
        variant: of the search.
        trainings: in units of a full training, finalists included.
        epochs: that were trained, finalists included.
        individuals: that were tried, by state.
        cpu_seconds: of the search.
        seconds: of wall time.
        reference_seconds: on the CPU, of a full fine-tuning without any lever, before and after.
        validation_score: of the winner, as the search believes it.
        test_scores: of the winner's final trainings.
        ensemble_score: on test samples, of the best three as the search kept them; no training.
        multipliers: of the winner.
        memory_layout: of the trainings.
        norm_statistics: of BatchNorm in trained blocks, as the search was told.
        frozen_first: how many first blocks each individual froze, in the order they were tried.
        cache: what the prefix cache did; see [`CacheStatistics`].
    """

    setting: str
    split: int
    variant: str
    trainings: float = 0.0
    epochs: int = 0
    individuals: dict[str, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    reference_seconds: list[float] = field(default_factory=list)
    validation_score: float = 0.0
    test_scores: list[float] = field(default_factory=list)
    ensemble_score: float | None = None
    multipliers: dict[str, float] = field(default_factory=dict)
    memory_layout: str = "channels_last"
    norm_statistics: str = "epoch"
    frozen_first: list[int] = field(default_factory=list)
    cache: dict[str, Any] = field(default_factory=dict)


class Clock(SearchListener):
    """Counts the seconds of a search on disk, so that those of a killed process count too.

    Args:
        path: a line for each mark, `[CPU seconds, seconds]` since the one before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = (time.process_time(), time.perf_counter())

    def mark(self) -> None:
        """Write down what has passed since the last mark."""
        now = (time.process_time(), time.perf_counter())
        passed = [round(n - last, 3) for n, last in zip(now, self._last, strict=True)]
        self._last = now
        with self._path.open("a") as file:
            file.write(json.dumps(passed) + "\n")

    def on_trial_end(self, report: TrialReport) -> None:
        self.mark()

    def on_finalist(self, number: int, seed: int, score: float) -> None:
        self.mark()

    def totals(self) -> tuple[float, float]:
        """CPU seconds and seconds of all sessions."""
        lines = [json.loads(line) for line in self._path.read_text().splitlines()]
        return sum(cpu for cpu, _ in lines), sum(wall for _, wall in lines)


class Laboratory:
    """One data set and the model, in memory.

    Args:
        demo: where `prepare_demo.py` has put them.
        setting: name of the data set.
        split: see [`Run`].
    """

    def __init__(self, demo: Path, setting: str, split: int) -> None:
        model = str(demo / MODEL)
        path = demo / (setting if split == 0 else f"{setting}-seed{split}")
        self.data: DataSplits = encode_splits(
            load_dataset_splits(str(path)),
            load_image_processor(model),
            name=setting,
            image_size=IMAGE_SIZE,
        )
        self.model_init: Callable[[], nn.Module] = image_classifier(model, self.data.label_names)
        self.metric = resolve_metric("macro_accuracy")

    def search(self, config: SearchConfig, directory: Path, clock: Clock) -> SearchResult:
        """A search that is kept in a directory."""
        args = default_training_arguments(str(directory), use_cpu=True)
        clock.mark()
        result = biotune_search(
            self.model_init, self.data.train, self.data.validation, args, config, listener=clock
        )
        clock.mark()
        return result

    def reference_seconds(self) -> float:
        """CPU seconds of a full fine-tuning to the end, convolutions laid out as torch does."""
        pool = BaseModelPool(self.model_init)
        evaluator = FitnessEvaluator(
            pool,
            self.data.train,
            self.data.validation,
            default_training_arguments(use_cpu=True),
            self.metric,
            StoppingRule(patience=None),
        )
        config = baseline_config("full fine-tuning", partition(pool.model))
        started = time.process_time()
        evaluator.evaluate(config, [0])
        return round(time.process_time() - started, 2)

    def ensemble_score(self, result: SearchResult) -> float | None:
        """The test score of the best three individuals as one model."""
        return self._tuner("contiguous").scores_of(result.ensemble(3))[1]

    def test(self, config: BioTuneConfig, layout: str, seeds: Sequence[int]) -> list[float]:
        """Test scores of final trainings on all training data."""
        tuner = self._tuner(layout)
        scores = [tuner.fit(config, seed).test_score for seed in seeds]
        return [score for score in scores if score is not None]

    def _tuner(self, layout: str) -> FineTuner:
        return FineTuner(
            self.model_init,
            self.data,
            default_training_arguments(use_cpu=True),
            self.metric,
            StoppingRule(),
            Execution(layout),
        )


def run(laboratory: Laboratory, run: Run, directory: Path) -> Run:
    """Search, unless the variant is one of those by hand, then train the winner and test it."""
    if run.variant in BY_HAND:
        names = partition(laboratory.model_init())
        config = baseline_config(run.variant, names)
    else:
        config = searched(laboratory, run, directory)
        run.norm_statistics = VARIANTS[run.variant]().norm_statistics
    run.multipliers = config.lr_multipliers
    if not is_few(run.variant):
        run.test_scores = laboratory.test(config, run.memory_layout, FINAL_SEEDS)
    return run


def is_few(variant: str) -> bool:
    """Whether a variant is about the cost alone."""
    return variant.endswith("few") or variant[0] in "+-"


def searched(laboratory: Laboratory, run: Run, directory: Path) -> BioTuneConfig:
    """Search, and write down what it cost."""
    run.reference_seconds = [laboratory.reference_seconds()]
    clock = Clock(directory / "cpu_seconds.jsonl")
    result = laboratory.search(VARIANTS[run.variant](), directory, clock)
    run.cpu_seconds, run.seconds = clock.totals()
    run.reference_seconds.append(laboratory.reference_seconds())
    run.trainings = result.trainings
    run.epochs = int(result.history.epochs.sum())
    run.epochs += sum(fitness.epochs for fitness in confirmations(result.study))
    run.individuals = result.history.state.value_counts().to_dict()
    run.validation_score = result.best_score
    run.memory_layout = result.execution.memory_layout
    run.frozen_first = [
        (*genotype_of(trial, result.partition.names).selected, True).index(True)
        for trial in result.study.trials
        if trial.params  # not of one that was killed before it began
    ]
    if result.cache_statistics is not None:
        run.cache = asdict(result.cache_statistics)
    if not is_few(run.variant):
        run.ensemble_score = laboratory.ensemble_score(result)
    return result.best_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=("run", "report"))
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--directory", type=Path, default=Path("build") / "search_cost")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--splits", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["paper", "default"])
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.command == "report":
        paths = sorted(arguments.directory.glob("*.json"))
        runs = [json.loads(path.read_text()) for path in paths]
        print(search_cost_section(runs))
        save_results(arguments.output, {"runs": runs}, PACKAGES)
        return
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for setting in arguments.settings:
        for split in arguments.splits:
            for variant in arguments.variants:
                run_once(arguments, setting, split, variant)


def run_once(arguments: argparse.Namespace, setting: str, split: int, variant: str) -> None:
    """One run, unless its result is there."""
    name = f"{setting}-split{split}-{variant.replace(' ', '_')}"
    path: Path = arguments.directory / f"{name}.json"
    if path.exists():
        return
    directory: Path = arguments.directory / name
    directory.mkdir(parents=True, exist_ok=True)
    laboratory = Laboratory(arguments.demo, setting, split)
    finished = run(laboratory, Run(setting, split, variant), directory)
    path.write_text(json.dumps(asdict(finished), indent=1) + "\n")
    print(json.dumps(asdict(finished)), flush=True)


if __name__ == "__main__":
    main()
