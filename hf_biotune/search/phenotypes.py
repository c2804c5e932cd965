"""From a genotype to what is trained: the configuration of an individual of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from optuna.trial import FrozenTrial, Trial
from torch import nn
from transformers import TrainingArguments

from ..blocks import Partition
from ..config import BioTuneConfig
from ..evolution import genotype_of
from ..exceptions import ConfigError
from ..extra_genes import STATISTICS_GENE, genes_of, rate_factor
from ..genotype import Genotype, lr_multiplier
from ..norm_statistics import has_statistics
from ..penalties import L2SP
from .search_config import AUTO, SearchConfig, starting_statistics


class Phenotypes:
    """Decodes the genotypes of one search.

    Args:
        partition: the model's blocks.
        search: which blocks are always trained, and what their statistics do.
        unsaved: blocks that no checkpoint of the base model holds, such as a new head.
        learning_rate: the base of all trainings.
    """

    def __init__(
        self,
        partition: Partition,
        search: SearchConfig,
        unsaved: Sequence[str],
        learning_rate: float,
    ) -> None:
        for name in search.always_train:
            partition[name]  # raises for an unknown block
        self._partition = partition
        self._search = search
        self._unsaved = tuple(unsaved)
        self._learning_rate = learning_rate

    @property
    def block_names(self) -> tuple[str, ...]:
        """Of the partition, in order."""
        return self._partition.names

    def genotype_of(self, trial: Trial | FrozenTrial) -> Genotype:
        """What a trial trains: its genes; repaired if they select no block."""
        return genotype_of(trial, self.block_names).repaired()

    def config_of(self, genotype: Genotype) -> BioTuneConfig:
        """What a genotype stands for, `always_train` included."""
        names = self._partition.names
        config = BioTuneConfig.from_genotype(
            genotype,
            self._partition,
            new_blocks=self._unsaved,
            base_learning_rate=self._learning_rate,
            norm_statistics=self._search.norm_statistics,
        )
        factor = rate_factor(genotype.extra_genes)
        genes = dict(zip(names, genotype.importances, strict=True))
        multipliers = config.lr_multipliers
        for name in self._search.always_train:
            multipliers.setdefault(name, factor * lr_multiplier(genes[name]))
        config.lr_multipliers = {name: multipliers[name] for name in names if name in multipliers}
        config.saved_blocks = [name for name in self._unsaved if name not in multipliers]
        return config


def other_settings(config: BioTuneConfig) -> dict[str, float]:
    """What a configuration asks for beside blocks and rates: the strength of what is on."""
    penalty = L2SP.from_dict(config.l2sp).strength if config.l2sp is not None else 0.0
    settings = {
        "setting:frozen norm statistics": float(config.norm_statistics == "frozen"),
        "setting:weight decay": config.weight_decay or 0.0,
        "setting:l2sp": penalty,
    }
    return {name: strength for name, strength in settings.items() if strength}


def neutral_genes(search: SearchConfig, args: TrainingArguments) -> dict[str, float]:
    """The extra genes that decode to what a search would do without them, or nearly so."""
    settings = {
        "base_lr": 1.0,
        "l2sp": 0.0,
        "norm_statistics": search.norm_statistics,
        "weight_decay": args.weight_decay,
    }
    return genes_of({name: settings[name] for name in search.extra_genes})


def fitted_to(model: nn.Module, search: SearchConfig) -> SearchConfig:
    """The search with what it leaves to the model settled.

    Args:
        model: the base model.
        search: whose `norm_statistics` may be `"auto"`.

    Raises:
        ConfigError: an extra gene can make no difference, since the model has no statistics that
            could be frozen.
    """
    has_any = any(map(has_statistics, model.modules()))
    genes = search.extra_genes
    if STATISTICS_GENE in genes and not has_any:
        raise ConfigError(
            f"extra_genes has {STATISTICS_GENE!r}, but {type(model).__name__} has no BatchNorm "
            f"with statistics to freeze; leave it out"
        )
    if search.norm_statistics != AUTO:
        return search
    if has_any and STATISTICS_GENE not in genes:
        genes = (*genes, STATISTICS_GENE)
    settled = starting_statistics(search.norm_statistics)
    return replace(search, norm_statistics=settled, extra_genes=genes)


def phenotype_key(phenotype: Mapping[str, float]) -> tuple[tuple[str, int], ...]:
    """Blocks and rates to a quarter of a decade: finer differences are below the noise of seeds.

    Example:
        >>> phenotype_key({"head": 1.1}) == phenotype_key({"head": 1.0})
        True
    """
    return tuple(
        (name, round(4 * float(np.log10(strength)))) for name, strength in phenotype.items()
    )
