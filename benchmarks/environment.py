"""What numbers were measured with, and the files in `results/` that say it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of installed packages, by name."""
    found = {package: importlib.metadata.version(package) for package in packages}
    return {"python": platform.python_version(), **found}


def machine() -> dict[str, str | int]:
    """The processor and how many cores of it there are."""
    names = []
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count() or 1,
    }


def save_results(path: Path, measured: Mapping[str, Any], packages: Sequence[str]) -> None:
    """Write what was measured, and what with.

    Args:
        path: of the JSON file; its directory is made if needed.
        measured: JSON values.
        packages: whose versions matter.
    """
    report = {"versions": versions(*packages), "machine": machine(), **measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
