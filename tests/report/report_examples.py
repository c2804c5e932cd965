"""A small search made by hand: nine blocks, four generations of ten, three methods."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hf_biotune.blocks import Block, Partition
from hf_biotune.genotype import Genotype
from hf_biotune.report import ReportData

SIZES = {
    "stem": 928,
    "stage0": 1_448,
    "stage1": 16_714,
    "stage2": 46_640,
    "stage3": 242_930,
    "stage4": 543_148,
    "stage5": 2_026_348,
    "stage6": 722_528,
    "head": 12_810,
}
WINNER = {"stage1": 2.5, "stage2": 0.4, "stage3": 1.0, "stage5": 8.0}


def make_partition(sizes: dict[str, int] | None = None) -> Partition:
    blocks = [Block(n, (n,), (f"{n}.weight",), size) for n, size in (sizes or SIZES).items()]
    return Partition(tuple(blocks), "structure")


def make_history(
    partition: Partition,
    n_generations: int = 4,
    size: int = 10,
    n_folds: int = 1,
    seed: int = 0,
    winner: dict[str, float] | None = None,
) -> pd.DataFrame:
    """Scores rise by .05 a generation; the last individual of generation 2 is the winner."""
    generator = np.random.default_rng(seed)
    rows = []
    for trial in range(n_generations * size):
        generation, place = divmod(trial, size)
        genotype = Genotype.random(len(partition), generator)
        multipliers = genotype.decode(partition)
        score = 0.7 + 0.05 * generation + 0.1 * (generator.random() - 0.5)
        if winner is not None and generation == min(2, n_generations - 1) and place == size - 1:
            multipliers, score = winner, 0.931
        rows.append(_row(trial, generation, n_folds, score, genotype, multipliers, partition))
    return pd.DataFrame(rows)


def _row(
    trial: int,
    generation: int,
    n_folds: int,
    score: float,
    genotype: Genotype,
    multipliers: dict[str, float],
    partition: Partition,
) -> dict[str, Any]:
    return {
        "trial": trial,
        "generation": generation,
        "role": "offspring" if generation else "initial",
        "fold": generation % n_folds,
        "parents": [],
        "state": "complete",
        "score": score,
        "score_std": float("nan"),
        "epochs": 15,
        "trainings": 1,
        "seconds": 6.0,
        "trained_parameters": sum(partition[name].n_parameters for name in multipliers),
        "key": genotype.key,
        "freezing_threshold": genotype.freezing_threshold,
        **{
            f"importance:{n}": g for n, g in zip(partition.names, genotype.importances, strict=True)
        },
        **{f"multiplier:{n}": multipliers.get(n, float("nan")) for n in partition.names},
    }


def make_comparison(
    biotune: tuple[float, ...] = (0.951, 0.955),
    full: tuple[float, ...] = (0.921, 0.923),
    probe: tuple[float, ...] = (0.769, 0.766),
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            _method("linear probe", probe, 12_810, 12_810 / 3_613_494, 31.0, 0, 0, 1e-3),
            _method("full fine-tuning", full, 3_613_494, 1.0, 95.4, 0, 0, 3e-4),
            _method("BioTune", biotune, 2_332_632, 2_332_632 / 3_613_494, 71.2, 730.0, 40, 1e-3),
        ]
    )


def _method(
    method: str,
    scores: tuple[float, ...],
    trained: int,
    share: float,
    seconds: float,
    search_seconds: float,
    search_trainings: int,
    lr: float,
) -> dict[str, Any]:
    return {
        "method": method,
        "seeds": list(range(len(scores))),
        "test_scores": list(scores),
        "validation_scores": [score - 0.01 for score in scores],
        "trained_parameters": trained,
        "trained_share": share,
        "seconds": seconds,
        "search_seconds": search_seconds,
        "search_trainings": search_trainings,
        "lr": lr,
    }


def make_data(**changes: Any) -> ReportData:
    partition = changes.pop("partition", None) or make_partition()
    history = changes.pop("history", None)
    data = ReportData(
        title="BioTune on mnist-200",
        model_name="tf_efficientnet_lite0",
        dataset_name="mnist-200",
        metric="macro_accuracy",
        greater_is_better=True,
        partition=partition,
        history=make_history(partition, winner=WINNER) if history is None else history,
        best_multipliers=WINNER,
        norm_statistics="epoch",
        comparison=make_comparison(),
        facts={
            "individuals": "40",
            "trainings": "40",
            "search time": "12 min 10 s",
            "base learning rate": "1e-3",
            "batch size": "32",
            "device": "CPU, 2 threads",
            "hf_biotune": "0.1.0",
            "torch": "2.14.1",
        },
        command="hf-biotune tune --model tf_efficientnet_lite0 --dataset mnist-200 --seed 0",
        python=(
            "from hf_biotune import BioTuneModel\n\n"
            'model = BioTuneModel.from_pretrained(base_model, "out/adapter")\n'
        ),
    )
    return replace(data, **changes)
