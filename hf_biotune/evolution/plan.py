"""The plan of a trial, and its genes as Optuna parameters: the border between both worlds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, Trial

from ..exceptions import ConfigError, GenotypeError
from ..genotype import Genotype
from .scheme import Role

IMPORTANCE_PREFIX = "importance:"
FREEZING_THRESHOLD = "freezing_threshold"
EXTRA_PREFIX = "gene:"
PLAN_KEY = "BioTuneSampler:plan"


@dataclass(frozen=True)
class Plan:
    """What a trial is for; written by the sampler as soon as the trial exists.

    Args:
        generation: from 0.
        fold: of the data on which to train and to score.
        role: `"initial"` (of the first generation, or given by the user), `"rescore"` (an elite on
            a new fold), `"exploit"` (a neighbour of an elite), `"offspring"`, `"random"` (takes the
            place of offspring when too few parents are left), or `"sampled"` (chosen by another
            sampler).
        parents: numbers of the trials that it descends from: none, the elite, or both parents.
        slot: the position in the generation; trials that failed leave theirs to the next trial.
        genes: as planned, in the order of [`Genotype.to_array`].
    """

    generation: int
    fold: int
    role: Role
    parents: tuple[int, ...]
    slot: int
    genes: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "parents": list(self.parents), "genes": list(self.genes)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of [`~Plan.to_dict`]."""
        return cls(**{**data, "parents": tuple(data["parents"]), "genes": tuple(data["genes"])})


def plan_of(trial: Trial | FrozenTrial) -> Plan:
    """The plan of a trial, live or finished.

    Args:
        trial: from `study.ask()`, the argument of an objective, or one of `study.trials`.

    Raises:
        ConfigError: the trial was made by another sampler than `BioTuneSampler` and
            `PlannedSampler`.
    """
    plan = stored_plan(trial)
    if plan is None:
        raise ConfigError(
            f"trial {trial.number} has no plan; create the study with "
            "sampler=BioTuneSampler(...), which plans every trial that it makes"
        )
    return plan


def stored_plan(trial: Trial | FrozenTrial) -> Plan | None:
    """Like [`plan_of`], but `None` for a trial without a plan."""
    # Not `isinstance`: for Optuna's abstract classes it takes as long as all the rest of this.
    if type(trial) is FrozenTrial:
        attributes = trial.system_attrs
    else:
        attributes = trial.storage.get_trial_system_attrs(trial._trial_id)
    data = attributes.get(PLAN_KEY)
    return None if data is None else Plan.from_dict(data)


def given_genes(trial: FrozenTrial, gene_names: Sequence[str]) -> dict[str, Any]:
    """The genes that a user gave an enqueued trial, by the name of the parameter.

    Args:
        trial: that is being planned.
        gene_names: of all genes, see [`parameter_names`].
    """
    given = trial.system_attrs.get("fixed_params", {})
    return {name: given[name] for name in gene_names if name in given}


def parameter_names(block_names: Sequence[str], extra_genes: Sequence[str] = ()) -> list[str]:
    """The names of a trial's parameters, in the order of the genes."""
    return [
        *(IMPORTANCE_PREFIX + name for name in block_names),
        FREEZING_THRESHOLD,
        *(EXTRA_PREFIX + name for name in extra_genes),
    ]


def search_space(
    block_names: Sequence[str], extra_genes: Sequence[str] = ()
) -> dict[str, FloatDistribution]:
    """The distribution of every gene, U[0, 1], by the name of its parameter."""
    return {name: FloatDistribution(0.0, 1.0) for name in parameter_names(block_names, extra_genes)}


def parameters_of(genotype: Genotype, block_names: Sequence[str]) -> dict[str, float]:
    """A genotype as the parameters of a trial, for `study.enqueue_trial`.

    Args:
        genotype: one gene per block.
        block_names: of the partition, in order.

    Raises:
        GenotypeError: the number of genes differs from the number of blocks.

    Example:
        >>> parameters_of(Genotype((0.2, 0.7), 0.5), ["stem", "head"])
        {'importance:stem': 0.2, 'importance:head': 0.7, 'freezing_threshold': 0.5}
    """
    if len(genotype) != len(block_names):
        raise GenotypeError(
            f"the genotype has {len(genotype)} importance genes but there are "
            f"{len(block_names)} blocks: {', '.join(block_names)}"
        )
    names = parameter_names(block_names, tuple(genotype.extra_genes))
    return dict(zip(names, genotype.to_array().tolist(), strict=True))


def genotype_of(
    trial: Trial | FrozenTrial | Mapping[str, Any], block_names: Sequence[str]
) -> Genotype:
    """The genotype of a trial, or of its parameters; the inverse of [`parameters_of`].

    Args:
        trial: a trial whose genes have been suggested, or a dict of parameters; others are ignored.
            Extra genes are those whose names begin with `gene:`.
        block_names: of the partition, in order.

    Raises:
        GenotypeError: a gene is missing or out of range.

    Example:
        >>> parameters = {"importance:head": 0.7, "freezing_threshold": 0.5, "momentum": 0.9}
        >>> genotype_of(parameters, ["head"])
        Genotype(importances=(0.7,), freezing_threshold=0.5)
    """
    parameters = trial if isinstance(trial, Mapping) else trial.params
    names = parameter_names(block_names)
    missing = [name for name in names if name not in parameters]
    if missing:
        raise GenotypeError(
            f"no parameter {missing[0]!r}; suggest every gene with "
            f"suggest_genotype(trial, block_names), got {sorted(parameters)}"[:300]
        )
    *importances, threshold = (parameters[name] for name in names)
    extra = {
        name.removeprefix(EXTRA_PREFIX): gene
        for name, gene in parameters.items()
        if name.startswith(EXTRA_PREFIX)
    }
    return Genotype(tuple(importances), threshold, extra)


def suggest_genotype(
    trial: optuna.trial.BaseTrial, block_names: Sequence[str], extra_genes: Sequence[str] = ()
) -> Genotype:
    """Ask a live trial for its genes; the first line of an objective.

    Args:
        trial: the argument of an objective, or from `study.ask()`.
        block_names: of the partition, in order.
        extra_genes: names of further genes, as the sampler has them. Default: none.

    Returns:
        The genotype to train.
    """
    names = parameter_names(block_names, sorted(extra_genes))
    return genotype_of({name: trial.suggest_float(name, 0.0, 1.0) for name in names}, block_names)
