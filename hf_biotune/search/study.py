"""`biotune_search`: run, stop, resume and end a search.

All state lives in the Optuna storage. Killing the process at any moment loses at most the training
in flight; starting it again goes on from there and ends as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
from optuna.storages import BaseStorage
from torch import nn
from torch.utils.data import Dataset
from transformers import TrainingArguments

from ..blocks import BlockSpec
from ..exceptions import ConfigError
from .data import EncodedSplit
from .leadership import check_can_be_sent, leading, told_to
from .listener import SearchListener
from .metrics import resolve_metric
from .output_directory import check_search_directory
from .ray_workers import PROCESSES, RAY, RayWorkers, check_backend
from .ready_made import encode_for
from .result import SearchResult
from .search_config import SearchConfig
from .storages import STUDY_NAME, open_storage
from .team import Team
from .tracking import tracked
from .workers import Work, Workers, check_workers, with_shared_memory


def biotune_search(
    model_init: Callable[[], nn.Module],
    train_dataset: EncodedSplit | Dataset[Any] | datasets.Dataset,
    eval_dataset: EncodedSplit | Dataset[Any] | datasets.Dataset,
    args: TrainingArguments | None = None,
    search: SearchConfig | None = None,
    *,
    blocks: BlockSpec = "auto",
    storage: str | BaseStorage | None = None,
    study_name: str = STUDY_NAME,
    workers: int = 1,
    backend: str = PROCESSES,
    listener: SearchListener | None = None,
) -> SearchResult:
    """Find, by evolution, which blocks of a model to fine-tune and how fast each.

    Args:
        model_init: makes the pre-trained model, as for `Trainer`; its head may be new and random.
        train_dataset: samples to train on: what `Trainer` would be given, if all items have the
            same shape (see [`encode_dataset`]), or of [`encode_splits`], which keeps images small.
        eval_dataset: samples that individuals are scored on. Keep your test set away from here.
        args: of each training: learning rate, epochs, batch size, schedule. What `report_to` names
            gets the metrics of generations; see [`Trackers`]. With `output_dir` the
            search is kept in a journal file there. Default: [`default_training_arguments`], in
            memory.
        search: budget and scheme. Default: `SearchConfig()`.
        blocks: how the model is divided; see [`partition`].
        storage: where the study is kept, instead of the journal file: `"memory"`, a URL, or a
            storage of Optuna; see [`open_storage`].
        study_name: in that storage.
        workers: processes of this machine that share the search, at least 1: this one and others,
            which it starts. Each has a GPU of its own as far as there are, otherwise they share the
            CPU's threads. Programs on other terminals or machines that search with the same
            settings in the same storage take part as well. With several, which individuals are
            tried depends on who is how fast. Default: 1.
        backend: who runs the workers: `"processes"` (default) of this machine, or `"ray"` (extra
            `ray`): so many tasks of a Ray cluster, or of a Ray that is started on this machine;
            see [`RayWorkers`].
        listener: is told what happens.

    Each training is spread over several processes if the program is started so, by `torchrun` or
    `accelerate launch`: batches are divided among them as DDP does, and are as many times as large.
    One process keeps the search; all of them return the same.

    Returns:
        The winner and everything that was tried.

    Raises:
        DataError: a data set is not one of labelled items of the same shape.
        ConfigError: an argument of another type, settings that can't be used together, or a
            storage that can't be opened, or not by several workers.
        StorageError: the storage fails in mid-search.
        TrainingError: more trainings fail than `SearchConfig.max_failed_share` allows.
        StudyMismatchError: the storage holds the study of another model, data set or search.
    """
    _check_types(model_init, args, search)
    if args is None:
        args = default_training_arguments()
        storage = storage or "memory"
    search = search or SearchConfig()
    check_workers(workers)
    check_backend(backend)
    if storage is None:
        check_search_directory(args.output_dir)
    team = Team.of(args)
    _check_is_alone(team, workers, backend)
    work = Work(
        model_init,
        *encode_for(model_init, train_dataset, eval_dataset),
        args,
        with_shared_memory(search, workers * team.size),
        blocks,
        open_storage(storage if team.is_leader else "memory", args.output_dir),
        study_name,
    )
    others = RayWorkers(work, workers) if backend == RAY else Workers(work, workers)
    metric = resolve_metric(search.metric, search.greater_is_better)
    check_can_be_sent(team, metric)
    if not team.is_leader:
        return work.engine(SearchListener(), team).follow()
    engine = work.engine(
        tracked(listener or SearchListener(), args, metric.greater_is_better), team
    )
    with leading(team), engine.open(work.storage, study_name):
        with others:
            if isinstance(others, RayWorkers):
                engine.watch(others.are_working)
            else:
                engine.work(others.check)
        result = engine.choose()
    with leading(team):
        return told_to(team, result)


def _check_types(model_init: Any, args: Any, search: Any) -> None:
    """What is easily mixed up, before anything is done."""
    if isinstance(model_init, nn.Module) or not callable(model_init):
        raise ConfigError(
            f"model_init must be a function that makes the pre-trained model anew at each call, as "
            f"for Trainer, got {type(model_init).__name__}; define one that returns, for example, "
            f"AutoModelForImageClassification.from_pretrained(...)"
        )
    if args is not None and not isinstance(args, TrainingArguments):
        raise ConfigError(
            f"args must be TrainingArguments, got {type(args).__name__}; give search=... by name"
        )
    if search is not None and not isinstance(search, SearchConfig):
        raise ConfigError(f"search must be a SearchConfig, got {type(search).__name__}")
    if args is not None and args.max_steps > 0:
        raise ConfigError(
            f"max_steps={args.max_steps} has no meaning for a search, whose trainings are compared "
            f"epoch by epoch; give num_train_epochs"
        )


def _check_is_alone(team: Team, workers: int, backend: str) -> None:
    """A search whose trainings are distributed is not distributed itself."""
    if team.size > 1 and (workers > 1 or backend != PROCESSES):
        raise ConfigError(
            f"WORLD_SIZE={team.size}: torchrun or accelerate launch spreads each training over "
            f"{team.size} processes, so it can't have workers={workers} and backend={backend!r} "
            f"as well; leave these out, or start it without the launcher to train as many "
            f"individuals at once, which is faster wherever the model fits one device"
        )


def default_training_arguments(
    output_dir: str | None = None, **overrides: Any
) -> TrainingArguments:
    """The published training: Adam at 1e-3 with a cosine schedule; 15 epochs, batches of 32.

    Args:
        output_dir: see `TrainingArguments`.
        overrides: any argument of `TrainingArguments`.

    Raises:
        ConfigError: `learning_rate` is not greater than 0.

    Source: arXiv 2508.15367 (optimizer, rate, schedule); epochs and batch for small data sets.
    """
    check_learning_rate(overrides.get("learning_rate", 1e-3))
    defaults: dict[str, Any] = {
        "learning_rate": 1e-3,
        "lr_scheduler_type": "cosine",
        "num_train_epochs": 15,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 128,
        "report_to": "none",
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(output_dir=output_dir, **{**defaults, **overrides})


def check_learning_rate(learning_rate: float) -> None:
    """Check a base rate, before anything is loaded.

    Args:
        learning_rate: greater than 0 and finite.

    Raises:
        ConfigError: it is not.
    """
    if not 0.0 < learning_rate < float("inf"):
        raise ConfigError(f"learning_rate must be greater than 0, got {learning_rate}")
