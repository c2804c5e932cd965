"""Whether a directory may take what is about to be written, before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from ..exceptions import ConfigError

# Where a comparison keeps its trainings, and where `tune` keeps the winner's weights.
UNITS_NAME, ADAPTER_NAME = "units", "adapter"


def check_directory(output_dir: str | os.PathLike[str]) -> None:
    """Check that a directory is there, or can be made.

    Args:
        output_dir: what a user gave.

    Raises:
        ConfigError: it is a file, lies in one, or nobody may write there.
    """
    existing = Path(output_dir).absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ConfigError(
            f"the output directory {str(output_dir)!r} can't be made: {str(existing)!r} is a file; "
            f"give another one"
        )
    if not os.access(existing, os.W_OK):
        raise ConfigError(
            f"the output directory {str(output_dir)!r} can't be written to; give another one"
        )


def check_search_directory(output_dir: str | os.PathLike[str]) -> None:
    """Check that a search may write into a directory.

    Args:
        output_dir: what a user gave.

    Raises:
        ConfigError: as [`check_directory`], or it holds a comparison of methods.
    """
    check_directory(output_dir)
    if (Path(output_dir) / UNITS_NAME).is_dir():
        raise ConfigError(
            f"{str(output_dir)!r} holds a comparison of methods, whose files have the names of a "
            f"search's; give another output directory"
        )
