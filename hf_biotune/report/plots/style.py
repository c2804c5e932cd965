"""What all figures share: colours, type, and places in inches.

Colour is spent on one thing only, the learning-rate multiplier: blue is slow, sand is the base
rate, rust is fast. Blue and rust stay apart for every common kind of colour blindness, and the
middle is the lightest. Frozen is grey *and* hatched, so that it survives a black and white print.
All else is ink.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, LogNorm, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import Rectangle
from matplotlib.textpath import text_to_path

from ...genotype import MAXIMUM_MULTIPLIER, MINIMUM_MULTIPLIER

INK = "#1c2733"
MUTED = "#586472"
FAINT = "#93a0ad"
GRID = "#dde2e7"
CARD = "#fefefe"
FROZEN = "#eceff2"
FROZEN_LINE = "#b4bdc7"
HATCH = "/////"
# Before matplotlib 3.11, the last for Python 3.10, hatches have the colour of the edge.
HATCH_COLOUR: dict[str, Any] = {
    "hatchcolor" if hasattr(Rectangle, "set_hatchcolor") else "edgecolor": FROZEN_LINE
}

RATE_NORM = LogNorm(MINIMUM_MULTIPLIER, MAXIMUM_MULTIPLIER)
RATE_MAP = LinearSegmentedColormap.from_list(
    "biotune_rate",
    [
        (0.0, "#27589b"),
        (0.25, "#5f97cb"),
        (0.4, "#b3d1da"),
        (0.5, "#f3e2a2"),
        (0.6, "#f0c078"),
        (0.75, "#e2843f"),
        (1.0, "#9a3113"),
    ],
).with_extremes(bad=(0, 0, 0, 0))

BODY, SMALL = 9.0, 8.0

_STYLE = {
    "font.size": BODY,
    "font.family": ["sans-serif"],
    "text.color": INK,
    # A block may be named "$x$".
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.labelsize": BODY,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "legend.labelcolor": MUTED,
    "hatch.linewidth": 0.9,
    "svg.fonttype": "none",
}

P = ParamSpec("P")
R = TypeVar("R")


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with this style alone, whatever the user's own matplotlib settings are."""
    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if k != "backend"}
    style: dict[Any, Any] = {**defaults, **_STYLE}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # A name may hold characters that the font lacks; a box in their place is good enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def styled(plot: Callable[P, R]) -> Callable[P, R]:
    """Run a plotting function inside of [`drawing`]."""

    @functools.wraps(plot)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with drawing():
            return plot(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float) -> Figure:
    """A figure of that many inches that no window and no `pyplot` knows of."""
    figure = Figure(figsize=(width, height), facecolor="none")
    FigureCanvasAgg(figure)
    return figure


def rate_colour(multiplier: float) -> str:
    """The colour of a learning-rate multiplier, as `#rrggbb`."""
    return to_hex(RATE_MAP(RATE_NORM(multiplier)))


def text_colour_on(colour: str) -> str:
    """Black or white, whichever is easier to read on that colour."""
    luminance = _luminance(colour)
    # Where the WCAG contrast to white equals that to black: (1.05 / (L + .05))^2 = 21.
    return "#ffffff" if luminance < math.sqrt(1.05 * 0.05) - 0.05 else "#000000"


def is_narrow(width: float) -> bool:
    """Whether a figure of that many inches is meant for a telephone."""
    return width < 6


def text_width(text: str, size: float) -> float:
    """Width of a line of text, in inches."""
    properties = FontProperties(family="sans-serif", size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, properties, ismath=False)
    return float(width) / 72


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Any:
    """Axes at a place given in inches from the lower left corner of the figure."""
    full_width, full_height = figure.get_size_inches()
    return figure.add_axes(
        (left / full_width, bottom / full_height, width / full_width, height / full_height)
    )


def frozen_patch(x: float, y: float, width: float, height: float, **options: Any) -> Rectangle:
    """The rectangle that stands for "frozen"."""
    style = {"facecolor": FROZEN, "edgecolor": FROZEN_LINE, "linewidth": 0.8, "hatch": HATCH}
    return Rectangle((x, y), width, height, **{**style, **HATCH_COLOUR, **options})


def add_rate_key(figure: Figure, left: float, bottom: float) -> None:
    """The key to the colours, 3 inches wide and 0.55 high: frozen, and 0.1 to 10."""
    box = 0.12
    swatch = add_axes(figure, left, bottom + 0.2, 0.42, box)
    swatch.set_axis_off()
    swatch.set(xlim=(0, 1), ylim=(0, 1))
    swatch.add_patch(frozen_patch(0, 0, 1, 1))
    swatch.text(0.5, -0.36, "frozen", ha="center", va="top", color=MUTED, size=SMALL)

    scale = add_axes(figure, left + 0.72, bottom + 0.2, 2.2, box)
    ramp = [[10 ** (-1 + 2 * step / 255) for step in range(256)]]
    scale.imshow(ramp, cmap=RATE_MAP, norm=RATE_NORM, aspect="auto", extent=(-1, 1, 0, 1))
    scale.set_xticks([-1, -math.log10(3), 0, math.log10(3), 1], ["0.1", "0.33", "1", "3", "10"])
    scale.set_yticks([])
    scale.tick_params(length=2, pad=2)
    scale.spines[:].set_visible(False)
    scale.set_title("learning-rate multiplier", loc="left", size=SMALL, color=MUTED, pad=3)


def _luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
