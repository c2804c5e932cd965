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
    plot_pareto,
)
from .predictions import Predictions
from .stored import load_report_data, save_report_data
from .tables import comparison_markdown

__all__ = [
    "Predictions",
    "ReportData",
    "comparison_markdown",
    "load_report_data",
    "plot_blocks",
    "plot_comparison",
    "plot_evolution",
    "plot_importances",
    "plot_individuals",
    "plot_pareto",
    "save_report_data",
    "write_model_card",
    "write_report",
]
