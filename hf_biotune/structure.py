"""The structural rule: find the blocks of a model from its module tree alone.

A network is a stem, a repeated body and a head. The rule looks for the *outermost repeated list*
(at least three siblings of one class, each with two or more weight layers) and takes each member
as a block. Everything else is placed around it:

- Normalisation layers belong to what stands before them.
- Embeddings, parameters of the model itself (`cls_token`, `pos_embed`) and whatever stands before
  the body form `stem`.
- Linear layers after the body, and what is named as a head, form `head`.
- A single convolution after the body (EfficientNet's `conv_head`) belongs to the last block: it is
  pre-trained, as the features are, while the head is new for every task.
- A single layer *between* two members (a downsampling layer) belongs to the stage that it opens.
- Anything larger that stands alone (an auxiliary classifier) is a block of its own.

Where no such list exists, the rule tries flat stacks of convolutions (a block for each pooling
stage), then lists of two and of one, and at last takes every child of the model as a block.

Names: `stem` and `head`; members of numbered lists keep the model's own index, as `stage2` if they
are made of smaller units and as `layer7` if not; members with a name of their own keep it
(`layer3`, `denseblock1`, `Mixed_5b`). If two lists would use the same names, the first path
component in which they differ comes in front: `encoder_layer0`, `decoder_layer0`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from .module_tree import CONVOLUTION, Node, module_tree, pooling_stages, units_of, walk
from .patterns import EARLY_HEAD_NAME, HEAD_NAME, safe_name

Groups = dict[str, list[str]]
"""Block name -> names of modules and parameters; what is below a module belongs to it."""

STEM = "stem"
HEAD = "head"

_STEM_NAME = re.compile(r"stem|patch_embed|embed(s|der|dings?)?|.*_embed(der|ding)?s?|embed_.*")


def structural_groups(model: nn.Module) -> Groups:
    """Divide a model into stem, body and head.

    Args:
        model: any module that holds parameters.

    Returns:
        The names of the modules and parameters of each block. Every parameter is covered.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> structural_groups(model)
        {'layer0': ['0'], 'head': ['2']}
    """
    root = module_tree(model)
    for rule in _RULES:
        items = list(_expand(root, rule))
        if any(item.is_member for item in items):
            return _arrange(_expand_the_rest(items))
    return _children_as_groups(root)


def unit_groups(model: nn.Module, groups: Groups) -> Groups:
    """Divide blocks further: one for each residual unit, or each convolution of a flat stack.

    Args:
        model: the model that `groups` was made for.
        groups: what [`structural_groups`] returns, or the like.

    Returns:
        Finer blocks, named `<block>_<index of the unit>`. What stands before the first unit of a
        block (a downsampling layer) goes to that unit, what stands after a unit goes to it. Blocks
        without units, the stem and the head stay as they are.
    """
    nodes = {node.path: node for node in walk(module_tree(model))}
    finer: Groups = {}
    for name, targets in groups.items():
        pieces = [] if name in (STEM, HEAD) else list(_pieces(targets, nodes))
        if not any(key for _, key in pieces):
            finer[name] = targets
            continue
        first = next(key for _, key in pieces if key)
        current = f"{name}_{first}"
        for target, key in pieces:
            current = f"{name}_{key}" if key else current
            finer.setdefault(current, []).append(target)
    return finer


@dataclass(frozen=True)
class _Rule:
    """What counts as a repeated list.

    Args:
        least: how many members of one class it needs.
        multiple: whether members hold several weight layers, or one convolution each.
        bare_numbers: whether members must be named by a number only, as in a `ModuleList`.
    """

    least: int
    multiple: bool = True
    bare_numbers: bool = False

    def accepts(self, node: Node) -> bool:
        if _is_named_outer(node) or node.is_parallel:
            return False
        return node.is_multiple if self.multiple else node.is_single and node.has_convolution

    def kind(self, node: Node) -> tuple[type[nn.Module], str]:
        """Siblings of one kind are repetitions of each other.

        `stem`, `body` and `neck` of one model may all be of class `Sequential`, and an encoder and
        a decoder of one class are no list: there, names must differ by their number only.
        """
        by_name = node.is_container or self.least < 3
        return type(node.module), re.sub(r"\d+", "#", node.name) if by_name else ""

    def members(self, node: Node) -> tuple[Node, ...]:
        """The children that are blocks, if the node is a repeated list; otherwise none."""
        accepted = [child for child in node.children if self.accepts(child)]
        counts = Counter(self.kind(child) for child in accepted)
        repeated = {
            kind
            for kind, count in counts.items()
            if count >= self.least and self._names_allow(kind[1])
        }
        if not repeated:
            return ()
        # A stage of one convolution that ends the list (MobileNetV3) is a stage still.
        end = node.children.index(accepted[-1])
        last = [
            child
            for child in node.children[end + 1 :]
            if self.multiple and child.is_container and self.kind(child) in repeated
        ]
        return (*accepted, *last)

    def _names_allow(self, pattern: str) -> bool:
        if self.bare_numbers:
            return pattern == "#"
        return self.least > 2 or "#" in pattern


_RULES = (_Rule(3), _Rule(3, multiple=False), _Rule(2), _Rule(1, bare_numbers=True))


@dataclass(frozen=True)
class _Item:
    """A piece of the model that goes to one block as a whole.

    Args:
        targets: names of its modules, or of its parameters.
        node: the module; `None` if the item is bare parameters or a stage of a flat stack.
        name: of the block, if the item is a member of a repeated list.
        list_path: where that list is.
    """

    targets: tuple[str, ...]
    node: Node | None = None
    name: str = ""
    list_path: str = ""

    @property
    def is_member(self) -> bool:
        return bool(self.name)


def _expand(node: Node, rule: _Rule) -> Iterator[_Item]:
    """The items of a module in definition order, repeated lists opened."""
    members = rule.members(node)
    if not members and not _holds_list(node, rule):
        yield _Item((node.path,), node)
        return
    if node.own:
        yield _Item(node.own)
    stages = pooling_stages(node.module) if members and not rule.multiple else None
    if stages:
        yield from _flat_stack(node, stages)
        return
    kind = "stage" if any(units_of(member) for member in members) else "layer"
    for child in node.children:
        if child in members:
            yield _Item((child.path,), child, _member_name(child.name, kind), node.path)
        elif members:
            yield _Item((child.path,), child)
        else:
            yield from _expand(child, rule)


def _holds_list(node: Node, rule: _Rule) -> bool:
    """Whether a repeated list lies in a module; one within a stem or a head does not count."""
    if _is_named_outer(node):
        return False
    return bool(rule.members(node)) or any(_holds_list(child, rule) for child in node.children)


def _flat_stack(node: Node, stages: list[list[str]]) -> Iterator[_Item]:
    """The pooling stages of a flat stack as members, numbered from 1, and what is left of it."""
    start = f"{node.path}." if node.path else ""
    for number, stage in enumerate(stages, start=1):
        targets = tuple(start + name for name in stage)
        yield _Item(targets, None, f"stage{number}", node.path)
    used = {name for stage in stages for name in stage}
    for child in node.children:
        if child.name not in used:
            yield _Item((child.path,), child)


def _expand_the_rest(items: list[_Item]) -> list[_Item]:
    """Open shorter lists as well, such as a decoder of two layers behind a longer encoder."""
    first = next(index for index, item in enumerate(items) if item.is_member)
    expanded = items[: first + 1]
    for item in items[first + 1 :]:
        expanded.extend(_expand_loose(item))
    return expanded


def _expand_loose(item: _Item) -> list[_Item]:
    node = item.node
    if not item.is_member and node is not None and not _is_stem(node):
        for rule in (_Rule(2, bare_numbers=True), _Rule(1, bare_numbers=True)):
            opened = list(_expand(node, rule))
            if any(inner.is_member for inner in opened):
                return opened
    return [item]


class _Arrangement:
    """Blocks under construction."""

    def __init__(self) -> None:
        self.stem: list[str] = []
        self.head: list[str] = []
        self.body: list[tuple[_Item, list[str]]] = []
        self._previous = self.stem
        self._opens_next: list[str] = []

    def put(self, targets: Sequence[str], place: list[str]) -> None:
        """Add to a block, which a norm that comes next then belongs to as well."""
        place.extend(targets)
        self._previous = place

    def put_with_previous(self, targets: Sequence[str]) -> None:
        self.put(targets, self._previous)

    def put_with_next(self, targets: Sequence[str]) -> None:
        self.put(targets, self._opens_next)

    def put_in_last_block(self, targets: Sequence[str]) -> None:
        self.put(targets, self.body[-1][1])

    def put_alone(self, item: _Item) -> None:
        targets = self._opens_next + list(item.targets)
        self._opens_next = []
        self.body.append((item, targets))
        self._previous = targets


def _arrange(items: list[_Item]) -> Groups:
    """Place every item in the stem, the body or the head; the rules are this module's docstring."""
    positions = [index for index, item in enumerate(items) if item.is_member]
    result = _Arrangement()
    for index, item in enumerate(items):
        node = item.node
        if item.is_member:
            result.put_alone(item)
        elif node is None:
            result.stem.extend(item.targets)
        elif _is_stem(node):
            result.put(item.targets, result.stem)
        elif node.is_norm:
            result.put_with_previous(item.targets)
        elif _is_head(node, after_body=index > positions[-1]):
            result.put(item.targets, result.head)
        elif index < positions[0]:
            result.put(item.targets, result.stem)
        elif node.is_multiple:
            result.put_alone(item)
        elif index > positions[-1]:
            result.put_in_last_block(item.targets)
        else:
            result.put_with_next(item.targets)
    return _named(result)


