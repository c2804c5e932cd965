"""Train many genotypes of a real model on real data, once, and keep every learning curve.

    python examples/prepare_demo.py --output demo --only efficientnet-lite0 --only digits-100
    python benchmarks/record_table.py --model demo/efficientnet-lite0 --dataset demo/digits-100

The table is what `replay.py` answers searches from, in microseconds instead of minutes. So that it
knows the places where searches go and favours none, its genotypes come from

- `start`: the seeded start of a search (linear probe, full fine-tuning, last half, and rates by
  relative gradient norms),
- `random`: 70 times U[0, 1],
- `paper`, `default`, `tpe`, `cmaes`: 20 each that these samplers propose in a search of their own,
  whose feedback is the validation score of seed 684.

Each is trained to the end with all three published seeds on all data, and with `--folds` on each of
the two half-data folds of `SearchConfig.paper()` too. That takes an hour of one core, or two.
Results are appended to `--records`, a line each, as they come: start the command again and it goes
on where it was. When nothing is left to train, they are packed into `--output`, as far as seeds are
complete; with `--pack-only` at once.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from environment import machine, versions
from replay import TABLE
from samplers import METHODS
from table import ALL_DATA, Table
from torch import nn

from hf_biotune import BioTuneConfig, Genotype, partition
from hf_biotune.evolution import suggest_genotype
from hf_biotune.search import (
    DataSplits,
    EncodedSplit,
    FitnessEvaluator,
    SearchConfig,
    StoppingRule,
    default_training_arguments,
    load_dataset_splits,
    resolve_metric,
)
from hf_biotune.search.encode import encode_splits
from hf_biotune.search.fitness_result import EpochRecord
from hf_biotune.search.folds import folds
from hf_biotune.search.forward import Forward
from hf_biotune.search.gradients import relative_gradient_norms
from hf_biotune.search.identity import fingerprint_of_model
from hf_biotune.search.models import image_classifier, load_image_processor
from hf_biotune.search.starts import starting_points
from hf_biotune.search.task import predict
from hf_biotune.search.weights import BaseModelPool

METRIC = resolve_metric("macro_accuracy")
IMAGE_SIZE = 32
SEEDS = SearchConfig.paper().seeds
FOLD_FRACTION = SearchConfig.paper().fold_fraction
N_RANDOM = 70
SEARCHED = {"paper": 20, "default": 20, "tpe": 20, "cmaes": 20}
_TRAINING = (
    "optim",
    "learning_rate",
    "lr_scheduler_type",
    "per_device_train_batch_size",
    "weight_decay",
    "max_grad_norm",
)
RECORDS = Path("build") / "table_records.jsonl"


@dataclass(frozen=True)
class Task:
    """One training.

    Args:
        source: where the genotype comes from.
        genotype: what is trained.
        seed: of the training.
        fold: of the data; `ALL_DATA` for all of it.
    """

    source: str
    genotype: Genotype
    seed: int
    fold: int = ALL_DATA

    @property
    def key(self) -> tuple[str, int, int]:
        """What makes two tasks the same training."""
        return self.genotype.key, self.seed, self.fold


class TestedCurve:
    """Follows a training and scores it on test samples: its best epoch's weights, and its last's.

    Args:
        model: that is trained, in place.
        test: the samples.
        epochs: of the training.
    """

    def __init__(self, model: nn.Module, test: EncodedSplit, epochs: int) -> None:
        self._model, self._test, self._epochs = model, test, epochs
        self._kept: dict[str, torch.Tensor] = {}
        self.best = self.last = METRIC.worst
        # Of this process, spent here and not by the training.
        self.seconds = 0.0

    def __call__(self, seed: int, curve: Sequence[EpochRecord]) -> bool:
        """The hook that [`FitnessEvaluator`] calls after each epoch."""
        started = time.process_time()
        scores = [epoch.score for epoch in curve]
        best = scores.index(max(scores))  # of equal ones the first, as in the search
        if len(curve) == self._epochs:
            self.best = self.last = self._test_score()
            if best < len(curve) - 1:
                self._model.load_state_dict(self._kept)
                self.best = self._test_score()
        elif best == len(curve) - 1:
            state = self._model.state_dict()
            self._kept = {name: tensor.clone() for name, tensor in state.items()}
        self.seconds += time.process_time() - started
        return True

    def _test_score(self) -> float:
        logits = predict(Forward(self._model, "cpu"), self._test.view(), batch_size=250)
        return METRIC.compute(logits, self._test.labels)


class Laboratory:
    """Trains tasks, one after the other, on one core."""

    def __init__(self, model: str, dataset: str) -> None:
        torch.set_num_threads(1)
        self.data = load_data(model, dataset)
        pool = BaseModelPool(image_classifier(model, self.data.label_names))
        pool.model.to(memory_format=torch.channels_last)
        args = default_training_arguments(use_cpu=True)
        self.evaluator = FitnessEvaluator(
            pool,
            self.data.train,
            self.data.validation,
            args,
            METRIC,
            StoppingRule(patience=None),
        )
        self.partition = partition(pool.model)
        self.folds = folds(
            self.data.train.labels.numpy(),
            self.data.validation.labels.numpy(),
            FOLD_FRACTION,
            seed=SearchConfig.paper().seed,
        )

    def train(self, task: Task) -> dict[str, Any]:
        """The record of one training: its curves, test scores and cost."""
        assert self.data.test is not None
        split = None if task.fold == ALL_DATA else self.folds[task.fold]
        tested = TestedCurve(self.evaluator.pool.model, self.data.test, self.evaluator.epochs)
        started = time.process_time()
        fitness = self.evaluator.evaluate(
            BioTuneConfig.from_genotype(task.genotype, self.partition),
            [task.seed],
            None if split is None else split.train,
            None if split is None else split.validation,
            tested,
        )
        seconds = time.process_time() - started - tested.seconds
        run = fitness.runs[0]
        return {
            "source": task.source,
            "genotype": task.genotype.to_dict(),
            "seed": task.seed,
            "fold": task.fold,
            "validation_score": [epoch.score for epoch in run.curve],
            "validation_loss": [epoch.validation_loss for epoch in run.curve],
            "train_loss": [epoch.train_loss for epoch in run.curve],
            "test_score": tested.best,
            "test_score_last": tested.last,
            "stopped": run.stopped,
            "trained_parameters": fitness.trained_parameters,
            "cpu_seconds": round(seconds, 3),
        }

    def starts(self) -> dict[str, Genotype]:
        """The seeded start of a search, by name."""
        evaluator = self.evaluator
        samples = evaluator.train.view(None)
        ratios = relative_gradient_norms(
            evaluator.pool, self.partition, samples, evaluator.args, seed=SEEDS[0]
        )
        return starting_points(self.partition, ratios)

    def about(self, seeds: Sequence[int]) -> dict[str, Any]:
        """What the table was recorded with; `seeds` are those that are complete."""
        evaluator = self.evaluator
        return {
            "model": f"EfficientNet-Lite0, ImageNet ({fingerprint_of_model(evaluator.pool.model)})",
            "data": f"{self.data.name} ({self.data.fingerprint})",
            "image_size": IMAGE_SIZE,
            "n_classes": self.data.train.n_classes,
            "samples": {
                "train": len(self.data.train),
                "validation": len(self.data.validation),
                "test": len(self.data.test or ()),
            },
            "block_names": self.partition.names,
            "starts": {name: genotype.to_dict() for name, genotype in self.starts().items()},
            "seeds": list(seeds),
            "fold_fraction": FOLD_FRACTION,
            "n_epochs": evaluator.epochs,
            "training": {name: str(getattr(evaluator.args, name)) for name in _TRAINING},
            "memory_layout": "channels_last",
            "versions": versions(
                "hf-biotune", "numpy", "optuna", "cmaes", "peft", "timm", "torch", "transformers"
            ),
            "machine": {**machine(), "threads": torch.get_num_threads()},
        }


def load_data(model: str, dataset: str) -> DataSplits:
    """All three splits, in memory."""
    return encode_splits(
        load_dataset_splits(dataset),
        load_image_processor(model),
        name=Path(dataset).name,
        image_size=IMAGE_SIZE,
    )


@cache
def laboratory(model: str, dataset: str) -> Laboratory:
    """The laboratory of this process."""
    return Laboratory(model, dataset)


def train(model: str, dataset: str, task: Task) -> dict[str, Any]:
    """What a worker process does."""
    return laboratory(model, dataset).train(task)


class Notebook:
    """The records on disk, appended a line at a time.

    Args:
        path: of the file; made if there is none. A last line that was cut off is dropped.
    """

    def __init__(self, path: Path) -> None:
        self.records: dict[tuple[str, int, int], dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        whole, _, rest = text.rpartition("\n")
        if rest:
            path.write_text(whole + "\n" if whole else "")
        for line in whole.splitlines():
            self._enter(json.loads(line))
        self._file = path.open("a")

    def _enter(self, record: dict[str, Any]) -> None:
        genotype = Genotype.from_dict(record["genotype"])
        self.records[genotype.key, record["seed"], record["fold"]] = record

    def add(self, record: dict[str, Any]) -> None:
        """Keep a record, on disk at once."""
        self._enter(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


# A plan yields tasks and is sent their records.
Plan = Generator[Task, dict[str, Any], None]


def each(tasks: Sequence[Task]) -> list[Plan]:
    """A plan for each task, so that they may run side by side."""

    def single(task: Task) -> Plan:
        yield task

    return [single(task) for task in tasks]


def search(method: str, n_genotypes: int, block_names: Sequence[str]) -> Plan:
    """Train what a sampler proposes, until it has proposed so many different genotypes."""
    sampler = METHODS[method](block_names, SEEDS[0])
    study = optuna.create_study(direction="maximize", sampler=sampler)
    seen = set()
    while len(seen) < n_genotypes:
        trial = study.ask()
        genotype = suggest_genotype(trial, block_names)
        if not genotype.is_valid:
            study.tell(trial, METRIC.worst)
            continue
        record = yield Task(method, genotype, SEEDS[0])
        study.tell(trial, max(record["validation_score"]))
        seen.add(genotype.key)


class Recorder:
    """Runs plans on worker processes and writes down what comes back."""

    def __init__(self, notebook: Notebook, model: str, dataset: str, processes: int) -> None:
        self._notebook = notebook
        self._work = (model, dataset)
        self._processes = processes
        self._executor = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))

    def run(self, plans: Sequence[Plan]) -> None:
        """Carry all plans out, the first ones first."""
        waiting: Iterator[Plan] = iter(plans)
        running: dict[Future[dict[str, Any]], Plan] = {}

        def proceed(plan: Plan, task: Task | None) -> bool:
            """Go on until the plan ends or needs a training; whether it does."""
            while task is not None:
                if task.key not in self._notebook.records:
                    running[self._executor.submit(train, *self._work, task)] = plan
                    return True
                task = self._send(plan, self._notebook.records[task.key])
            return False

        while True:
            while len(running) < self._processes and (plan := next(waiting, None)) is not None:
                proceed(plan, next(plan))
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                plan, record = running.pop(done), done.result()
                self._notebook.add(record)
                self._report(record)
                proceed(plan, self._send(plan, record))

    @staticmethod
    def _send(plan: Plan, record: dict[str, Any]) -> Task | None:
        try:
            return plan.send(record)
        except StopIteration:
            return None

    def _report(self, record: dict[str, Any]) -> None:
        print(
            f"{len(self._notebook.records):5d} {record['source']:<8} seed {record['seed']} "
            f"fold {record['fold']:2d} validation {max(record['validation_score']):.3f} "
            f"test {record['test_score']:.3f} {record['cpu_seconds']:5.2f} s",
            flush=True,
        )


def record(recorder: Recorder, notebook: Notebook, here: Laboratory, with_folds: bool) -> None:
    """Everything, in the order of its worth: one seed, further seeds, folds."""
    blocks = here.partition
    starts = [Task("start", start, SEEDS[0]) for start in here.starts().values()]
    generator = np.random.default_rng(0)
    drawn = [Genotype.random(len(blocks), generator) for _ in range(N_RANDOM)]
    searches = [search(method, n, blocks.names) for method, n in SEARCHED.items()]
    recorder.run(each(starts))
    # Searches first: each must wait for its own results, random genotypes fill the gaps.
    recorder.run([*searches, *each([Task("random", genotype, SEEDS[0]) for genotype in drawn])])
    genotypes = {
        key: (row["source"], Genotype.from_dict(row["genotype"]))
        for (key, _, _), row in notebook.records.items()
    }
    folds_of_paper = range(round(1 / FOLD_FRACTION)) if with_folds else ()
    for fold in (ALL_DATA, *folds_of_paper):
        for seed in SEEDS:
            recorder.run(each([Task(*pair, seed, fold) for pair in genotypes.values()]))


def complete_seeds(notebook: Notebook) -> list[int]:
    """Those with which every genotype was trained on all data."""
    genotypes = {key for key, _, _ in notebook.records}
    return [
        seed
        for seed in SEEDS
        if all((key, seed, ALL_DATA) in notebook.records for key in genotypes)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="demo/efficientnet-lite0")
    parser.add_argument("--dataset", default="demo/digits-100")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--output", type=Path, default=TABLE)
    parser.add_argument("--folds", action="store_true", help="the two half-data folds too")
    parser.add_argument("--pack-only", action="store_true", help="train nothing more")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    notebook = Notebook(arguments.records)
    here = Laboratory(arguments.model, arguments.dataset)
    if not arguments.pack_only:
        recorder = Recorder(notebook, arguments.model, arguments.dataset, arguments.processes)
        record(recorder, notebook, here, arguments.folds)
    seeds = complete_seeds(notebook)
    records = [record for record in notebook.records.values() if record["seed"] in seeds]
    Table.from_records(records, here.about(seeds)).save(arguments.output)


if __name__ == "__main__":
    main()
