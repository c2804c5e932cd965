"""Evolution of genotypes: pure operators, populations, and the Optuna sampler built on them."""

from .costs import Costs
from .curve import curve_of, report_score
from .dominance import on_front
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
    "Costs",
    "Individual",
    "Plan",
    "PlannedSampler",
    "Role",
    "Scheme",
    "curve_of",
    "genotype_of",
    "minimised_fitness",
    "on_front",
    "parameter_names",
    "parameters_of",
    "plan_of",
    "report_score",
    "suggest_genotype",
]
