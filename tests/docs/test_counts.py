"""Numbers in the prose are those of the tables that they are about."""

from __future__ import annotations

from snippets import ROOT


def test_as_many_architectures_as_the_table_has() -> None:
    table = (ROOT / "docs" / "architectures.md").read_text("utf-8").splitlines()
    rows = [line for line in table if line.startswith("| `")]
    tested = sum(line.endswith("| ✓ |") for line in rows)
    assert f"{tested} architectures are tested" in (ROOT / "docs" / "index.md").read_text("utf-8")
    blocks = (ROOT / "docs" / "concepts" / "blocks.md").read_text("utf-8")
    assert f"lists the blocks of {len(rows)} models" in blocks
