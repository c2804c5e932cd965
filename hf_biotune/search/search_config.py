"""`SearchConfig`: what a search may spend, and how."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..config import NORM_STATISTICS
from ..exceptions import ConfigError
from ..extra_genes import STATISTICS_GENE, checked_extra_genes
from .budget import Budget
from .folds import n_folds
from .objectives import checked_objectives
from .samplers import BIOTUNE, check_objectives_fit, check_sampler

# The seeds of the published experiments.
PAPER_SEEDS = (684, 559, 629)
DEFAULT_METRIC = "macro_accuracy"
# Those of `Execution`, without importing torch.
MEMORY_LAYOUTS = ("auto", "contiguous", "channels_last")
PRECISIONS = ("auto", "fp32", "bf16")
AUTO = "auto"
# What `norm_statistics="auto"` begins with.
STARTING_STATISTICS = "epoch"


@dataclass(frozen=True)
class SearchConfig:
    """How a search goes and what it may spend.

    The default aims at a small budget; [`SearchConfig.paper`] is the published scheme.

    Args:
        budget: see [`Budget.parse`]; `None` means no limit but `generations`. Default: 20;
            fewer found worse genotypes than the published scheme, on a table of real trainings.
        population_size: individuals of a generation, at least `n_elites + 2`. Default: what fits
            the budget, from 4 to 10; see [`plan_budget`].
        n_elites: how many of the best are refined and kept. Default: three tenths of them.
        generations: generations after the first; `None` (default) means until the budget ends.
        seeds: training seeds. Each individual is scored by the mean over `seeds_per_individual`
            of them; finalists get all.
        seeds_per_individual: default 1.
        fold_fraction: share of the data that one generation uses, in (0, 1]; generation g uses
            fold g modulo ceil(1 / fold_fraction). Default: 1, everything.
        keep_best: how many of the best individuals' weights are kept, as adapters in the
            directory `adapters` under `output_dir` (in memory, if the study is in memory): of the
            best epoch, with every seed. The finalists' are always among them, and with `objectives`
            those of whoever is on the front. With folds, as many of each. 0 keeps none. Default: 5.
        n_finalists: how many of the best are scored with further seeds on all data before the
            winner is chosen; 0 for none. A budget of less than 5 trainings for each pays for fewer,
            though for 2. They differ in their blocks or by a quarter of a decade in
            a rate, and the best of the seeded start is among them. Default: 3.
        racing: whether further seeds are only for those that may still be the best: an individual
            that takes the lead, and finalists that a paired test can't tell from the leader.
            Default: `True`.
        metric: see [`resolve_metric`]. Default: `"macro_accuracy"`.
        objectives: for a search that also minimises what a training costs: the name of the metric,
            then one or more of `"trainable_parameters"`, `"seconds"` (measured, of one training)
            and `"checkpoint_size"` (bytes of the adapter's tensors). The result then has a front of
            compromises, see `SearchResult.pareto_front`; its winner is, as ever, the best score
            among the finalists. Default: none, `metric` alone.
        greater_is_better: for a metric object. Default: `True`.
        patience: epochs without improvement after which a training stops; `None` for never.
            Default: 3.
        patience_from: share of the epochs before which patience doesn't stop a training, in
            [0, 1]. Default: 1/3.
        halving: whether a training stops after a third of its epochs unless it is then among the
            best third of its fold. Default: `True`.
        seeded_start: whether the first generation holds what people try by hand: linear probe,
            full fine-tuning (if `norm_statistics` evolve, also with frozen ones), last half, and
            rates by relative gradient norms (see [`gradient_informed`]), which cost a few batches.
            Default: `True`.
        sampler: who chooses the genotypes: `"biotune"` (evolution, the default), or one to compare
            it with on the same space, budget and folds: `"random"`, `"tpe"`, `"cmaes"`, `"gp"`,
            `"nsgaii"`, or a sampler of Optuna. A seeded start holds for all of them; `n_elites`,
            `surrogate` and `prefer_cheap` are for evolution only.
        surrogate: whether offspring are pre-screened by a Gaussian process. Default: `True`.
        prefer_cheap: whether that weighs what an individual promises against what its training
            costs: the more first blocks it freezes, the less. Has no part in a search with
            `objectives`, which says itself what costs are worth. Default: `True`.
        memoise: whether an individual that decodes to blocks and rates that were scored before on
            the same fold costs nothing. Default: `True`.
        max_failed_share: of the individuals may fail, in (0, 1]: by an error such as want of memory
            or because they diverge. They get the worst score. From ten individuals on, a search in
            which more fail stops and says why. Default: 0.5.
        always_train: blocks that no individual may freeze. Default: none.
        norm_statistics: what the BatchNorm statistics of trained blocks do: `"epoch"`, `"train"`,
            `"frozen"` (see [`BioTuneConfig`]), or `"auto"`: where the model has such statistics,
            the extra gene `"norm_statistics"` decides between `"epoch"` and `"frozen"` for each
            individual, starting from `"epoch"`. Default: `"epoch"`.
        extra_genes: settings of the training that evolve along with the blocks, among
            `"norm_statistics"` (`"epoch"` or `"frozen"`, with which blocks learn at a tenth of
            their rates), `"base_lr"` (up to half a decade either way), `"weight_decay"` and
            `"l2sp"` (pull towards the pre-trained weights); see [`settings_of`]. What they decode
            to is part of each individual's [`BioTuneConfig`]. Default: none.
        memory_layout: of convolutions' weights: `"contiguous"`, `"channels_last"`, or `"auto"`
            (default). What is `"auto"` here and in the next two is measured at the start of a
            search, for a few steps of the real model: the fastest whose loss and gradient agree
            with the plainest. The choice is kept in the study, since results may differ in the last
            bits, and is told by `result.execution`.
        precision: of trainings and scoring in the search: `"fp32"`, `"bf16"` (by autocast), or
            `"auto"` (default): each of both on its own. If `TrainingArguments` ask for `bf16` or
            `fp16`, that is what is used. The final training always goes by `TrainingArguments`.
        fused_optimizer: whether AdamW updates all weights in one kernel, or `"auto"` (default).
        prefix_cache: whether the activations of frozen first blocks are computed once and shared by
            all trainings, where that gives the same bits and inputs are not augmented; see
            [`PrefixCache`]. What it did is told by `result.cache_statistics`. Default: `True`.
        prefix_cache_memory: for that, in GiB, at least 0; what does not fit goes to a temporary
            file under `output_dir`. Default: a quarter of what is free at the start.
        seed: of the evolution, at least 0. Default: 0.

    Raises:
        ConfigError: a value is out of its range; the message holds the value and the range.
    """

    budget: str | int | float | Budget | None = 20
    population_size: int | None = None
    n_elites: int | None = None
    generations: int | None = None
    seeds: tuple[int, ...] = PAPER_SEEDS
    seeds_per_individual: int = 1
    fold_fraction: float = 1.0
    n_finalists: int = 3
    keep_best: int = 5
    racing: bool = True
    metric: Any = DEFAULT_METRIC
    objectives: tuple[str, ...] = ()
    greater_is_better: bool = True
    patience: int | None = 3
    patience_from: float = 1 / 3
    halving: bool = True
    seeded_start: bool = True
    sampler: Any = BIOTUNE
    surrogate: bool = True
    prefer_cheap: bool = True
    memoise: bool = True
    max_failed_share: float = 0.5
    always_train: tuple[str, ...] = ()
    norm_statistics: str = STARTING_STATISTICS
    extra_genes: tuple[str, ...] = ()
    memory_layout: str = "auto"
    precision: str = "auto"
    fused_optimizer: bool | str = "auto"
    prefix_cache: bool = True
    prefix_cache_memory: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.budget is not None:
            object.__setattr__(self, "budget", Budget.parse(self.budget))
        if self.parsed_budget == Budget() and self.generations is None:
            raise ConfigError("a search needs an end: give budget or generations")
        if not isinstance(self.seeds, Iterable):
            raise ConfigError(f"seeds must be integers such as (1, 2, 3), got {self.seeds!r}")
        object.__setattr__(self, "seeds", tuple(self.seeds))
        always: Any = self.always_train
        always = (always,) if isinstance(always, str) else tuple(always)
        object.__setattr__(self, "always_train", always)
        object.__setattr__(self, "extra_genes", checked_extra_genes(self.extra_genes))
        objectives, metric = checked_objectives(self.objectives, self.metric, DEFAULT_METRIC)
        object.__setattr__(self, "objectives", objectives)
        object.__setattr__(self, "metric", metric)
        self._check_evolution()
        self._check_fitness()

    def _check_evolution(self) -> None:
        check_sampler(self.sampler)
        check_objectives_fit(self.sampler, self.objectives)
        if self.n_elites is not None:
            _at_least("n_elites", self.n_elites, 1)
        if self.population_size is not None:
            _at_least("population_size", self.population_size, 1)
            fewest = (self.n_elites or 1) + 2
            if self.population_size < fewest:
                raise ConfigError(
                    f"population_size must be at least n_elites + 2 = {fewest}, got "
                    f"{self.population_size}: crossover needs two parents beside the elites"
                )
        if self.generations is not None:
            _at_least("generations", self.generations, 0)
        _at_least("n_finalists", self.n_finalists, 0)
        _at_least("keep_best", self.keep_best, 0)
        _at_least("seed", self.seed, 0)

    def _check_fitness(self) -> None:
        n_folds(self.fold_fraction)  # raises unless it is in (0, 1]
        if not 0 <= self.patience_from <= 1:
            raise ConfigError(f"patience_from must be in [0, 1], got {self.patience_from}")
        if not 0 < self.max_failed_share <= 1:
            raise ConfigError(f"max_failed_share must be in (0, 1], got {self.max_failed_share}")
        if self.patience is not None:
            _at_least("patience", self.patience, 1)
        modes = (AUTO, *NORM_STATISTICS)
        if self.norm_statistics not in modes:
            raise ConfigError(
                f"norm_statistics must be one of {', '.join(map(repr, modes))}, got "
                f"{self.norm_statistics!r}"
            )
        if self.norm_statistics == "train" and STATISTICS_GENE in self.extra_genes:
            raise ConfigError(
                f"extra_genes has {STATISTICS_GENE!r}, which chooses between 'epoch' and 'frozen', "
                f"but norm_statistics is 'train'; leave one of them out"
            )
        if self.memory_layout not in MEMORY_LAYOUTS:
            raise ConfigError(
                f"memory_layout must be one of {', '.join(MEMORY_LAYOUTS)}, got "
                f"{self.memory_layout!r}"
            )
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        if self.fused_optimizer not in (True, False, "auto"):
            raise ConfigError(
                f"fused_optimizer must be True, False or 'auto', got {self.fused_optimizer!r}"
            )
        if self.prefix_cache_memory is not None and not self.prefix_cache_memory >= 0:
            raise ConfigError(
                f"prefix_cache_memory must be at least 0 GiB, got {self.prefix_cache_memory!r}; "
                f"prefix_cache=False turns the cache off"
            )
        for seed in self.seeds:
            _at_least("each of seeds", seed, 0)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ConfigError(f"seeds must be distinct and at least one, got {self.seeds}")
        if not 1 <= self.seeds_per_individual <= len(self.seeds):
            raise ConfigError(
                f"seeds_per_individual must be in [1, {len(self.seeds)}], the number of seeds, got "
                f"{self.seeds_per_individual}"
            )

    @property
    def n_folds(self) -> int:
        """How many folds the data is divided into."""
        return n_folds(self.fold_fraction)

    @property
    def parsed_budget(self) -> Budget:
        """The budget; without limits if there is none."""
        return self.budget if isinstance(self.budget, Budget) else Budget()

    @classmethod
    def paper(cls, **overrides: Any) -> SearchConfig:
        """The published scheme: 3 seeds each, half of the data, 10 generations, no shortcut.

        Args:
            overrides: any argument of [`SearchConfig`].

        Source: arXiv 2508.15367, experimental set-up; without the faults of the published code.
        """
        published: dict[str, Any] = {
            "budget": None,
            "population_size": 10,
            "n_elites": 3,
            "generations": 10,
            "seeds_per_individual": 3,
            "fold_fraction": 0.5,
            "n_finalists": 0,
            "racing": False,
            "patience_from": 0.0,
            "halving": False,
            "seeded_start": False,
            "surrogate": False,
            "prefer_cheap": False,
            "memoise": False,
            "norm_statistics": "train",
            "memory_layout": "contiguous",
            "precision": "fp32",
            "fused_optimizer": False,
            "prefix_cache": False,
        }
        return cls(**{**published, **overrides})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; a metric or sampler object is written as its name."""
        values = asdict(self)
        if not isinstance(self.sampler, str):
            values["sampler"] = type(self.sampler).__name__
        values["budget"] = None if self.budget is None else str(self.budget)
        if not isinstance(self.metric, str):
            values["metric"] = getattr(self.metric, "name", type(self.metric).__name__)
        return values


def starting_statistics(norm_statistics: str) -> str:
    """What the individuals have that people try by hand: what is asked for, if something is."""
    return STARTING_STATISTICS if norm_statistics == AUTO else norm_statistics


def _at_least(name: str, value: Any, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} must be an integer of at least {minimum}, got {value!r}")
