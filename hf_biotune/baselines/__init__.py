"""What people do without a search, through the same wrapper, data and training."""

from .methods import BASELINES, baseline_config

__all__ = ["BASELINES", "baseline_config"]
