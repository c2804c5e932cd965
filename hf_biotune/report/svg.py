"""A figure as inline SVG whose ink follows the page's light or dark theme."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from .plots import style

THEME = {
    style.INK: "--ink",
    style.MUTED: "--muted",
    style.FAINT: "--faint",
    style.GRID: "--grid",
    style.CARD: "--card",
    style.FROZEN: "--frozen",
    style.FROZEN_LINE: "--frozen-line",
}
_COLOURS = re.compile("|".join(THEME))
_DROPPED = ("metadata", "style")


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Write a figure as an `<svg>` element for an HTML page.

    Args:
        figure: the figure.
        name: a prefix for every id in it, unique on the page.
        description: what the figure shows, for those who can't see it.

    Returns:
        The element. Text stays text; colours of the theme become CSS variables; there is no
        namespace, style sheet or reference that points outside of it.
    """
    buffer = io.StringIO()
    # The salt makes ids depend on the drawing alone, so that equal data give equal files.
    with style.drawing(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    _clean(root, name)
    root.attrib = {
        "class": "plot",
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": description,
    }
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, name: str) -> None:
    """Make an element and all within it fit for a page that holds other figures as well."""
    element.tag = _local(element.tag)
    for child in list(element):
        if _local(child.tag) in _DROPPED:
            element.remove(child)
        else:
            _clean(child, name)
    attributes = {_local(key): value for key, value in element.attrib.items()}
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    if attributes.get("href", "").startswith("#"):
        attributes["href"] = f"#{name}-{attributes['href'][1:]}"
    for key in ("style", "clip-path", "fill"):
        if key in attributes:
            value = attributes[key].replace("url(#", f"url(#{name}-")
            attributes[key] = _COLOURS.sub(lambda m: f"var({THEME[m[0]]})", value)
    element.attrib = attributes


def _local(tag: str) -> str:
    """A name without its XML namespace."""
    return tag.rpartition("}")[2]
