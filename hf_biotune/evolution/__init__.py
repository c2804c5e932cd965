"""Evolution of genotypes: pure operators, populations, and the Optuna sampler built on them."""

from .plan import (
    EXTRA_PREFIX,
    FREEZING_THRESHOLD,
    IMPORTANCE_PREFIX,
    Plan,
    genotype_of,
    parameter_names,
    parameters_of,
    plan_of,
    suggest_genotype,
)
from .planned import PlannedSampler
from .population import Individual, minimised_fitness
from .sampler import BioTuneSampler
from .scheme import ROLES, Role, Scheme

__all__ = [
    "EXTRA_PREFIX",
    "FREEZING_THRESHOLD",
    "IMPORTANCE_PREFIX",
    "ROLES",
    "BioTuneSampler",
    "Individual",
    "Plan",
    "PlannedSampler",
    "Role",
    "Scheme",
    "genotype_of",
    "minimised_fitness",
    "parameter_names",
    "parameters_of",
    "plan_of",
    "suggest_genotype",
]
