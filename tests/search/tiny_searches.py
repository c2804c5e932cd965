"""Searches whose trainings take milliseconds, in processes of their own that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import optuna
import torch
from torch import nn

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.evolution import plan_of
from hf_biotune.search import EncodedSplit, default_training_arguments
from hf_biotune.search.history import finished_trials, fitness_of
from hf_biotune.search.storages import open_storage

BLOCKS = ("stem", "body", "head")
# Every individual costs one training.
SEARCH = SearchConfig(
    budget=12,
    population_size=5,
    n_elites=1,
    seeds=(1, 2),
    n_finalists=2,
    racing=False,
    halving=False,
    memoise=False,
    surrogate=False,
    seeded_start=False,
    keep_best=0,
    prefix_cache=False,
    memory_layout="contiguous",
    precision="fp32",
    fused_optimizer=False,
)


class Tiny(nn.Module):
    """Three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x).relu()).relu())


def samples(seed: int) -> EncodedSplit:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(16, 4, generator=generator)
    labels = (x.sum(1) + 0.7 * torch.randn(16, generator=generator) > 0).long()
    return EncodedSplit({"x": x}, labels, ("no", "yes"))


def search(directory: Path, config: SearchConfig = SEARCH, **kwargs):
    """A whole search, or the rest of one, with everything in a directory."""
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    args = default_training_arguments(
        str(directory), num_train_epochs=1, per_device_train_batch_size=16, use_cpu=True
    )
    return biotune_search(
        kwargs.pop("model_init", Tiny),
        samples(1),
        samples(2),
        args,
        config,
        blocks=BLOCKS,
        **kwargs,
    )


# -- processes --------------------------------------------------------------------------------

_CONTEXT = multiprocessing.get_context("forkserver")
# Importing takes a hundred times as long as a training; so processes are forked from one that has.
_CONTEXT.set_forkserver_preload(["hf_biotune.search", "hf_biotune.search.workers"])


def start(directory: Path, config: SearchConfig = SEARCH, **kwargs):
    """The same in a process of its own, as on another terminal."""
    process = _CONTEXT.Process(target=search, args=(directory, config), kwargs=kwargs, daemon=True)
    process.start()
    return process


def kill(process) -> None:
    """As `kill -9` does."""
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def wait_for(condition, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.01)


# -- what they leave ----------------------------------------------------------------------------


def study_of(directory: Path, storage: str | None = None) -> optuna.Study:
    return optuna.load_study(study_name="hf_biotune", storage=open_storage(storage, directory))


def results(study: optuna.Study) -> dict[int, tuple]:
    """What each finished trial was, and what it scored."""
    return {
        trial.number: (plan_of(trial), fitness_of(trial).score) for trial in finished_trials(study)
    }


def course(study: optuna.Study) -> list[tuple]:
    """What must not depend on kills: everything but the numbers, which orphans shift."""
    rows = []
    for trial in finished_trials(study):
        plan, fitness = plan_of(trial), fitness_of(trial)
        curves = [run.curve for run in fitness.runs]
        rows.append((replace(plan, parents=()), fitness.score, curves))
    return rows
