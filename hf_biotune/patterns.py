"""Names: of a model's modules and parameters, of blocks, and the patterns that users write."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .exceptions import PartitionError

if TYPE_CHECKING:
    from torch import nn

REST = "rest"
HEAD_NAME = re.compile(
    r"(?!.*conv)(.+_)?(heads?|fc|classifier|cls|logits|score|qa_outputs|pre_logits|last_linear)"
    r"(_dist)?"
)
"""What modules that classify are called. EfficientNet's `conv_head` ends the features instead."""
EARLY_HEAD_NAME = re.compile(r"(?!.*conv)(.+_)?(head|classifier|score)")
"""Names that mean a head even where a model registers it before its body."""

_FORBIDDEN = (".", ":", "/")


@dataclass(frozen=True)
class Names:
    """The names of a model's modules and parameters, tied and shared ones under every name.

    Args:
        model: the model.
    """

    model: nn.Module

    @cached_property
    def owner(self) -> dict[str, str]:
        """Every name of each parameter -> the one that `model.named_parameters()` lists."""
        listed = {id(parameter): name for name, parameter in self.model.named_parameters()}
        return {
            name: listed[id(parameter)]
            for name, parameter in self.model.named_parameters(remove_duplicate=False)
        }

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Names of all modules but the model itself, in definition order."""
        return tuple(name for name, _ in self.model.named_modules(remove_duplicate=False) if name)

    @cached_property
    def parameters_below(self) -> dict[str, tuple[str, ...]]:
        """Each module's name -> the parameters in it, under the names that the model lists."""
        below: dict[str, dict[str, None]] = {name: {} for name in self.modules}
        for name, owner in self.owner.items():
            for module in ancestors(name):
                below[module][owner] = None
        return {name: tuple(parameters) for name, parameters in below.items()}

    def parameters_of(self, name: str) -> tuple[str, ...]:
        """The parameters in a module, or the parameter of that name."""
        return self.parameters_below[name] if name not in self.owner else (self.owner[name],)

    def untied(self, name: str) -> list[str]:
        """A module or parameter without what is tied to a parameter that is listed elsewhere.

        Returns:
            The name itself where nothing is tied, else the names of the parts that are not.
        """
        if name in self.owner:
            return [name] if self.owner[name] == name else []
        if all(owner.startswith(f"{name}.") for owner in self.parameters_below[name]):
            return [name]
        parts = [part for part in (*self.owner, *self.modules) if part.rpartition(".")[0] == name]
        return [inner for part in parts for inner in self.untied(part)]

    def match(self, pattern: str) -> tuple[str, ...]:
        """The modules and parameters that a pattern names.

        Args:
            pattern: a name, or a regular expression that must match a whole name.

        Raises:
            PartitionError: `pattern` is not a valid regular expression, or matches nothing.
        """
        if pattern in self.parameters_below or pattern in self.owner:
            return (pattern,)
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise PartitionError(
                f"{pattern!r} is neither the name of a module or parameter nor a valid regular "
                f"expression ({error}); escape special characters with a backslash"
            ) from error
        matches = tuple(name for name in (*self.modules, *self.owner) if expression.fullmatch(name))
        if not matches:
            raise PartitionError(self._nothing_matches(pattern))
        return matches

    def _nothing_matches(self, pattern: str) -> str:
        top = [name for name, _ in self.model.named_children()]
        top += [name for name, _ in self.model.named_parameters(recurse=False)]
        close = difflib.get_close_matches(pattern, [*self.modules, *self.owner], n=3)
        hint = f"did you mean {', '.join(map(repr, close))}? " if close else ""
        return (
            f"no module or parameter matches {pattern!r}; {hint}a pattern must be a whole name or "
            f"a regular expression that matches one; the model's top level is: {', '.join(top)}"
        )


def ancestors(name: str) -> Iterator[str]:
    """The names of the modules that a module or parameter lies in, innermost first.

    Example:
        >>> list(ancestors("layer1.0.conv1.weight"))
        ['layer1.0.conv1', 'layer1.0', 'layer1']
    """
    while name := name.rpartition(".")[0]:
        yield name


def safe_name(text: str) -> str:
    """`text` with everything but letters, digits and underscores replaced by underscores.

    Example:
        >>> safe_name("blocks.[0-5]")
        'blocks_0_5'
    """
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "block"


def execution_order(model: nn.Module) -> list[str]:
    """The names of the parameters in the order in which a forward pass comes to them.

    That is definition order, save that some models (XLM-RoBERTa) register their classifier first.
    """
    heads = tuple(
        f"{name}." for name, _ in model.named_children() if EARLY_HEAD_NAME.fullmatch(name)
    )
    names = [name for name, _ in model.named_parameters()]
    return sorted(names, key=lambda name: name.startswith(heads))


