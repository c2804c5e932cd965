"""The messages that the FAQ explains are messages of the code."""

from __future__ import annotations

import ast
import re

import pytest
from snippets import ROOT, blocks

MESSAGES = [" ".join(message.split()) for message in blocks(ROOT / "docs" / "faq.md", "text")]


@pytest.fixture(scope="module")
def literals() -> str:
    """Every string of the package, with `...` for the values in it, one a line."""
    found = []
    for path in sorted((ROOT / "hf_biotune").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [v.value if isinstance(v, ast.Constant) else "..." for v in node.values]
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_faq_is_in_the_code(message, literals):
    parts = [part for part in re.split(r"\s*\.\.\.\s*", message) if len(part) > 3]
    assert parts
    for part in parts:
        assert part in literals
