"""Any Optuna sampler on the space of genotypes, with the plans that a search goes by."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseGASampler, BaseSampler, CmaEsSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ..extra_genes import checked_extra_genes
from ..genotype import Genotype
from . import plan as plans
from .blas import one_blas_thread
from .heartbeat import first_beat
from .plan import PLAN_KEY, Plan
from .roster import Roster
from .scheme import Scheme

# Its own stream of random numbers, beside those of evolution.
_STREAM = 3


class PlannedSampler(BaseSampler):  # type: ignore[misc]  # optuna is not followed by mypy
    """Lets another sampler choose the genotypes of a search that goes by plans.

    Its generations have as many trials as those of `BioTuneSampler`, so that folds rotate and a
    search ends at the same trials: only who chooses the genes differs.

    A sampler is made anew for each trial, seeded by the trial's place, since those of Optuna keep
    the state of their random numbers to themselves: so a search that is stopped anywhere and
    continued equals one that was never stopped. A sampler that was already built is used as it is,
    and makes no such promise.

    Args:
        block_names: of the partition, in order.
        make: makes the sampler from a seed; or a sampler.
        scheme: how many trials a generation has, and which fold it is scored on.
        extra_genes: settings of the training that are searched too; see [`settings_of`].
        seed: not negative.
        max_attempts: trials that may fail in a slot before it is given up; at least 1.
        first: genotypes of the first trials.

    Example:
        >>> import optuna
        >>> from hf_biotune.evolution import PlannedSampler, Scheme, plan_of, suggest_genotype
        >>> make = lambda seed: optuna.samplers.RandomSampler(seed=seed)
        >>> sampler = PlannedSampler(["stem", "head"], make, scheme=Scheme(5, 1))
        >>> study = optuna.create_study(sampler=sampler)
        >>> trial = study.ask()
        >>> genotype, plan = suggest_genotype(trial, ["stem", "head"]), plan_of(trial)
        >>> plan.generation, plan.role, len(genotype)
        (0, 'sampled', 2)
    """

    def __init__(
        self,
        block_names: Sequence[str],
        make: Callable[[int], BaseSampler] | BaseSampler,
        *,
        scheme: Scheme,
        extra_genes: Sequence[str] = (),
        seed: int = 0,
        max_attempts: int = 3,
        first: Sequence[Genotype] = (),
    ) -> None:
        self.block_names = tuple(block_names)
        self.extra_genes = checked_extra_genes(extra_genes)
        self._gene_names = plans.parameter_names(self.block_names, self.extra_genes)
        self.scheme = scheme
        self.seed = seed
        self.max_attempts = max_attempts
        self._make = make
        self._first = [tuple(genotype.to_array().tolist()) for genotype in first]

    # What Optuna calls -------------------------------------------------------------------------

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The genes, from the first trial on."""
        return dict(plans.search_space(self.block_names, self.extra_genes))

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Sample and plan the trial, so that the objective knows its fold."""
        first_beat(study, trial)
        self._planned(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The genes that were planned, as far as they are in the search space."""
        genes = self._planned(study, trial).genes
        parameters = dict(zip(self._gene_names, genes, strict=True))
        return {name: value for name, value in parameters.items() if name in search_space}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A parameter that isn't a gene."""
        plan = self._planned(study, trial)
        sampler = self._sampler(plan.generation, plan.slot, zlib.crc32(param_name.encode()))
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the sampler see the end of the trial."""
        plan = self._planned(study, trial)
        self._sampler(plan.generation, plan.slot).after_trial(study, trial, state, values)

    # Planning ----------------------------------------------------------------------------------

    def _planned(self, study: Study, trial: FrozenTrial) -> Plan:
        stored = study._storage.get_trial_system_attrs(trial._trial_id).get(PLAN_KEY)
        if stored is not None:
            return Plan.from_dict(stored)
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        roster = Roster(trials, self.scheme, self.max_attempts)
        generation = roster.generation()
        enqueued = bool(plans.given_genes(trial, self._gene_names))
        # Those that the first trials are to have are not a user's own.
        reserved = len(self._first) if enqueued and generation == 0 else 0
        slot = roster.claim(generation, trial.number, first=reserved)
        with one_blas_thread():
            genes = self._sample(study, trial, generation, slot)
        is_given = generation == 0 and slot < len(self._first) and not enqueued
        plan = Plan(
            generation=generation,
            fold=self.scheme.fold(generation),
            role="initial" if is_given else "sampled",
            parents=(),
            slot=slot,
            genes=self._first[slot] if is_given else genes,
        )
        study._storage.set_trial_system_attr(trial._trial_id, PLAN_KEY, plan.to_dict())
        return plan

    def _sample(
        self, study: Study, trial: FrozenTrial, generation: int, slot: int
    ) -> tuple[float, ...]:
        """What the sampler chooses; it is asked in vain too, to take given genes for its own."""
        sampler = self._sampler(generation, slot)
        if isinstance(sampler, CmaEsSampler):
            # It seeds itself by the number of the trial, which trials that failed shift; so it gets
            # the number that the trial would have if none had.
            trial = copy.copy(trial)
            earlier = sum(self.scheme.n_slots(former) for former in range(generation))
            trial.number = earlier + slot
        if isinstance(sampler, BaseGASampler):
            # Optuna gives parents in another order when it chooses them than ever after, and from
            # them draws others with the same seed. So they are chosen before they are asked for.
            sampler.get_parent_population(study, sampler.get_trial_generation(study, trial))
        sampler.before_trial(study, trial)
        space = sampler.infer_relative_search_space(study, trial)
        genes = dict(sampler.sample_relative(study, trial, space))
        for name, distribution in plans.search_space(self.block_names, self.extra_genes).items():
            if name not in genes:
                genes[name] = sampler.sample_independent(study, trial, name, distribution)
        genes |= plans.given_genes(trial, self._gene_names)
        return tuple(float(genes[name]) for name in self._gene_names)

    def _sampler(self, *place: int) -> BaseSampler:
        if isinstance(self._make, BaseSampler):
            return self._make
        entropy = [_STREAM, self.seed, *place]
        return self._make(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