def _named(arrangement: _Arrangement) -> Groups:
    groups: Groups = {STEM: arrangement.stem} if arrangement.stem else {}
    names = _body_names([item for item, _ in arrangement.body])
    for name, (_, targets) in zip(names, arrangement.body, strict=True):
        groups[_unused(name, groups)] = targets
    if arrangement.head:
        groups[_unused(HEAD, groups)] = arrangement.head
    return groups


def _body_names(items: list[_Item]) -> list[str]:
    """The members' names, with the lists told apart where two of them use the same names."""
    users: dict[str, set[str]] = {}
    for item in items:
        if item.is_member:
            users.setdefault(item.name, set()).add(item.list_path)
    clashing = sorted({path for paths in users.values() if len(paths) > 1 for path in paths})
    prefixes = _distinguishing(clashing)
    names = []
    for item in items:
        name = item.name or safe_name(item.targets[0].rpartition(".")[2])
        prefix = prefixes.get(item.list_path) if item.is_member else None
        names.append(f"{prefix}_{name}" if prefix else name)
    return names


def _distinguishing(paths: list[str]) -> dict[str, str]:
    """For each path the first component in which they differ, or all of it if that is not enough.

    Example:
        >>> _distinguishing(["t5.encoder.block", "t5.decoder.block"])
        {'t5.encoder.block': 'encoder', 't5.decoder.block': 'decoder'}
    """
    parts = {path: path.split(".") for path in paths}
    depth = 0
    while paths and len({tuple(part[: depth + 1]) for part in parts.values()}) == 1:
        depth += 1
    short = {path: safe_name(part[min(depth, len(part) - 1)]) for path, part in parts.items()}
    if len(set(short.values())) == len(paths):
        return short
    return {path: safe_name(path) for path in paths}


