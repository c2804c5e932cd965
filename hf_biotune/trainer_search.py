"""Evolution in `Trainer.hyperparameter_search`: a model for each trial, and the space of genes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optuna.trial import BaseTrial
from torch import nn
from transformers import TrainerCallback

from .blocks import BlockSpec, partition
from .config import BioTuneConfig
from .evolution import genotype_of, suggest_genotype
from .model import BioTuneModel, get_biotune_model
from .trainer import biotune_trainer_kwargs


class BioTuneModelInit:
    """A `model_init` for `Trainer`, whose models train what the genes of a trial say.

    What `Trainer.hyperparameter_search` can't do, [`biotune_search`] can: several seeds and folds,
    halving, kept weights, resuming. Its limits:

    - the objective is the last evaluation of a trial, not the best one;
    - every trial has the seed of `TrainingArguments`; choose among the best few with more seeds;
    - Optuna stops trials that are worse than the median unless `pruner=NopPruner()` is given;
    - no `n_jobs`: trials share the `Trainer`. Start the script several times on one `storage`
      instead. `trainer.model` is `None` afterwards;
    - only `backend="optuna"`.

    Args:
        model_init: makes the pre-trained model; its head may be new and random.
        blocks: how the model is divided; see [`partition`]. The result is in `partition`.
        norm_statistics: see [`BioTuneConfig`]. Default: `"epoch"`.

    Raises:
        PartitionError: the model can't be divided so.

    Example:
        ```python
        init = BioTuneModelInit(make_model)
        trainer = Trainer(model_init=init, args=args, ..., **init.trainer_kwargs())
        best = trainer.hyperparameter_search(
            hp_space=init.hp_space,
            backend="optuna",
            direction="maximize",
            compute_objective=lambda metrics: metrics["eval_accuracy"],
            n_trials=20,
            sampler=BioTuneSampler(init.partition.names),
        )
        config = init.config_of(best.hyperparameters)
        ```
    """

    def __init__(
        self,
        model_init: Callable[[], nn.Module],
        *,
        blocks: BlockSpec = "auto",
        norm_statistics: str = "epoch",
    ) -> None:
        self._model_init = model_init
        self._norm_statistics = norm_statistics
        self.partition = partition(model_init(), blocks)

    def __call__(self, trial: BaseTrial | Mapping[str, Any] | None = None) -> BioTuneModel:
        """The model of a trial; without one, as `Trainer` asks at first, all blocks at rate 1."""
        if trial is None:
            config = BioTuneConfig(
                blocks=self.partition.to_patterns(),
                lr_multipliers=dict.fromkeys(self.partition.names, 1.0),
                norm_statistics=self._norm_statistics,
            )
        else:
            config = self.config_of(trial)
        return get_biotune_model(self._model_init(), config, keep_base_weights=False)

    def hp_space(self, trial: BaseTrial) -> dict[str, Any]:
        """For the argument of the same name: asks for every gene, sets no `TrainingArguments`.

        To search for some of these as well, add them:
        `lambda trial: init.hp_space(trial) | {"weight_decay": trial.suggest_float(...)}`.
        """
        suggest_genotype(trial, self.partition.names)
        return {}

    def config_of(self, trial: BaseTrial | Mapping[str, Any]) -> BioTuneConfig:
        """What a trial trains.

        Args:
            trial: a trial, or its parameters, such as `best.hyperparameters`.

        Raises:
            GenotypeError: the parameters lack a gene.
        """
        names = self.partition.names
        if isinstance(trial, Mapping):
            genotype = genotype_of(trial, names)
        else:
            genotype = suggest_genotype(trial, names)
        # Genes that select no block train the most important one, as in a search.
        return BioTuneConfig.from_genotype(
            genotype.repaired(), self.partition, norm_statistics=self._norm_statistics
        )

    def trainer_kwargs(self, callbacks: Sequence[TrainerCallback] = ()) -> dict[str, Any]:
        """What [`biotune_trainer_kwargs`] gives for a model that exists already."""
        return biotune_trainer_kwargs(self(), callbacks)
