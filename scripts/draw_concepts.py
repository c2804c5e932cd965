"""Draw the pictures of the documentation's concept pages, as SVG, in the colours of the report.

    python scripts/draw_concepts.py

They are sketches: what is drawn stands for no measurement. Genotypes are decoded and bred by the
library itself.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hf_biotune.evolution.operators import crossover, mutate
from hf_biotune.genotype import Genotype, lr_multiplier
from hf_biotune.report.plots.style import FROZEN, FROZEN_LINE, INK, MUTED, rate_colour

ASSETS = Path(__file__).parents[1] / "docs" / "assets"
BLOCKS = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
EXAMPLE = Genotype((0.1, 0.2, 0.2, 0.7, 0.35, 0.5), 0.3)
FONT = "font-family:ui-sans-serif,system-ui,'Segoe UI',Helvetica,Arial,sans-serif"


class Drawing:
    """SVG elements on a white card.

    Args:
        width: in pixels.
        height: in pixels.
        description: for those who can't see it.
    """

    def __init__(self, width: int, height: int, description: str) -> None:
        self.size = width, height
        self.parts = [
            f"<title>{html.escape(description)}</title>",
            '<defs><pattern id="frozen" width="6" height="6" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate(45)"><rect width="6" height="6" fill="{FROZEN}"/>'
            f'<path d="M0 0V6" stroke="{FROZEN_LINE}" stroke-width="1.6"/></pattern>'
            '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{MUTED}"/></marker>'
            "</defs>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, fill: str) -> None:
        """A rounded rectangle; `fill` is a colour."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4" '
            f'fill="{fill}" stroke="{FROZEN_LINE}"/>'
        )

    def cell(self, x: float, y: float, width: float, height: float, rate: float | None) -> None:
        """A block: hatched if it is frozen, else in the colour of its rate."""
        self.box(x, y, width, height, "url(#frozen)" if rate is None else rate_colour(rate))

    def strip(self, x: float, y: float, genotype: Genotype, cell: float = 22) -> None:
        """A genotype as a row of cells."""
        rates = genotype.decode(BLOCKS)
        for number, name in enumerate(BLOCKS):
            self.cell(x + number * (cell + 3), y, cell, cell, rates.get(name))

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        anchor: str = "middle",
        size: int = 13,
        colour: str = INK,
        bold: bool = False,
    ) -> None:
        """One line of text."""
        weight = ' font-weight="600"' if bold else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
            f"{weight}>{html.escape(words)}</text>"
        )

    def line(
        self, points: Sequence[tuple[float, float]], colour: str = MUTED, *, tip: bool = False,
        width: float = 1.5, dashed: bool = False,
    ) -> None:  # fmt: skip
        """A line through points, with an arrow's tip at its end if asked for."""
        path = "L".join(f"{x:g} {y:g}" for x, y in points)
        extra = ' marker-end="url(#tip)"' if tip else ""
        extra += ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width:g}"{extra}/>'
        )

    def save(self, name: str) -> None:
        """Write `docs/assets/<name>.svg`."""
        width, height = self.size
        body = "\n".join(self.parts)
        (ASSETS / f"{name}.svg").write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img" style="{FONT}">\n{body}\n</svg>\n',
            encoding="utf-8",
        )


def legend(drawing: Drawing, x: float, y: float) -> None:
    """What the colours mean."""
    entries = [(None, "frozen"), (0.15, "slow"), (1.0, "base rate"), (7.0, "fast")]
    for rate, words in entries:
        drawing.cell(x, y, 14, 14, rate)
        drawing.text(x + 20, y + 11.5, words, anchor="start", size=12, colour=MUTED)
        x += 34 + 7 * len(words)


def draw_blocks() -> None:
    """A network as a row of blocks."""
    drawing = Drawing(720, 190, "A network as a row of six blocks, three frozen, three trained")
    rates = EXAMPLE.decode(BLOCKS)
    for number, name in enumerate(BLOCKS):
        x, height = 78 + number * 98, 84 - 8 * number
        top = 28 + (84 - height) / 2
        drawing.cell(x, top, 74, height, rates.get(name))
        words = f"x {rates[name]:.2g}" if name in rates else "frozen"
        drawing.text(x + 37, 132, name, bold=True)
        drawing.text(x + 37, 149, words, size=12, colour=MUTED)
        drawing.line([(x - 20, 70), (x - 4, 70)], tip=True)
    drawing.text(30, 74, "input", colour=MUTED)
    drawing.line([(644 + 2, 70), (664, 70)], tip=True)
    drawing.text(692, 74, "logits", colour=MUTED)
    legend(drawing, 190, 164)
    drawing.save("blocks")


