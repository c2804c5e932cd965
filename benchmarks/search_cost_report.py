"""Tables of `search_cost.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def print_report(runs: Sequence[dict[str, Any]]) -> None:
    """Print the tables."""
    for run in runs:
        print(run)
