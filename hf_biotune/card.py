"""The model card's text: what strangers named is made harmless, what people wrote is kept."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml
from huggingface_hub import metadata_load, metadata_save
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from .hub import CARD_NAME

if TYPE_CHECKING:
    from .blocks import Partition

LIBRARY = "hf_biotune"
TAGS = ("biotune", "peft")
CITATION = "Method: BioTune, [arXiv 2508.15367](https://arxiv.org/abs/2508.15367) and \
[arXiv 2601.11235](https://arxiv.org/abs/2601.11235)."

_BEGIN = "<!-- hf_biotune: made from the run; text outside of these two marks is kept -->"
_END = "<!-- hf_biotune: end -->"
_LONGEST = 300
# What Markdown gives a meaning within a line; HTML, tables and formulas are part of it on the Hub.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"})
_SIGNS = re.compile(r"([\\`*_\[\]~$])")
_LINK = re.compile(r"://|www\.|@", re.IGNORECASE)


def one_line(text: object) -> str:
    """Printable characters of a text on one line, of bounded length."""
    printable = "".join(sign if sign.isprintable() else " " for sign in str(text))
    line = " ".join(printable.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def code(text: object) -> str:
    """A text as a Markdown code span, in a sentence or in a table.

    Example:
        >>> code("layer1 [x](https://example.com)")
        '`layer1 [x](https://example.com)`'
    """
    # A bar would end a table's cell even here, and how to escape it depends on the reader.
    line = one_line(text).replace("|", "\N{BROKEN BAR}") or " "
    fence = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def escaped(text: object) -> str:
    """A text without any meaning in Markdown or HTML, in a sentence or in a table.

    Example:
        >>> escaped("<b>*bold*</b>")
        '&lt;b&gt;\\\\*bold\\\\*&lt;/b&gt;'
    """
    line = one_line(text)
    # Bare addresses become links whatever is escaped in them, except in code.
    return code(line) if _LINK.search(line) else _SIGNS.sub(r"\\\1", line.translate(_ENTITIES))


def fenced(text: str, language: str) -> str:
    """A text of several lines as a Markdown code block."""
    lines = text.strip("\n").splitlines()
    clean = ["".join(s if s.isprintable() else " " for s in line).rstrip() for line in lines]
    fence = "`" * max(3, _longest_run(text) + 1)
    return "\n".join([f"{fence}{language}", *clean, fence])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown already; the first column is to the left."""
    rule = [":--", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def is_repo_id(name: object) -> bool:
    """Whether a text can be the name of a repository on the Hub, and is no directory here."""
    if not isinstance(name, str) or "/" not in name or os.path.exists(name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def adapter_body(base: str | None, blocks: Partition, multipliers: Mapping[str, float]) -> str:
    """What a checkpoint's own card says: which blocks, at which rates, and how to load them.

    Args:
        base: name or directory of the base model, if known.
        blocks: of the model.
        multipliers: `{block: learning-rate multiplier}`; other blocks are frozen.
    """
    total = blocks.n_parameters
    trained = sum(blocks[name].n_parameters for name in multipliers)
    rows = [
        (
            code(block.name),
            f"{block.n_parameters:,}",
            f"{multipliers[block.name]:.3g}" if block.name in multipliers else "frozen",
        )
        for block in blocks
    ]
    name = PurePath(base or "").name
    return "\n\n".join(
        [
            "# BioTune adapter",
            f"Some blocks of {code(name) if name else 'the base model'} were fine-tuned, each at "
            f"its own learning rate; the others are the base model's own. Trained: {trained:,} of "
            f"{total:,} parameters ({trained / total:.2%}).",
            table(("block", "parameters", "learning-rate multiplier"), rows),
            fenced(
                "from hf_biotune import BioTuneModel\n\n"
                'model = BioTuneModel.from_pretrained(base_model, "this repository")',
                "python",
            ),
            f"Made with hf_biotune. {CITATION}",
        ]
    )


def update_card(
    directory: str | os.PathLike[str],
    body: str,
    metadata: Mapping[str, Any],
    *,
    add_section: bool = True,
) -> Path:
    """Write `README.md`, or renew our part of the one that is there.

    Args:
        directory: made if needed.
        body: our part, in Markdown.
        metadata: for the card's header; tags are added to those that are there, other entries take
            the place of those of the same name, and the rest of the header is kept.
        add_section: whether to add our part to a card that a person wrote without it.

    Returns:
        The path. A card whose header can't be read stays as it is, with a warning.
    """
    path = Path(directory) / CARD_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = path.read_bytes().decode("utf-8") if path.exists() else ""
        present = (metadata_load(path) or {}) if text else {}
    except (ValueError, yaml.YAMLError) as error:
        # Saving weights must not fail over a card, and a person's card must not be lost.
        warnings.warn(
            f"{path} is left as it is, for its header can't be read ({one_line(error)}); repair or "
            f"remove it, and save again",
            stacklevel=3,
        )
        return path
    merged = {**present, **metadata, "tags": _tags(present.get("tags"), metadata.get("tags"))}
    unfinished = path.with_suffix(".unfinished")
    try:
        unfinished.write_bytes(_with_section(text, body, add_section).encode("utf-8"))
        metadata_save(unfinished, merged)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _with_section(text: str, body: str, add_section: bool) -> str:
    section = f"{_BEGIN}\n\n{body.strip()}\n\n{_END}"
    begin, end = text.find(_BEGIN), text.rfind(_END)
    if 0 <= begin < end:
        return text[:begin] + section + text[end + len(_END) :]
    if not text:
        return f"\n{section}\n"
    return f"{text.rstrip()}\n\n{section}\n" if add_section else text


def _tags(present: Any, ours: Any) -> list[str]:
    listed = [present] if isinstance(present, str) else present
    kept = [str(tag) for tag in listed] if isinstance(listed, list) else []
    return list(dict.fromkeys([*kept, *TAGS, *(ours or ())]))


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
