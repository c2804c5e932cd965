"""Methods to compare BioTune with, through the same wrapper, data, loop and accounting.

Names are imported when they are first used, so that the list of methods costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..exceptions import ConfigError

if TYPE_CHECKING:
    from .block_choices import BASELINES as BASELINES
    from .block_choices import baseline_config as baseline_config
    from .method import Method as Method
    from .method import TrainedMethod as TrainedMethod
    from .method import run_method as run_method
    from .problem import Problem as Problem
    from .setting import Cost as Cost
    from .setting import FinalRun as FinalRun
    from .setting import MethodResult as MethodResult
    from .setting import Setting as Setting
    from .setting import Tuned as Tuned

# Name -> module and class.
METHODS: Mapping[str, tuple[str, str]] = {
    "linear-probe": ("linear_probe", "LinearProbe"),
    "full": ("full_fine_tuning", "FullFineTuning"),
    "full-ensemble": ("deep_ensemble", "DeepEnsemble"),
    "gradual-last-first": ("gradual", "GradualLastFirst"),
    "gradual-first-last": ("gradual", "GradualFirstLast"),
    "l1-sp": ("l1_sp", "L1Sp"),
    "l2-sp": ("l2_sp", "L2Sp"),
    "auto-rgn": ("auto_rgn", "AutoRgn"),
    "lora": ("lora", "Lora"),
    "lp-ft": ("lp_ft", "LpFt"),
    "layer-decay": ("layer_decay", "LayerDecay"),
    "last-k": ("last_k", "LastK"),
    "bitfit": ("bitfit", "BitFit"),
    "norm-only": ("norm_only", "NormOnly"),
    "surgical": ("surgical", "Surgical"),
    "subtuning": ("subtuning", "SubTuning"),
    "spectrum": ("spectrum", "Spectrum"),
    "top-tuning": ("feature_methods", "TopTuning"),
    "evolved-features": ("feature_methods", "EvolvedFeatures"),
    "random-search": ("searched", "RandomSearch"),
    "random-ensemble": ("ensemble", "EnsembleOfRandom"),
    "biotune": ("searched", "BioTune"),
    "biotune-ensemble": ("ensemble", "EnsembleOfBest"),
}

_HOME = {
    "BASELINES": "block_choices",
    "Cost": "setting",
    "FinalRun": "setting",
    "Method": "method",
    "MethodResult": "setting",
    "Problem": "problem",
    "Setting": "setting",
    "TrainedMethod": "method",
    "Tuned": "setting",
    "baseline_config": "block_choices",
    "run_method": "method",
}

__all__ = ["METHODS", "get_method", *_HOME]


def get_method(name: str) -> Method:
    """A method by its name.

    Args:
        name: a key of `METHODS`.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {name!r}")
    module, cls = METHODS[name]
    method: Method = getattr(importlib.import_module(f".{module}", __name__), cls)()
    return method


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
