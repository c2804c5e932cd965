from __future__ import annotations

import re
from pathlib import Path

import pytest

from hf_biotune import __version__

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    "path", ["LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "pyproject.toml"]
)
def test_what_a_project_needs_is_there(path):
    assert (ROOT / path).stat().st_size > 0


def test_the_version_to_cite_is_that_of_the_package():
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (.+)$", citation, re.MULTILINE) == [__version__]
