"""The network, drawn from input to output: which blocks are frozen, and how fast the rest learn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ...blocks import Block, Partition
from .. import numbers
from .labels import labels
from .style import (
    FAINT,
    INK,
    MUTED,
    SMALL,
    add_axes,
    add_rate_key,
    frozen_patch,
    is_narrow,
    new_figure,
    rate_colour,
    styled,
    text_colour_on,
    text_width,
)

ABOVE = 0.3
KEY_HEIGHT = 0.72
WIDEST_BLOCK = 1.5
MANY_BLOCKS = 40


@dataclass(frozen=True)
class _Layout:
    """Where the blocks go, in inches.

    Args:
        narrow: whether there is no room for more than the blocks.
        dense: whether there are so many blocks that each must be small.
        side: the margin on either side.
        lines: the blocks of each line of the drawing, in order.
        unit: width per decade of parameters.
        upright: whether names are written upwards, because they are wider than their blocks.
        name_height: room for names under a line.
        names: of all blocks, shortened to fit.
    """

    narrow: bool
    dense: bool
    side: float
    lines: list[list[Block]]
    unit: float
    upright: bool
    name_height: float
    names: list[str]

    @property
    def gap(self) -> float:
        return 0.05 if self.dense else 0.09

    @property
    def block_height(self) -> float:
        return 0.44 if self.dense else 0.62

    @property
    def above(self) -> float:
        """Room for the number of parameters."""
        return 0.16 if self.dense else 0.3


@styled
def plot_blocks(
    partition: Partition, multipliers: Mapping[str, float], *, width: float = 8.0
) -> Figure:
    """Draw the blocks from left to right, coloured by what becomes of them.

    The width of a block grows with the logarithm of its number of parameters, which is written
    above it. Many blocks continue on further lines, like text.

    Args:
        partition: the blocks of the model.
        multipliers: `{block: learning-rate multiplier}`; other blocks are frozen.
        width: of the figure, in inches.

    Returns:
        The figure. Its first axes hold one rectangle per block, in order; their `gid` is
        `block-<index>`.
    """
    layout = _lay_out(partition, width)
    line_height = layout.above + layout.block_height + 0.06 + layout.name_height
    height = line_height * len(layout.lines) + KEY_HEIGHT
    figure = new_figure(width, height)
    axes = add_axes(figure, 0, 0, width, height)
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    index = 0
    for number, line in enumerate(layout.lines):
        x, bottom = layout.side, height - number * line_height - layout.above - layout.block_height
        end = x + _length(line, layout.unit, layout.gap)
        _draw_flow(axes, (x, end, bottom + layout.block_height / 2), number, layout)
        for block in line:
            box = (x, bottom, _decades(block) * layout.unit, layout.block_height)
            _draw_block(axes, box, multipliers.get(block.name), f"block-{index}")
            _write_labels(axes, box, block, layout.names[index], layout)
            x, index = x + box[2] + layout.gap, index + 1
    add_rate_key(figure, layout.side, 0.02)
    if not layout.narrow:
        _explain(axes, width - layout.side, layout.dense)
    return figure


def _decades(block: Block) -> float:
    """The width of a block; the smallest ones are drawn as 1,000 parameters, to be seen at all."""
    return math.log10(max(1000, block.n_parameters))


def _length(line: Sequence[Block], unit: float, gap: float) -> float:
    return sum(_decades(block) for block in line) * unit + gap * (len(line) - 1)


def _lay_out(partition: Partition, width: float) -> _Layout:
    narrow, dense = is_narrow(width), len(partition) > MANY_BLOCKS
    side, gap = (0.38 if narrow else 0.56), (0.05 if dense else 0.09)
    room = width - 2 * side
    fill = (room - gap * (len(partition) - 1)) / sum(_decades(block) for block in partition)
    # Below that, neither the multiplier nor the number of parameters would fit.
    unit = max(fill, 0.05 if dense else 0.11)
    unit = min(unit, WIDEST_BLOCK / max(_decades(block) for block in partition))
    upright = any(
        text_width(name, SMALL) > _decades(block) * unit + gap - 0.04
        for block, name in zip(partition, labels(partition.names), strict=True)
    )
    names = labels(partition.names, 16 if upright else 24)
    longest = max(text_width(name, SMALL) for name in names)
    return _Layout(
        narrow=narrow,
        dense=dense,
        side=side,
        lines=_wrap(partition.blocks, unit, gap, room),
        unit=unit,
        upright=upright,
        name_height=longest + 0.1 if upright else 0.2,
        names=names,
    )


def _wrap(blocks: Sequence[Block], unit: float, gap: float, room: float) -> list[list[Block]]:
    """Break the row of blocks into as few lines as possible, of about the same length."""
    fewest = len(_fill_lines(blocks, unit, gap, room))
    for part in range(1, 21):
        lines = _fill_lines(blocks, unit, gap, room * part / 20)
        if len(lines) == fewest:
            return lines
    return _fill_lines(blocks, unit, gap, room)


def _fill_lines(blocks: Sequence[Block], unit: float, gap: float, room: float) -> list[list[Block]]:
    lines: list[list[Block]] = [[]]
    for block in blocks:
        # The tolerance lets a line in that was made to fill the room exactly.
        if lines[-1] and _length([*lines[-1], block], unit, gap) > room + 1e-6:
            lines.append([])
        lines[-1].append(block)
    return lines


def _draw_flow(axes: Any, place: tuple[float, float, float], number: int, layout: _Layout) -> None:
    """The way of the data, behind the blocks of one line."""
    start, end, y = place
    first, last = ("in", "out") if layout.narrow else ("input", "output")
    axes.plot([start - 0.12, end + 0.12], [y, y], color=FAINT, linewidth=1, zorder=0)
    style = {"va": "center", "color": MUTED, "size": SMALL}
    axes.text(start - 0.15, y, "…" if number else first, ha="right", **style)
    axes.text(end + 0.15, y, last if number == len(layout.lines) - 1 else "…", ha="left", **style)


def _draw_block(
    axes: Any, box: tuple[float, float, float, float], multiplier: float | None, gid: str
) -> None:
    x, y, width, height = box
    if multiplier is None:
        axes.add_patch(frozen_patch(x, y, width, height, gid=gid))
        return
    colour = rate_colour(multiplier)
    edge: dict[str, Any] = {"edgecolor": MUTED, "linewidth": 0.8}
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, gid=gid, **edge))
    rate = f"{numbers.TIMES}{multiplier:.2g}"
    axes.text(
        x + width / 2, y + height / 2, rate, ha="center", va="center", size=SMALL,
        color=text_colour_on(colour), rotation=90 if text_width(rate, SMALL) > width - 0.04 else 0,
    )  # fmt: skip


def _write_labels(
    axes: Any, box: tuple[float, float, float, float], block: Block, name: str, layout: _Layout
) -> None:
    x, bottom, width, height = box
    if not layout.dense:
        axes.text(
            x + width / 2, bottom + height + 0.05, numbers.short_count(block.n_parameters),
            ha="center", va="bottom", color=MUTED, size=SMALL - 1,
        )  # fmt: skip
    axes.text(
        x + width / 2, bottom - 0.06, name, ha="center", va="top", color=INK, size=SMALL,
        rotation=90 if layout.upright else 0,
    )  # fmt: skip


def _explain(axes: Any, right: float, dense: bool) -> None:
    text = "width: logarithm of parameters"
    if not dense:
        text = "numbers above: parameters\nwidth: their logarithm"
    axes.text(right, 0.24, text, ha="right", va="center", color=MUTED, size=SMALL, linespacing=1.4)