def named_patterns(blocks: Any) -> dict[str, list[str]]:
    """Check what a user gave as blocks, and name the blocks of a list.

    Args:
        blocks: a list of patterns, each a block, or a dict of block names to patterns.

    Returns:
        Block name -> patterns. In a list, the name of a block is the end of its pattern (`layer4`
        for `"layer4"`, `layer7` for `"encoder.layer.7"`), or all of it where two ends are equal.

    Raises:
        PartitionError: wrong types, nothing at all, or names that can't be used.

    Example:
        >>> named_patterns(["features.denseblock1", "encoder.layer.7"])
        {'denseblock1': ['features.denseblock1'], 'layer7': ['encoder.layer.7']}
    """
    if isinstance(blocks, str) or not isinstance(blocks, (Mapping, Sequence)):
        raise PartitionError(
            f"blocks must be a list of patterns or a dict of block names to patterns, got "
            f"{blocks!r}"[:300]
        )
    if not blocks:
        raise PartitionError("blocks must name at least one block, got none")
    if not isinstance(blocks, Mapping):
        return {name: [blocks[index]] for index, name in enumerate(_list_names(blocks))}
    return {_checked_name(name): _checked_patterns(blocks[name], name) for name in blocks}


def parameters_of_blocks(
    names: Names, matches: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, str]:
    """Which block each parameter of the model belongs to.

    Args:
        names: the model's names.
        matches: block name -> pattern -> the modules and parameters that it matches.

    Returns:
        Parameter name -> block name; parameters that match nothing belong to `rest`.

    Raises:
        PartitionError: two blocks match one parameter, or a block has none.
    """
    found: dict[str, tuple[str, str]] = {}
    for block, patterns in matches.items():
        for pattern, matched in patterns.items():
            for parameter in (owner for name in matched for owner in names.parameters_of(name)):
                other, other_pattern = found.setdefault(parameter, (block, pattern))
                if other != block:
                    raise PartitionError(
                        f"parameter {parameter!r} is matched by two blocks, {other!r} "
                        f"({other_pattern!r}) and {block!r} ({pattern!r}); a parameter, and what "
                        f"is tied to it, must be in one block: make the patterns narrower"
                    )
    _check_no_empty_block(matches, {block for block, _ in found.values()})
    listed = dict.fromkeys(names.owner.values())
    if REST in matches and any(parameter not in found for parameter in listed):
        missing = next(parameter for parameter in listed if parameter not in found)
        raise PartitionError(
            f"the name {REST!r} is kept for parameters that no pattern matches, such as "
            f"{missing!r}; give your block another name"
        )
    return {parameter: found.get(parameter, (REST, ""))[0] for parameter in listed}


def _check_no_empty_block(
    matches: Mapping[str, Mapping[str, Sequence[str]]], filled: set[str]
) -> None:
    for block, patterns in matches.items():
        if block not in filled:
            raise PartitionError(
                f"block {block!r} has no parameters: {', '.join(map(repr, patterns))} names only "
                f"modules without any; name a module that holds weights"
            )


def _list_names(patterns: Sequence[Any]) -> list[str]:
    checked = _checked_patterns(list(patterns), "blocks")
    repeated = [pattern for pattern in checked if checked.count(pattern) > 1]
    if repeated:
        raise PartitionError(
            f"the pattern {repeated[0]!r} is given twice; each is a block: drop one"
        )
    short = [_short_name(pattern) for pattern in checked]
    names = [
        name if short.count(name) == 1 else safe_name(pattern)
        for name, pattern in zip(short, checked, strict=True)
    ]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise PartitionError(
                f"the patterns {checked[names.index(name)]!r} and {checked[index]!r} would both "
                f"name their block {name!r}; pass a dict of block names to patterns"
            )
    return names


def _short_name(pattern: str) -> str:
    match = re.fullmatch(r"(?:[\w.]+\.)?([A-Za-z_]\w*?)(?:\.(\d+))?", pattern)
    return match.group(1) + (match.group(2) or "") if match else safe_name(pattern)


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name or any(sign in name for sign in _FORBIDDEN):
        raise PartitionError(
            f"a block's name must be a string without '.', ':' and '/', got {name!r}"[:300]
        )
    return name


def _checked_patterns(patterns: Any, name: Any) -> list[str]:
    """The patterns of one block as a list of strings that are not empty."""
    listed = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(listed, Sequence) or not all(isinstance(p, str) and p for p in listed):
        raise PartitionError(
            f"the patterns of {name!r} must be a string or a list of strings, none of them empty, "
            f"got {patterns!r}"[:300]
        )
    if not listed:
        raise PartitionError(f"block {name!r} must have at least one pattern, got none")
    return list(listed)