def draw_genotype() -> None:
    """Importance genes against the threshold."""
    drawing = Drawing(
        720, 270, "Six importance genes as bars; those above the threshold are trained"
    )
    bottom, height = 210, 170
    rates = EXAMPLE.decode(BLOCKS)
    for value, words in ((0.0, "0"), (0.5, "0.5"), (1.0, "1")):
        y = bottom - value * height
        drawing.line([(70, y), (580, y)], "#dde2e7", width=1)
        drawing.text(62, y + 4, words, anchor="end", size=12, colour=MUTED)
        drawing.text(
            590, y + 4, f"x {lr_multiplier(value):.3g}", anchor="start", size=12, colour=MUTED
        )
    for number, (name, gene) in enumerate(zip(BLOCKS, EXAMPLE.importances, strict=True)):
        x = 92 + number * 82
        drawing.cell(x, bottom - gene * height, 50, gene * height, rates.get(name))
        drawing.text(x + 25, bottom + 20, name, bold=True)
        words = f"x {rates[name]:.2g}" if name in rates else "frozen"
        drawing.text(x + 25, bottom + 37, words, size=12, colour=MUTED)
    y = bottom - EXAMPLE.freezing_threshold * height
    drawing.line([(70, y), (580, y)], INK, dashed=True)
    drawing.text(590, y + 4, "freezing threshold", anchor="start", size=12)
    drawing.text(70, 26, "importance gene", anchor="start", size=12, colour=MUTED)
    drawing.text(590, 22, "learning-rate multiplier", anchor="start", size=12, colour=MUTED)
    drawing.save("genotype")


def draw_loop() -> None:
    """The four steps as a circle."""
    drawing = Drawing(720, 210, "Genotype, phenotype, fitness, evolution, and back to the genotype")
    steps = (
        ("Genotype", "genes in [0, 1]"),
        ("Phenotype", "blocks and rates"),
        ("Fitness", "a short fine-tuning"),
        ("Evolution", "breeds from the best"),
    )
    for number, (name, words) in enumerate(steps):
        x = 24 + number * 174
        drawing.box(x, 30, 150, 96, "#f7f9fa")
        drawing.text(x + 75, 54, name, bold=True, size=14)
        drawing.text(x + 75, 114, words, size=12, colour=MUTED)
        if number < 3:
            drawing.line([(x + 152, 78), (x + 171, 78)], tip=True)
    for number, gene in enumerate(EXAMPLE.importances):
        drawing.box(38 + number * 21, 96 - gene * 34, 14, gene * 34, MUTED)
    drawing.strip(208, 70, EXAMPLE, cell=17)
    curve = [(0, 96), (20, 80), (40, 72), (60, 68), (80, 66), (100, 65)]
    drawing.line([(398 + x, y) for x, y in curve], INK, width=2)
    for number, gene in enumerate((0.55, 0.3, 0.75)):
        genotype = Genotype((*EXAMPLE.importances[:3], gene, 0.6, gene), 0.25 + 0.1 * number)
        drawing.strip(560, 64 + number * 13, genotype, cell=10)
    drawing.line([(621, 130), (621, 160), (99, 160), (99, 131)], tip=True)
    drawing.text(360, 180, "the next generation, until the budget is spent", size=12, colour=MUTED)
    drawing.save("loop")


def draw_evolution() -> None:
    """Two generations: an elite refined, a pair crossed and mutated."""
    drawing = Drawing(
        720, 300, "An elite is refined; two parents are crossed and their child mutated"
    )
    generator = np.random.default_rng(4)
    parents = [Genotype.random(len(BLOCKS), generator) for _ in range(2)]
    first, second = (parent.to_array() for parent in parents)
    child = crossover(first, second, generator)
    mutant = mutate(child, 0.35, generator)

    drawing.text(30, 32, "Elites are refined", anchor="start", bold=True, size=14)
    refined = Genotype((0.1, 0.2, 0.2, 0.85, 0.35, 0.5), 0.3)
    drawing.strip(30, 46, EXAMPLE)
    drawing.text(105, 88, "one of the best", size=12, colour=MUTED)
    drawing.line([(186, 57), (242, 57)], tip=True)
    drawing.text(213, 48, "one gene", size=12, colour=MUTED)
    drawing.text(213, 75, "up or down", size=12, colour=MUTED)
    drawing.strip(252, 46, refined)
    drawing.text(327, 88, "kept if it is better", size=12, colour=MUTED)

    drawing.text(30, 130, "Offspring are bred", anchor="start", bold=True, size=14)
    drawing.strip(30, 146, parents[0])
    drawing.strip(30, 206, parents[1])
    drawing.text(105, 188, "parents, drawn by rank", size=12, colour=MUTED)
    drawing.line([(186, 157), (242, 180)], tip=True)
    drawing.line([(186, 217), (242, 194)], tip=True)
    drawing.strip(252, 176, Genotype.from_array(child).repaired())
    drawing.text(327, 218, "gene by gene, a mixture", size=12, colour=MUTED)
    drawing.line([(408, 187), (464, 187)], tip=True)
    drawing.strip(474, 176, Genotype.from_array(mutant).repaired())
    drawing.text(549, 218, "mutated, if the parents are poor", size=12, colour=MUTED)
    drawing.text(
        30, 252, "Of 200 candidates a Gaussian process picks the one to train.", anchor="start",
        size=12, colour=MUTED,
    )  # fmt: skip
    legend(drawing, 30, 270)
    drawing.save("evolution")


