"""Write the blocks of well-known architectures to `docs/architectures.md`.

    python scripts/block_table.py

The models are those of `tests/architectures.py` and of the conformance suite, at the size that
their libraries give them by default, on the meta device: only their structure exists.
"""

from __future__ import annotations

import re
import sys
from itertools import groupby
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "conformance")]

from architectures import ARCHITECTURES, create  # noqa: E402
from small_models import MODELS  # noqa: E402

from hf_biotune import partition  # noqa: E402

OUTPUT = ROOT / "docs" / "architectures.md"
LIBRARIES = {
    "timm": "timm",
    "torchvision": "torchvision",
    "wrapped": "timm inside of transformers (`TimmWrapperForImageClassification`)",
    "transformers": "transformers",
}
HEAD = """\
# Blocks of architectures

Made by `python scripts/block_table.py`; don't edit. `layer0..3` stands for `layer0`, `layer1`,
`layer2`, `layer3`.

`partition(model)` divides a model into the blocks of column "auto". `partition(model, "layers")` is
finer; column "layers" says into how many. **paper** marks models whose "auto" blocks are the
published ones. Models have the size that their library gives them by default, with 5 classes.

The conformance suite (`tests/conformance`) trains, saves, loads, merges and unloads every model
marked ✓, at small size and from random weights, and compares bit for bit; also MiniLM-L6, a BERT,
with its pre-trained weights.
"""


def compressed(names: list[str]) -> str:
    """`["stem", "layer0", "layer1"]` -> `"stem, layer0..1"`."""
    numbered = [re.fullmatch(r"(.*?)(\d+)", name) for name in names]
    keys = []
    for position, match in enumerate(numbered):
        # Consecutive numbers minus their positions are equal.
        run = (match.group(1), int(match.group(2)) - position) if match else (position, None)
        keys.append(run)
    parts = []
    for _, run in groupby(zip(keys, names, strict=True), key=lambda pair: pair[0]):
        members = [name for _, name in run]
        last = re.search(r"\d+$", members[-1])
        parts.append(members[0] if len(members) == 1 else f"{members[0]}..{last.group()}")
    return ", ".join(parts)


def row(architecture: str) -> str:
    """One line of the table."""
    with torch.device("meta"):
        model = create(architecture)
    auto = partition(model)
    cells = (
        f"`{architecture.split('/')[1]}`",
        f"{auto.n_parameters / 1e6:.1f} M",
        str(len(auto)),
        compressed(list(auto.names)) + (" (**paper**)" if auto.source == "paper" else ""),
        str(len(partition(model, "layers"))),
        "✓" if architecture in MODELS else "",
    )
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """The whole page."""
    # MiniLM is a BERT; its weights come from a package that need not be installed.
    known = [name for name in dict.fromkeys([*ARCHITECTURES, *MODELS]) if "pre-trained" not in name]
    sections = []
    for library, title in LIBRARIES.items():
        rows = [row(name) for name in known if name.startswith(f"{library}/")]
        head = "| model | parameters | blocks | auto | layers | suite |\n|---|--:|--:|---|--:|---|"
        sections.append(f"\n## {title}\n\n{head}\n" + "\n".join(rows) + "\n")
    return HEAD + "".join(sections)


if __name__ == "__main__":
    OUTPUT.write_text(table(), encoding="utf-8")
    print(f"{OUTPUT.relative_to(ROOT)}: written")