def _children_as_groups(root: Node) -> Groups:
    """No list anywhere: each child with parameters is a block, and a last linear one is `head`."""
    node = root
    while not node.own and len(node.children) == 1:
        node = node.children[0]
    if not node.children:
        return {HEAD: [node.path] if node.path else list(node.own)}
    groups: list[tuple[str, list[str]]] = []
    for child in node.children:
        if child.is_norm and groups:
            groups[-1][1].append(child.path)
            continue
        is_head = child is node.children[-1] and (
            _is_linear(child) or HEAD_NAME.fullmatch(child.name)
        )
        groups.append((HEAD if is_head else _member_name(child.name, "layer"), [child.path]))
    groups[0][1].extend(node.own)
    named: Groups = {}
    for name, targets in groups:
        named[_unused(name, named)] = targets
    return named


def _pieces(targets: list[str], nodes: dict[str, Node]) -> Iterator[tuple[str, str]]:
    """The modules and parameters of a block in order, each with its unit's index or ''."""
    flat = [t for t in targets if t in nodes and isinstance(nodes[t].module, CONVOLUTION)]
    is_flat = len(flat) > 1 and all(t in nodes and not nodes[t].children for t in targets)
    for target in targets:
        node = nodes.get(target)
        if is_flat:
            yield target, str(flat.index(target)) if target in flat else ""
        elif node is None or not (units := units_of(node)):
            yield target, ""
        else:
            yield from _opened(node, units)


def _opened(node: Node, units: tuple[Node, ...]) -> Iterator[tuple[str, str]]:
    """A stage in definition order, each unit with its index."""
    for parameter in node.own:
        yield parameter, ""
    for child in node.children:
        if child in units:
            yield child.path, _trailing_number(child.name)
        elif any(unit in child.children for unit in units):
            yield from _opened(child, units)
        else:
            yield child.path, ""


def _trailing_number(name: str) -> str:
    match = re.search(r"\d+$", name)
    return match.group() if match else safe_name(name)


def _is_stem(node: Node) -> bool:
    """Named as a stem or an embedding (BART's `layernorm_embedding`), or embeddings only."""
    if _STEM_NAME.fullmatch(node.name):
        return True
    return not node.is_norm and all(isinstance(at.module, nn.Embedding) for at in node.layers)


def _is_head(node: Node, after_body: bool) -> bool:
    """After the body, linear or named as a head; before its end, both and unmistakably so."""
    if not after_body:
        return EARLY_HEAD_NAME.fullmatch(node.name) is not None and _is_linear(node)
    return HEAD_NAME.fullmatch(node.name) is not None or _is_linear(node)


def _is_named_outer(node: Node) -> bool:
    """Whether the name tells that it is no part of the body."""
    return bool(_STEM_NAME.fullmatch(node.name) or HEAD_NAME.fullmatch(node.name))


def _is_linear(node: Node) -> bool:
    """Weights, but neither convolutions nor embeddings among them."""
    return not any(isinstance(layer.module, (CONVOLUTION, nn.Embedding)) for layer in node.layers)


def _member_name(key: str, kind: str) -> str:
    match = re.fullmatch(r"(?:\w+_layer_)?(\d+)", key)
    return f"{kind}{match.group(1)}" if match else safe_name(key)


def _unused(name: str, used: Groups) -> str:
    """The name, or the name with a number if it is taken."""
    number, candidate = 2, name
    while candidate in used:
        candidate, number = f"{name}_{number}", number + 1
    return candidate
