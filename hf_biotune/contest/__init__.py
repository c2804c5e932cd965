"""The contest of methods: the same data, budget and seeds for each, and what their scores allow."""

from .arena import Arena
from .backbones import BackboneScore, rank_backbones
from .compare import compare
from .outputs import write_outputs
from .plan import DEFAULT_METHODS, DEFAULT_SEEDS, Plan, checked_methods
from .standings import Standings
from .worker import ContestListener

__all__ = [
    "DEFAULT_METHODS",
    "DEFAULT_SEEDS",
    "Arena",
    "BackboneScore",
    "ContestListener",
    "Plan",
    "Standings",
    "checked_methods",
    "compare",
    "rank_backbones",
    "write_outputs",
]
