"""Does an individual that starts from a relative's weights keep its rank at a third of the cost?

    python benchmarks/warm_start.py --demo demo

EfficientNet-Lite0 on digits-100 at 32 pixels. Some parents are trained to the end, then children of
each, which differ from it in one or two blocks: frozen instead of trained or the reverse, or at
another rate. Each child is scored three times: from scratch; from scratch after a third of its
epochs, as halving sees it; and trained for a third of the epochs from its parent's weights, as far
as both train the same blocks. The question is how well the two cheap scores rank the children as
the first does.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from environment import save_results
from peft import PeftModel
from scipy.stats import spearmanr
from torch import nn

from hf_biotune import BioTuneConfig, BioTuneModel, partition
from hf_biotune.search import (
    FitnessEvaluator,
    StoppingRule,
    default_training_arguments,
    resolve_metric,
)
from hf_biotune.search.encode import encode_splits
from hf_biotune.search.execution import Execution
from hf_biotune.search.fitness import RunKeeper
from hf_biotune.search.models import image_classifier, load_image_processor
from hf_biotune.search.prefix_cache import PrefixCache
from hf_biotune.search.sources import load_dataset_splits
from hf_biotune.search.training import BlockTraining
from hf_biotune.search.weights import BaseModelPool

RESULTS = Path(__file__).parent / "results" / "warm_start.json"
PACKAGES = ("hf-biotune", "torch", "transformers", "peft", "timm")
PARENTS, CHILDREN = 3, 7
EPOCHS, FEW_EPOCHS = 9, 3
SEED = 684
Rates = dict[str, float]


class WarmTraining(BlockTraining):
    """Starts from given weights where it trains.

    Args:
        config: which blocks, at which rates.
        tensors: of a relative, by name in the base model.
    """

    def __init__(self, config: BioTuneConfig, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__(config)
        self._tensors = tensors

    def wrap(self, base: nn.Module) -> BioTuneModel:
        wrapped = super().wrap(base)
        own = wrapped.biotune_state_dict()
        with torch.no_grad():
            for name in own.keys() & self._tensors.keys():
                own[name].copy_(self._tensors[name])
        return wrapped


class Keeper(RunKeeper):
    """Keeps the weights of the best epoch."""

    def on_best_epoch(self, model: PeftModel, score: float) -> None:
        self.tensors = {n: t.detach().clone() for n, t in model.biotune_state_dict().items()}


@dataclass
class Child:
    parent: int
    rates: Rates
    scratch: float
    rung: float
    warm: float
    scratch_seconds: float
    warm_seconds: float


def random_rates(names: tuple[str, ...], generator: np.random.Generator) -> Rates:
    """Each block is trained with probability 2/3, at a tenth to ten times the rate."""
    drawn = {n: rate(generator) for n in names if generator.random() < 2 / 3}
    return drawn or {names[-1]: 1.0}


def rate(generator: np.random.Generator) -> float:
    return float(10 ** generator.uniform(-1, 1))


def relative(rates: Rates, names: tuple[str, ...], generator: np.random.Generator) -> Rates:
    """Differs in one or two blocks."""
    changed = dict(rates)
    for name in generator.choice(names, size=generator.integers(1, 3), replace=False):
        if name not in changed:
            changed[name] = rate(generator)
        elif generator.random() < 0.5 and len(changed) > 1:
            del changed[name]
        else:
            changed[name] = rate(generator)
    return {name: changed[name] for name in names if name in changed}


class Laboratory:
    """The model, the data, and two lengths of training."""

    def __init__(self, demo: Path) -> None:
        model = str(demo / "efficientnet-lite0")
        data = encode_splits(
            load_dataset_splits(str(demo / "digits-100")),
            load_image_processor(model),
            name="digits-100",
            image_size=32,
        )
        pool = BaseModelPool(image_classifier(model, data.label_names))
        execution = Execution("channels_last", fused_optimizer=True)
        execution.lay_out(pool.model)
        self.names = partition(pool.model).names
        cache = PrefixCache(pool)
        self._evaluators = {
            epochs: FitnessEvaluator(
                pool,
                data.train,
                data.validation,
                default_training_arguments(use_cpu=True, num_train_epochs=epochs),
                resolve_metric("macro_accuracy"),
                StoppingRule(patience=None),
                execution,
                cache,
            )
            for epochs in (EPOCHS, FEW_EPOCHS)
        }

    def train(self, training: BlockTraining, epochs: int) -> tuple[list[float], float, Keeper]:
        """Scores by epoch, CPU seconds and weights."""
        keeper = Keeper()
        started = time.process_time()
        result = self._evaluators[epochs].evaluate(training, [SEED], keeper=keeper)
        seconds = time.process_time() - started
        return [epoch.score for epoch in result.runs[0].curve], seconds, keeper


def config(rates: Rates) -> BioTuneConfig:
    return BioTuneConfig(lr_multipliers=rates, saved_blocks=[])


def children_of(parent: int, demo: Path) -> list[Child]:
    torch.set_num_threads(1)
    generator = np.random.default_rng([7, parent])
    laboratory = Laboratory(demo)
    rates = random_rates(laboratory.names, generator)
    _, _, keeper = laboratory.train(BlockTraining(config(rates)), EPOCHS)
    children = []
    for _ in range(CHILDREN):
        own = relative(rates, laboratory.names, generator)
        scratch, seconds, _ = laboratory.train(BlockTraining(config(own)), EPOCHS)
        warm, warm_seconds, _ = laboratory.train(
            WarmTraining(config(own), keeper.tensors), FEW_EPOCHS
        )
        children.append(
            Child(
                parent,
                {name: round(rate, 3) for name, rate in own.items()},
                max(scratch),
                max(scratch[:FEW_EPOCHS]),
                max(warm),
                round(seconds, 2),
                round(warm_seconds, 2),
            )
        )
        print(json.dumps(vars(children[-1])), flush=True)
    return children


def summary(children: list[Child]) -> dict[str, float]:
    def rank(cheap: str, chosen: list[Child]) -> float:
        scores = [[getattr(child, name) for child in chosen] for name in ("scratch", cheap)]
        return round(float(spearmanr(*scores).statistic), 3)

    families = [[c for c in children if c.parent == parent] for parent in range(PARENTS)]
    scratch, warm = (sum(getattr(c, f"{w}_seconds") for c in children) for w in ("scratch", "warm"))
    return {
        "children": len(children),
        "rank correlation of a warm start": rank("warm", children),
        "rank correlation after a third of the epochs": rank("rung", children),
        "the same within families, mean": round(
            float(np.nanmean([rank("warm", family) for family in families])), 3
        ),
        "after a third within families, mean": round(
            float(np.nanmean([rank("rung", family) for family in families])), 3
        ),
        "CPU seconds from scratch": round(scratch, 1),
        "CPU seconds warm": round(warm, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        demos = [arguments.demo] * PARENTS
        families = list(pool.map(children_of, range(PARENTS), demos))
    children = [child for family in families for child in family]
    report = {
        "settings": {"epochs": EPOCHS, "few epochs": FEW_EPOCHS, "pixels": 32, "seed": SEED},
        "summary": summary(children),
        "children": [vars(child) for child in children],
    }
    print(json.dumps(report["summary"], indent=1))
    save_results(arguments.output, report, PACKAGES)


if __name__ == "__main__":
    main()
