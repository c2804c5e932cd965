"""The report of a search: figures, one self-contained HTML page, a Markdown table, a model card."""

from .card import write_model_card
from .data import ReportData
from .html import write_report
from .plots import (
    plot_blocks,
    plot_comparison,
    plot_evolution,
    plot_importances,
    plot_individuals,
)
from .tables import comparison_markdown

__all__ = [
    "ReportData",
    "comparison_markdown",
    "plot_blocks",
    "plot_comparison",
    "plot_evolution",
    "plot_importances",
    "plot_individuals",
    "write_model_card",
    "write_report",
]
