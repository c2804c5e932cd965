"""Selective fine-tuning by evolution: which blocks to train, and how fast each.

Names are imported when they are first used, so that `import hf_biotune` does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .registration import register_when_peft_is_imported

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from .blocks import Block as Block
    from .blocks import Partition as Partition
    from .blocks import partition as partition
    from .config import BioTuneConfig as BioTuneConfig
    from .contest import Arena as Arena
    from .contest import compare as compare
    from .contest import rank_backbones as rank_backbones
    from .evolution import BioTuneSampler as BioTuneSampler
    from .exceptions import BioTuneError as BioTuneError
    from .genotype import Genotype as Genotype
    from .model import BioTuneModel as BioTuneModel
    from .model import get_biotune_model as get_biotune_model
    from .optim import parameter_groups as parameter_groups
    from .report import plot_blocks as plot_blocks
    from .report import plot_comparison as plot_comparison
    from .report import plot_evolution as plot_evolution
    from .report import plot_importances as plot_importances
    from .report import plot_pareto as plot_pareto
    from .search import BioTuneEnsemble as BioTuneEnsemble
    from .search import SearchConfig as SearchConfig
    from .search import SearchResult as SearchResult
    from .search import biotune_search as biotune_search
    from .trainer import biotune_trainer_kwargs as biotune_trainer_kwargs
    from .trainer_search import BioTuneModelInit as BioTuneModelInit

_HOME = {
    "Arena": "contest",
    "BioTuneConfig": "config",
    "BioTuneEnsemble": "search",
    "BioTuneError": "exceptions",
    "BioTuneModel": "model",
    "BioTuneModelInit": "trainer_search",
    "BioTuneSampler": "evolution",
    "Block": "blocks",
    "Genotype": "genotype",
    "Partition": "blocks",
    "SearchConfig": "search",
    "SearchResult": "search",
    "biotune_search": "search",
    "biotune_trainer_kwargs": "trainer",
    "compare": "contest",
    "get_biotune_model": "model",
    "parameter_groups": "optim",
    "partition": "blocks",
    "plot_blocks": "report",
    "plot_comparison": "report",
    "plot_evolution": "report",
    "plot_importances": "report",
    "plot_pareto": "report",
    "rank_backbones": "contest",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hf_biotune' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


# PEFT's and transformers' own loaders open our checkpoints from now on.
register_when_peft_is_imported()
