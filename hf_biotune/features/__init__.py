"""What frozen models make of data: features before the head, and what can be told from them."""

from .evolved import FeatureSelection, select_features
from .extraction import head_inputs
from .kernel import KernelClassifier, top_tune
from .logme import logme

__all__ = [
    "FeatureSelection",
    "KernelClassifier",
    "head_inputs",
    "logme",
    "select_features",
    "top_tune",
]
