"""Search: the fitness of a genotype, and the study that spends a budget on finding a good one."""

from .augmentation import Augmentation
from .budget import Budget
from .budget_plan import BudgetPlan
from .data import EncodedSplit
from .data_splits import DataSplits
from .encode import encode_images, encode_splits
from .ensemble import BioTuneEnsemble
from .final import FineTuner, FineTuneResult
from .fitness import FitnessEvaluator
from .fitness_result import FitnessResult
from .front import Compromise
from .history import history_of
from .listener import SearchListener, TrialReport
from .metrics import Metric, resolve_metric
from .ready_made import encode_dataset
from .result import SearchResult
from .search_config import SearchConfig
from .sources import load_dataset_splits
from .stopping import StoppingRule
from .study import biotune_search, default_training_arguments
from .texts import encode_text_splits, encode_texts

__all__ = [
    "Augmentation",
    "BioTuneEnsemble",
    "Budget",
    "BudgetPlan",
    "Compromise",
    "DataSplits",
    "EncodedSplit",
    "FineTuneResult",
    "FineTuner",
    "FitnessEvaluator",
    "FitnessResult",
    "Metric",
    "SearchConfig",
    "SearchListener",
    "SearchResult",
    "StoppingRule",
    "TrialReport",
    "biotune_search",
    "default_training_arguments",
    "encode_dataset",
    "encode_images",
    "encode_splits",
    "encode_text_splits",
    "encode_texts",
    "history_of",
    "load_dataset_splits",
    "resolve_metric",
]
