"""The table of blocks in the docs is the one that the code gives today."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "block_table.py"


@pytest.fixture
def block_table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    # The script puts the tests' directories on the path.
    monkeypatch.setattr("sys.path", [*sys.path])
    spec = importlib.util.spec_from_file_location("block_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_committed_table_is_up_to_date(block_table: ModuleType) -> None:
    committed = block_table.OUTPUT.read_text(encoding="utf-8")
    assert committed == block_table.table(), "run: python scripts/block_table.py"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["stem", "layer1", "layer2", "head"], "stem, layer1..2, head"),
        (["layer1", "layer3", "layer4"], "layer1, layer3..4"),
        (["a0", "b1", "b2"], "a0, b1..2"),
        (["block1", "transition1", "block2"], "block1, transition1, block2"),
    ],
)
def test_numbered_names_are_compressed(
    block_table: ModuleType, names: list[str], expected: str
) -> None:
    assert block_table.compressed(names) == expected
