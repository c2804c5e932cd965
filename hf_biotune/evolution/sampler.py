"""BioTune's evolution as an Optuna sampler."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ..exceptions import ConfigError
from ..extra_genes import checked_extra_genes
from ..genotype import Genotype
from . import plan as plans
from .blas import one_blas_thread
from .candidates import Nursery
from .costs import Cost, Costs
from .generation import Generation
from .heartbeat import first_beat
from .history import read
from .plan import PLAN_KEY, Plan
from .roster import Roster
from .scheme import Role, Scheme
from .screening import Screening, Tradeoff, denoised
from .surrogate import Surrogate

# Before the number of a generation, in the study's attributes.
PARENTS_PREFIX = "biotune:parents:"


class BioTuneSampler(BaseGASampler):  # type: ignore[misc]  # optuna is not followed by mypy
    """Searches the genotype of a model by evolution, one training per trial.

    A trial's parameters are `importance:<block>` for each block and `freezing_threshold`, all in
    [0, 1]. The objective asks for them with [`~evolution.suggest_genotype`] and for the fold to
    train on with [`~evolution.plan_of`].

    Generation 0 holds what the user enqueued and random individuals. In each later one the elites
    are scored again if the fold changes, each elite tries two neighbours, and offspring fill the
    rest. With `surrogate=True` a Gaussian process chooses among many candidates for each training,
    where offspring compete with an elite's neighbours, and ranks by denoised fitness; with
    `surrogate=False` this is the published algorithm.

    The sampler has no state. What a trial trains is a function of the seed, its generation, its
    slot in it and the finished trials, all of which are in the storage: a search with one worker
    that is stopped anywhere and continued equals one that was never stopped, once the trial that
    was interrupted is marked as failed. Several workers may share a storage; none waits for
    another, and a generation may get a few more individuals than it has slots.

    A study may have several objectives, the first of which is the score. Then individuals rank by
    non-dominated sorting and crowding distance, and a candidate is chosen by how much it is
    expected to extend the front (see [`Stairs`]). Optuna has no intermediate values there: report
    those of the score with [`report_score`].

    Pruned trials rank below all that finished. Failed ones (an error, NaN) are repeated at most
    `max_attempts` times: an objective should return a bad score for a training that diverged.

    Genes that `optuna.samplers.PartialFixedSampler` holds fixed take the place of planned ones: a
    threshold that is held may then leave no block to be trained, which [`Genotype.repaired`] mends.

    Args:
        block_names: of the partition, in order; at least one, each different.
        extra_genes: settings of the training that evolve too, each as a parameter `gene:<name>`;
            see [`settings_of`]. Default: none.
        population_size: individuals in a population; at least `n_elites + 2`.
        n_elites: how many of the best are exploited and survive; at least 1.
        n_folds: generation g is scored on fold g mod n_folds; at least 1.
        seed: not negative; the same seed gives the same search.
        surrogate: whether a Gaussian process pre-screens and denoises, and generation 0 fills the
            space evenly.
        n_candidates: for each training, if `surrogate` is set; at least 1.
        prefer_cheap: whether the surrogate weighs what a candidate promises against what its
            training costs: the more first blocks are frozen, the less. For studies of one
            objective. Default: `False`, which is best if the number of trials is what counts.
        max_attempts: trials that may fail before their slot is given up; at least 1.
        first: genotypes of generation 0's first individuals, at most `population_size`. Enqueued
            trials come behind them. Unlike those they keep their places when a search is
            interrupted and goes on.
        costs: for a study of several objectives, of each after the first, what every trained block
            adds to it, by name, or `None` if only a training tells. Such a cost is minimised and
            not learned. Default: all are learned.

    Raises:
        ConfigError: an argument is out of range.

    Example:
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> from hf_biotune.evolution import plan_of, suggest_genotype
        >>> blocks = ["stem", "body", "head"]
        >>> def objective(trial):
        ...     genotype, plan = suggest_genotype(trial, blocks), plan_of(trial)
        ...     return sum(genotype.decode(blocks).values()) + 0.1 * plan.fold
        >>> study = optuna.create_study(sampler=BioTuneSampler(blocks, n_folds=2))
        >>> study.optimize(objective, n_trials=12)
        >>> plan_of(study.trials[11]).role
        'rescore'

    Source: arXiv 2508.15367 for the evolution; the surrogate is ours.
    """

    def __init__(
        self,
        block_names: Sequence[str],
        *,
        extra_genes: Sequence[str] = (),
        population_size: int = 10,
        n_elites: int = 3,
        n_folds: int = 1,
        seed: int = 0,
        surrogate: bool = True,
        n_candidates: int = 200,
        prefer_cheap: bool = False,
        max_attempts: int = 3,
        first: Sequence[Genotype] = (),
        costs: Sequence[Cost] = (),
    ) -> None:
        self.block_names = _checked_names(block_names)
        self.extra_genes = checked_extra_genes(extra_genes)
        self._gene_names = plans.parameter_names(self.block_names, self.extra_genes)
        _check_integer("n_elites", n_elites, 1)
        _check_integer("population_size", population_size, n_elites + 2, "n_elites + 2")
        _check_integer("n_folds", n_folds, 1)
        _check_integer("seed", seed, 0)
        _check_integer("n_candidates", n_candidates, 1)
        _check_integer("max_attempts", max_attempts, 1)
        _check_switch("surrogate", surrogate)
        _check_switch("prefer_cheap", prefer_cheap)
        super().__init__(population_size)
        self.scheme = Scheme(population_size, n_elites, n_folds)
        self.seed = seed
        self.max_attempts = max_attempts
        self._nursery = Nursery(
            len(self._gene_names),
            seed,
            spread=surrogate,
            first=self._checked_first(first),
            n_extra=len(self.extra_genes),
        )
        self._costs = Costs.of(costs, self.block_names)
        self._screening = Screening(n_candidates, prefer_cheap) if surrogate else None

    def _checked_first(self, first: Sequence[Genotype]) -> tuple[Genotype, ...]:
        if len(first) > self.scheme.population_size:
            raise ConfigError(
                f"first may hold at most population_size = {self.scheme.population_size} "
                f"genotypes, got {len(first)}"
            )
        for genotype in first:
            # Raises unless it has a gene a block.
            parameters = plans.parameters_of(genotype, self.block_names)
            if list(parameters) != self._gene_names:
                raise ConfigError(
                    f"first: a genotype has the extra genes {', '.join(genotype.extra_genes)}, the "
                    f"sampler {', '.join(self.extra_genes)}; they must be the same"
                )
        return tuple(first)

    # What Optuna calls -------------------------------------------------------------------------

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The genes, from the first trial on."""
        return dict(plans.search_space(self.block_names, self.extra_genes))

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Plan the trial, so that the objective knows its fold before it asks for a gene."""
        self._costs.fitted_to(study.directions)  # raises if it is about another study
        first_beat(study, trial)
        self._planned(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The genes that were planned, as far as they are in the search space."""
        genes = self._planned(study, trial).genes
        parameters = dict(zip(self._gene_names, genes, strict=True))
        # `optuna.samplers.PartialFixedSampler` takes out those that the user holds fixed.
        return {name: value for name, value in parameters.items() if name in search_space}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A parameter that isn't a gene: that of the individual that is copied, or a random one.

        A trial that repeats a failed one, scores an elite again, or tries a neighbour of it must
        differ from it in nothing else.
        """
        plan = plans.stored_plan(trial)
        place = [1, trial.number] if plan is None else [2, plan.generation, plan.slot]
        for original in self._originals(study, plan):
            values = {**original.system_attrs.get("fixed_params", {}), **original.params}
            if param_name in values and _contains(param_distribution, values[param_name]):
                return values[param_name]
        entropy = [zlib.crc32(param_name.encode()), self.seed, *place]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        sampler = RandomSampler(seed)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    # What Optuna's genetic algorithms have -----------------------------------------------------

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """The generation that a trial belongs to; plans the trial if that hasn't been done."""
        return self._planned(study, trial).generation

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The finished trials of a generation, pruned ones included."""
        return [
            trial
            for trial in _all_trials(study)
            if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
            and (plan := plans.stored_plan(trial)) is not None
            and plan.generation == generation
        ]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The population that a generation descends from, best first; empty for generation 0.

        It is chosen once and kept in the study: a trial of a former generation that finishes late
        must not change who the elites are while they are being exploited.
        """
        kept = self._kept_parents(study)
        # One after the other: a generation's parents come of those before, and in a study that was
        # put together from the trials of another, nobody's are kept.
        for earlier in range(1, generation + 1):
            if earlier not in kept:
                numbers = [parent.number for parent in self.select_parent(study, earlier)]
                study._storage.set_study_system_attr(
                    study._study_id, f"{PARENTS_PREFIX}{earlier}", numbers
                )
                # Another worker may have chosen meanwhile; whose choice is there counts for all.
                kept = self._kept_parents(study)
        trials = _all_trials(study)
        return [trials[number] for number in kept.get(generation, [])]

    @staticmethod
    def _kept_parents(study: Study) -> dict[int, list[int]]:
        """The numbers of the parents of each generation, as far as they have been chosen.

        Optuna's own key holds identifiers of a storage, which a copy of the study has not got.
        """
        return {
            int(key.removeprefix(PARENTS_PREFIX)): numbers
            for key, numbers in study._storage.get_study_system_attrs(study._study_id).items()
            if key.startswith(PARENTS_PREFIX)
        }

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The survivors of the generation before; see [`get_parent_population`]."""
        with one_blas_thread():
            former, _, _ = self._situation(study, generation - 1, as_of=generation)
        trials = _all_trials(study)
        return [trials[individual.number] for individual in former.survivors()]

    # Planning ----------------------------------------------------------------------------------

    def _planned(self, study: Study, trial: FrozenTrial) -> Plan:
        stored = study._storage.get_trial_system_attrs(trial._trial_id).get(PLAN_KEY)
        if stored is not None:
            return Plan.from_dict(stored)
        with one_blas_thread():
            plan = self._plan(study, trial)
        study._storage.set_trial_system_attr(trial._trial_id, PLAN_KEY, plan.to_dict())
        return plan

    def _plan(self, study: Study, trial: FrozenTrial) -> Plan:
        roster = self._roster(_all_trials(study))
        given = plans.given_genes(trial, self._gene_names)
        enqueued = bool(given)
        index = roster.generation()
        reserved = self.scheme.first_offspring if index > 0 else len(self._nursery.first)
        slot = roster.claim(
            index, trial.number, enqueued=enqueued, first=reserved if enqueued else 0
        )
        if enqueued:
            return self._new_plan(index, slot, "initial", self._completed(given, slot))
        if failed := roster.failed(index, slot):
            return roster.plans[failed[0].number]
        generation, model, tradeoff = self._situation(study, index, as_of=index, known=roster.plans)
        if self._screening is None or model is None:
            chosen = self._nursery.candidates(generation, slot, 1)[0]
        else:
            size = self._screening.n_candidates
            candidates = self._nursery.candidates(generation, slot, size)
            genes = np.array([candidate.genes for candidate in candidates])
            best = self._screening.most_promising(genes, model, self.extra_genes, tradeoff)
            chosen = candidates[best]
        return self._new_plan(index, slot, chosen.role, chosen.genes.tolist(), chosen.parents)

    def _completed(self, given: Mapping[str, float], slot: int) -> list[float]:
        """The genes that the user gave, and random ones for those that they left open."""
        for drawn in self._nursery.strangers(slot):
            genes = [
                float(given.get(name, gene))
                for name, gene in zip(self._gene_names, drawn.tolist(), strict=True)
            ]
            # Raises if one is out of range.
            genotype = Genotype.from_array(genes, self.extra_genes)
            if genotype.is_valid:
                break
        return list(genotype.to_array().tolist())

    def _new_plan(
        self,
        generation: int,
        slot: int,
        role: Role,
        genes: Sequence[float],
        parents: tuple[int, ...] = (),
    ) -> Plan:
        fold = self.scheme.fold(generation)
        return Plan(generation, fold, role, parents, slot, tuple(genes))

    # Reading the study -------------------------------------------------------------------------

    def _roster(
        self, trials: Sequence[FrozenTrial], known: Mapping[int, Plan] | None = None
    ) -> Roster:
        return Roster(trials, self.scheme, self.max_attempts, known)

    def _situation(
        self, study: Study, index: int, *, as_of: int, known: Mapping[int, Plan] | None = None
    ) -> tuple[Generation, Surrogate | None, Tradeoff | None]:
        """A generation as far as it has got, with denoised fitness if there is a surrogate.

        And the surrogate, with the kernel that is used throughout generation `as_of`; and, with
        several objectives, how score and costs go together.
        """
        # Parents first: another worker may choose them after we have read the trials, and among
        # them may be one that was still running when we did.
        parents = self.get_parent_population(study, index)
        trials = _all_trials(study)
        planned = self._roster(trials, known).plans
        costs = self._costs.fitted_to(study.directions)
        history = read(
            trials,
            planned,
            self.block_names,
            self.extra_genes,
            directions=study.directions,
            costs=costs,
        )
        model = tradeoff = None
        if self._screening is not None:
            running = [
                planned[trial.number].genes
                for trial in trials
                if trial.state == TrialState.RUNNING and trial.number in planned
            ]
            model = self._screening.model(history, as_of, running)
            if model is not None and len(costs):
                tradeoff = self._screening.tradeoff(history, as_of, costs, model)
        # Of the thousands that there may be, only these are asked for.
        history = history.of(index, {parent.number for parent in parents})
        if model is not None:
            history = denoised(history, model)
        history = history.ranked_by_dominance()
        by_number = {individual.number: individual for individual in history.individuals}
        generation = Generation(
            index=index,
            scheme=self.scheme,
            parents=[by_number[parent.number] for parent in parents],
            members=[i for i in history.individuals if history.plans[i.number].generation == index],
            plans=history.plans,
        )
        return generation, model, tradeoff

    def _originals(self, study: Study, plan: Plan | None) -> list[FrozenTrial]:
        """The trials that a trial repeats: failed ones of its slot, or the elite that it copies."""
        if plan is None:
            return []
        trials = _all_trials(study)
        originals = self._roster(trials).failed(plan.generation, plan.slot)
        if plan.role in ("rescore", "exploit"):
            originals = [*originals, *(trials[number] for number in plan.parents)]
        return originals


def _all_trials(study: Study) -> list[FrozenTrial]:
    # From the storage: with HyperbandPruner, Optuna hands over a study that shows only the trials
    # of one bracket, each of which would begin the same search anew.
    trials: list[FrozenTrial] = study._storage.get_all_trials(study._study_id, deepcopy=False)
    return trials


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value of another trial is possible here; categories may have changed."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except ValueError:
        return False


def _check_switch(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {value!r}")


def _check_integer(name: str, value: Any, minimum: int, rule: str | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ConfigError(f"{name} must be an integer, got {value!r}")
    if value < minimum:
        bound = str(minimum) if rule is None else f"{rule} = {minimum}"
        raise ConfigError(f"{name} must be at least {bound}, got {value}")


def _checked_names(block_names: Sequence[str]) -> tuple[str, ...]:
    if isinstance(block_names, str):
        raise ConfigError(f"block_names must be a list of names, got the string {block_names!r}")
    names = tuple(block_names)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"block_names must be names, got {name!r}; use partition.names")
    if not names:
        raise ConfigError("block_names must hold at least one name, got none")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"block_names must differ from each other, got {twice!r} twice")
    return names
