"""The figures: one file each. All return a matplotlib `Figure` and touch no global state."""

from .blocks import plot_blocks
from .comparison import plot_comparison
from .cost import CostPoint, plot_cost
from .critical_difference import plot_critical_difference
from .evolution import plot_evolution
from .importances import plot_importances
from .individuals import plot_individuals
from .pareto import plot_pareto

__all__ = [
    "CostPoint",
    "plot_blocks",
    "plot_comparison",
    "plot_cost",
    "plot_critical_difference",
    "plot_evolution",
    "plot_importances",
    "plot_individuals",
    "plot_pareto",
]
