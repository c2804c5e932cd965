"""Links in docstrings, for the documentation: [`Name`] as transformers writes them.

A Griffe extension. A name that the reference has becomes a link to it, any other plain code;
`[`~Class.method`]` shows only its last part. The reference has what its pages name after `:::`, and
what `public_names` finds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "hf_biotune"
LINK = re.compile(r"\[`(~?)([\w.]+)`\](?![\[(])")
# Replaced by a `:::` for each public name that no page names itself.
REMAINDER = re.compile(r"^<!-- all other names of ([\w.]+) -->$", re.MULTILINE)


def public_names(module: str) -> dict[str, str]:
    """The names in a package's `__all__`, each with its full path where it is defined."""
    directory = ROOT / Path(*module.split("."))
    tree = ast.parse((directory / "__init__.py").read_text(encoding="utf-8"))
    homes, exported = {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            for name in node.names:
                homes[name.asname or name.name] = f"{module}.{node.module}.{name.name}"
        elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            exported = [c.value for c in ast.walk(node.value) if isinstance(c, ast.Constant)]
            if any(isinstance(part, ast.Starred) for part in ast.walk(node.value)):
                # Of a package that imports its names when they are first used.
                exported += _keys(tree, "_HOME")
    # A package that only hands on what its own packages export.
    return {name: _definition(homes[name]) for name in exported if name in homes}


def _keys(tree: ast.Module, variable: str) -> list[str]:
    """The keys of the dict that a module assigns to a variable."""
    return [
        str(key.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", "") == variable
        and isinstance(node.value, ast.Dict)
        for key in node.value.keys
        if isinstance(key, ast.Constant)
    ]


def _definition(path: str) -> str:
    """Follow a name through the packages that hand it on to the module that defines it."""
    parent, _, name = path.rpartition(".")
    is_package = (ROOT / Path(*parent.split(".")) / "__init__.py").is_file()
    return public_names(parent).get(name, path) if is_package else path


def named_in_pages() -> set[str]:
    """What the pages of the reference name after `:::`."""
    pages = (ROOT / "docs" / "reference").glob("*.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return set(re.findall(r"^::: ([\w.]+)", text, re.MULTILINE))


def remainder(module: str) -> list[str]:
    """The public names of a package that no page of the reference names."""
    named = named_in_pages()
    # Constants and modules have no docstring to show.
    return [
        path
        for name, path in public_names(module).items()
        if path not in named and not name.isupper()
    ]


def expanded(markdown: str) -> str:
    """A page of the reference with its remainders spelled out."""
    return REMAINDER.sub(
        lambda match: "\n\n".join(f"::: {path}" for path in remainder(match[1])), markdown
    )


def documented() -> set[str]:
    """Full paths of everything that has an entry in the reference, without members."""
    pages = (ROOT / "docs" / "reference").glob("*.md")
    text = "\n".join(expanded(page.read_text(encoding="utf-8")) for page in pages)
    return set(re.findall(r"^::: ([\w.]+)", text, re.MULTILINE))


class DocstringLinks(griffe.Extension):
    """Gives [`Name`] in docstrings the full path that it means, if the reference has it."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Rewrite every docstring of the package."""
        if pkg.path != PACKAGE:
            return
        known = documented()
        everything = list(_objects(pkg))
        targets: dict[str, str] = {}
        for member in everything:
            if member.path in known:
                targets.setdefault(member.name, member.path)
            if member.parent is not None and member.parent.path in known:
                targets.setdefault(f"{member.parent.name}.{member.name}", member.path)
        for member in everything:
            if member.docstring is not None:
                # Griffe knows the plural alone.
                text = re.sub(r"^Example:$", "Examples:", member.docstring.value, flags=re.M)
                member.docstring.value = LINK.sub(
                    lambda match: _link(match[1] == "~", match[2], targets), text
                )


def _objects(parent: griffe.Object) -> Iterator[griffe.Object]:
    yield parent
    for member in parent.members.values():
        if not member.is_alias:
            yield from _objects(member)


def _link(is_short: bool, name: str, targets: dict[str, str]) -> str:
    shown = name.rpartition(".")[2] if is_short else name
    target = targets.get(name) or targets.get(".".join(name.split(".")[-2:]))
    return f"[`{shown}`][{target}]" if target else f"`{shown}`"
