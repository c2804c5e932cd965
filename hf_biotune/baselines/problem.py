"""`Problem`: what every method gets. One model, one split of one data set, one way to train."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, InMemoryStorage
from torch import nn
from transformers import TrainingArguments
from transformers.training_args import OptimizerNames

from ..blocks import BlockSpec, Partition, partition
from ..config import BioTuneConfig
from ..module_blocks import blocks_of_module
from ..norm_statistics import has_statistics
from ..search import (
    DataSplits,
    FitnessEvaluator,
    SearchConfig,
    SearchListener,
    SearchResult,
    StoppingRule,
    biotune_search,
    resolve_metric,
)
from ..search.engine import prefix_cache
from ..search.execution import Execution, precision_of
from ..search.team import check_is_no_team
from ..search.weights import BaseModelPool
from .setting import Tried


class Problem:
    """What methods are compared on, the same for all of them.

    Args:
        model_init: makes the pre-trained model, as for `Trainer`; its head may be new and random.
        data: samples to train on, to choose settings by, and to test final models on.
        args: of every training: base learning rate, epochs, batch size, schedule, optimizer.
        search: metric, patience and first seed hold for every method, the rest for the methods that
            search. Default: [`SearchConfig`].
        blocks: how the model is divided; see [`partition`].
        execution: memory layout, precision and optimizer kernel of every training. Default: as
            `args` say.
        directory: where searches are kept, so that they go on after an interruption and are shared
            by methods. Default: in memory, as long as this object lives.
        listener: is told of stages, and of everything in searches.
    """

    def __init__(
        self,
        model_init: Callable[[], nn.Module],
        data: DataSplits,
        args: TrainingArguments,
        search: SearchConfig | None = None,
        *,
        blocks: BlockSpec = "auto",
        execution: Execution | None = None,
        directory: str | Path | None = None,
        listener: SearchListener | None = None,
    ) -> None:
        check_is_no_team("A comparison of methods")
        self.model_init = model_init
        self.data = data
        self.args = args
        self.blocks = blocks
        self.execution = execution or Execution.of(args)
        self.directory = None if directory is None else Path(directory)
        self.listener = listener or SearchListener()
        # The results of searches by name, which several methods may use.
        self.searches: dict[str, SearchResult] = {}
        # Settings that were tried, by method; whoever wants to keep them puts a mapping here.
        self.attempts: MutableMapping[str, Tried] = {}
        self.pool = BaseModelPool(model_init, args.device)
        self.execution.lay_out(self.pool.model)
        self.partition: Partition = partition(self.pool.model, blocks)
        self.search = search or SearchConfig()
        self.metric = resolve_metric(self.search.metric, self.search.greater_is_better)
        self.evaluator = FitnessEvaluator(
            self.pool,
            data.train,
            data.validation,
            args,
            self.metric,
            StoppingRule(self.search.patience, self.search.patience_from),
            self.execution,
            # Searches have one, and so their seconds can be compared with those of other methods.
            prefix_cache(self.pool, self.search, args),
        )

    @property
    def model(self) -> nn.Module:
        """The base model, with weights of any seed; to look at, not to change."""
        return self.pool.model

    @property
    def tuning_seed(self) -> int:
        """The seed of every training that a setting is chosen by."""
        return self.search.seeds[0]

    @property
    def head(self) -> str:
        """The last block."""
        return self.partition.names[-1]

    @cached_property
    def batch_norm_blocks(self) -> frozenset[str]:
        """The blocks with BatchNorm statistics in them."""
        return batch_norm_blocks(self.pool.model, self.partition)

    @cached_property
    def new_blocks(self) -> tuple[str, ...]:
        """The blocks without pre-trained weights: these depend on the seed."""
        seeds = (self.tuning_seed, self.tuning_seed + 1)
        return tuple(self.pool.seeded_blocks(self.partition, seeds))

    def search_result(self, sampler: str) -> SearchResult:
        """The search with this sampler, run or resumed if that was not done before.

        Args:
            sampler: see [`SearchConfig`].
        """
        if sampler not in self.searches:
            self.listener.on_stage(f"search: {sampler}")
            args = copy.copy(self.args)
            storage: BaseStorage | None = InMemoryStorage()
            if self.directory is not None:
                args.output_dir, storage = str(self.directory / f"search-{sampler}"), None
            self.searches[sampler] = biotune_search(
                self.model_init,
                self.data.train,
                self.data.validation,
                args,
                self._search_config(sampler),
                blocks=self.blocks,
                storage=storage,
                listener=self.listener,
            )
        return self.searches[sampler]

    def _search_config(self, sampler: str) -> SearchConfig:
        """That of the problem, computed as the trainings of all methods are."""
        precision = self.execution.training_precision
        is_asked_for = precision_of(self.args) != "fp32"
        fused = self.execution.fused_optimizer
        if fused is None:
            fused = self.args.optim == OptimizerNames.ADAMW_TORCH_FUSED
        return replace(
            self.search,
            sampler=sampler,
            memory_layout=self.execution.memory_layout,
            precision="auto" if is_asked_for else precision,
            fused_optimizer=fused,
        )

    def config(self, multipliers: Mapping[str, float], **fields: Any) -> BioTuneConfig:
        """The configuration that trains these blocks.

        Args:
            multipliers: by block, on the learning rate of the training arguments.
            fields: further fields of [`BioTuneConfig`].
        """
        return BioTuneConfig(
            lr_multipliers=dict(multipliers),
            partition=self.partition.to_patterns(),
            saved_blocks=[name for name in self.new_blocks if name not in multipliers],
            **fields,
        )


def batch_norm_blocks(model: nn.Module, blocks: Partition) -> frozenset[str]:
    """The blocks of a partition that hold BatchNorm with running statistics."""
    found: set[str] = set()
    for name, module in model.named_modules():
        if has_statistics(module):
            found |= blocks_of_module(blocks, name, module)
    return frozenset(found)
