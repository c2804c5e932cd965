"""`Plan`: which methods are compared on what, and the units of work that this takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..baselines import METHODS, Method, get_method
from ..exceptions import ConfigError
from ..search.budget import Budget
from ..search.metrics import METRICS
from ..search.search_config import PAPER_SEEDS, SearchConfig
from .arena import Arena
from .scores import SCORE_NAMES
from .units import Unit

# The methods that the paper compares with, chance, and ours.
DEFAULT_METHODS = (
    "linear-probe",
    "full",
    "gradual-last-first",
    "gradual-first-last",
    "l1-sp",
    "l2-sp",
    "auto-rgn",
    "lora",
    "random-search",
    "biotune",
)
# Methods that use the search or the tuning of another one, and must not run at the same time.
SHARED_TUNING = {
    "full-ensemble": "full",
    "random-ensemble": "random-search",
    "biotune-ensemble": "biotune",
}
# No search or tuning sees these.
DEFAULT_SEEDS = (1, 2, 3)


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Args:
        arena: model, data and training.
        methods: names; see [`METHODS`].
        seeds: of the final trainings, at least one, and none that settings are chosen with.
            Default: 1, 2, 3.
        splits: how many, at least 1; see [`redraw`]. Default: 3.
        budget: of each method that searches, such as `"20"` trainings; see [`Budget.parse`].
            Methods with nothing but a rate and a BatchNorm mode to choose try all of these.
        metric: that settings are chosen and methods ranked by: `"macro_accuracy"`, `"accuracy"` or
            `"f1"`.

    Raises:
        ConfigError: a method or metric is unknown, or a number is out of its range.
    """

    arena: Arena
    methods: tuple[str, ...] = DEFAULT_METHODS
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    splits: int = 3
    budget: str = "20"
    metric: str = "macro_accuracy"

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "budget", str(self.budget))
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise ConfigError(
                f"methods must be among {', '.join(METHODS)}, got {', '.join(map(repr, unknown))}"
            )
        for name, values in (("methods", self.methods), ("seeds", self.seeds)):
            if not values or len(set(values)) != len(values):
                raise ConfigError(f"{name} must be distinct and at least one, got {values}")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
                raise ConfigError(f"seeds must be integers from 0 to 2**32 - 1, got {seed!r}")
            if seed in PAPER_SEEDS:
                raise ConfigError(
                    f"seeds must not be among {', '.join(map(str, PAPER_SEEDS))}, which settings "
                    f"are chosen with, got {seed}"
                )
        if isinstance(self.splits, bool) or not isinstance(self.splits, int) or self.splits < 1:
            raise ConfigError(f"splits must be an integer of at least 1, got {self.splits!r}")
        Budget.parse(self.budget)
        metrics = [name for name in METRICS if name in SCORE_NAMES]
        if self.metric not in metrics:
            raise ConfigError(f"metric must be one of {', '.join(metrics)}, got {self.metric!r}")

    @property
    def identity(self) -> dict[str, Any]:
        """What every unit depends on; methods, seeds and splits may be added later."""
        return {
            **self.arena.to_dict(),
            "budget": self.budget,
            "metric": self.metric,
            # Searches of before this switch don't belong to the same comparison.
            "prefer_cheap": SearchConfig().prefer_cheap,
        }

    def method(self, name: str) -> Method:
        """A method of the plan."""
        return get_method(name)

    def units(self, method: str, split: int) -> list[Unit]:
        """Tuning first, then the final trainings of a method on a split."""
        seeds = get_method(method).final_seeds(self.seeds)
        return [Unit(split, method), *(Unit(split, method, seed) for seed in seeds)]

    def all_units(self) -> list[Unit]:
        """Everything, in the order in which one process does it."""
        return [
            unit
            for split in range(self.splits)
            for method in self.methods
            for unit in self.units(method, split)
        ]


def checked_methods(names: Sequence[str]) -> tuple[str, ...]:
    """Names of methods; `all` stands for every one.

    Args:
        names: as a user gives them.
    """
    return tuple(METHODS) if "all" in names else tuple(names)
