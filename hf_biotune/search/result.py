"""`SearchResult`: what a search found, and everything that it tried."""

from __future__ import annotations

from dataclasses import dataclass, field

import optuna
import pandas as pd

from ..blocks import Partition
from ..config import BioTuneConfig
from ..genotype import Genotype
from .finalists import Finalist


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        best_config: blocks and rates of the winner, for [`get_biotune_model`].
        best_genotype: the genes of the winner.
        best_score: its mean validation score over the seeds that it was trained with.
        best_trial: its number in the study.
        finalists: the individuals that the winner was chosen from.
        study: the Optuna study, for its own plots and dashboard.
        history: one row per individual; see [`history_of`].
        partition: the blocks of the model.
        memory_layout: of convolutions' weights in every training.
        trainings: spent, in units of one full training.
        seconds: spent in trainings.
    """

    best_config: BioTuneConfig
    best_genotype: Genotype
    best_score: float
    best_trial: int
    finalists: tuple[Finalist, ...]
    study: optuna.Study = field(repr=False)
    history: pd.DataFrame = field(repr=False)
    partition: Partition = field(repr=False)
    memory_layout: str
    trainings: float
    seconds: float
