"""What numbers were measured with, for the files in `results/` and `data/`."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path


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
