"""Do BatchNorm statistics that are averages of an epoch pay in short trainings?

    python examples/prepare_demo.py --output demo
    OMP_NUM_THREADS=1 python benchmarks/norm_statistics.py --demo demo

EfficientNet-Lite0 on digits, MNIST and solar cells at 32 pixels, 8 epochs. The same trainings, with
the same seed and batches, once for each thing that the statistics of trained blocks can do: full
fine-tuning, also at a third of the rate, the last half, and random genotypes. After each epoch the
network is scored on the validation samples; nothing is chosen by them. The weights are the same in
`train` and `epoch`, so that the statistics alone make the difference. Ten minutes of one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import save_results
from search_cost import PACKAGES, SETTINGS, Laboratory

from hf_biotune import BioTuneConfig, Genotype, Partition, partition
from hf_biotune.search import FitnessEvaluator, StoppingRule, default_training_arguments
from hf_biotune.search.execution import Execution
from hf_biotune.search.weights import BaseModelPool

RESULTS = Path(__file__).parent / "results" / "norm_statistics.json"
MODES = ("train", "epoch", "frozen")
EPOCHS, SEED, N_RANDOM = 8, 1, 4
RANDOM = "random genotype"


def choices(blocks: Partition) -> dict[str, dict[str, float]]:
    """What is trained, and how fast, by name."""
    names = blocks.names
    generator = np.random.default_rng(0)
    drawn = [
        Genotype.from_array(generator.random(len(names) + 1)).repaired() for _ in range(N_RANDOM)
    ]
    return {
        "full fine-tuning": dict.fromkeys(names, 1.0),
        "full fine-tuning, rate / 3": dict.fromkeys(names, 1 / 3),
        "last half": dict.fromkeys(names[len(names) // 2 :], 1.0),
        **{f"{RANDOM} {i}": genes.decode(blocks) for i, genes in enumerate(drawn)},
    }


def curve(laboratory: Laboratory, pool: BaseModelPool, config: BioTuneConfig) -> list[float]:
    """Validation scores after each epoch."""
    args = replace(default_training_arguments(use_cpu=True), num_train_epochs=EPOCHS)
    evaluator = FitnessEvaluator(
        pool,
        laboratory.data.train,
        laboratory.data.validation,
        args,
        laboratory.metric,
        StoppingRule(patience=None),
        Execution("channels_last"),
    )
    (run,) = evaluator.evaluate(config, [SEED]).runs
    return [round(epoch.score, 4) for epoch in run.curve]


def measure(demo: Path, setting: str) -> list[dict[str, Any]]:
    """A row for each training."""
    laboratory = Laboratory(demo, setting, 0)
    pool = BaseModelPool(laboratory.model_init)
    rows = []
    for name, multipliers in choices(partition(pool.model)).items():
        for mode in MODES[:2] if name.startswith(RANDOM) else MODES:
            config = BioTuneConfig(
                lr_multipliers=multipliers, norm_statistics=mode, saved_blocks=[]
            )
            scores = curve(laboratory, pool, config)
            rows.append({"setting": setting, "trained": name, "mode": mode, "scores": scores})
            print(row_of(rows[-1]), flush=True)
    return rows


def row_of(row: Mapping[str, Any]) -> str:
    """A line about a training."""
    scores = " ".join(f"{score:.3f}" for score in row["scores"])
    return f"{row['setting']:<11} {row['trained']:<27} {row['mode']:<7} {scores}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for setting in arguments.settings:
        rows += measure(arguments.demo, setting)
        save_results(arguments.output, {"epochs": EPOCHS, "rows": rows}, PACKAGES)


if __name__ == "__main__":
    main()