def draw_fitness() -> None:
    """Learning curves, the rung, and further seeds."""
    drawing = Drawing(720, 260, "Learning curves; two of three stop at a third of the epochs")
    left, bottom, width, height = 70, 205, 400, 165
    rung = left + width / 3
    drawing.line([(left, bottom - height), (left, bottom), (left + width, bottom)], FROZEN_LINE)
    drawing.line([(rung, bottom), (rung, bottom - height - 6)], MUTED, dashed=True, width=1.2)
    drawing.text(rung, bottom + 18, "a third of the epochs", size=12, colour=MUTED)
    drawing.text(left + width, bottom + 18, "all epochs", anchor="end", size=12, colour=MUTED)
    drawing.text(left - 8, bottom - height + 4, "score", anchor="end", size=12, colour=MUTED)
    for top, speed, end, colour in (
        (0.92, 4.5, 1.0, rate_colour(7.0)),
        (0.62, 4.0, 1 / 3, FROZEN_LINE),
        (0.48, 3.0, 1 / 3, FROZEN_LINE),
    ):
        steps = np.linspace(0, end, 24)
        scores = top * (1 - np.exp(-speed * steps))
        points = [
            (left + x * width, bottom - y * height) for x, y in zip(steps, scores, strict=True)
        ]
        drawing.line(points, colour, width=2.5)
        if end < 1:
            drawing.text(points[-1][0] + 10, points[-1][1] + 4, "stopped", anchor="start",
                         size=12, colour=MUTED)  # fmt: skip
    drawing.text(500, 44, "goes on, and takes the lead:", anchor="start", bold=True)
    for number, words in enumerate(("seed 1", "seed 2", "seed 3")):
        y = 66 + number * 30
        drawing.box(500, y, 60, 20, rate_colour(7.0) if number < 2 else "#ffffff")
        drawing.text(572, y + 14, words, anchor="start", size=12)
    drawing.text(500, 176, "further seeds only while it may", anchor="start", size=12, colour=MUTED)
    drawing.text(500, 192, "still be the best", anchor="start", size=12, colour=MUTED)
    drawing.save("fitness")


def draw_prefix() -> None:
    """What the frozen prefix gives is kept."""
    drawing = Drawing(
        720, 210, "Frozen first blocks run once; their outputs are kept and read again"
    )
    rates = EXAMPLE.decode(BLOCKS)
    for row, (y, words) in enumerate(((36, "first time"), (124, "every other time"))):
        drawing.text(24, y + 24, words, anchor="start", bold=True)
        for number, name in enumerate(BLOCKS):
            if row and name not in rates:
                continue
            x = 160 + number * 62 + (110 if name in rates else 0)
            drawing.cell(x, y, 52, 40, rates.get(name))
            drawing.text(x + 26, y + 56, name, size=11, colour=MUTED)
    drawing.box(358, 28, 84, 144, "#f7f9fa")
    drawing.text(400, 94, "kept", bold=True)
    drawing.text(400, 111, "per sample", size=12, colour=MUTED)
    drawing.line([(338, 56), (355, 56)], tip=True)
    drawing.line([(442, 56), (454, 56)], tip=True)
    drawing.line([(442, 144), (454, 144)], tip=True)
    drawing.text(250, 148, "nothing to compute", size=12, colour=MUTED)
    drawing.save("prefix")


def main() -> None:
    """Draw all of them."""
    ASSETS.mkdir(parents=True, exist_ok=True)
    for draw in (draw_blocks, draw_genotype, draw_loop, draw_evolution, draw_fitness, draw_prefix):
        draw()


if __name__ == "__main__":
    main()
