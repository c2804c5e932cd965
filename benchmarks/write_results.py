"""Write what the benchmarks measured into `docs/results.md`.

    python benchmarks/write_results.py

Only the part between two marks is written; every number in it comes from the files in
`benchmarks/results/`. What was not measured is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from methods_section import OURS, draw, read
from methods_section import section as methods_section
from search_cost_report import search_cost_section
from search_section import objectives_section, quality_section, replay_section, scaling_section
from step_section import (
    compile_section,
    memory_section,
    page_section,
    statistics_section,
    step_section,
    warm_start_section,
)

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"
PLOT = ROOT / "docs" / "assets" / "critical-difference.svg"
BEGIN = "<!-- results: made by benchmarks/write_results.py, don't edit -->"
END = "<!-- end of results -->"

# By file: the heading, and what is written of it.
SECTIONS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "search_cost": ("What a search costs and finds", lambda r: search_cost_section(r["runs"])),
    "norm_statistics": ("BatchNorm statistics in short trainings", statistics_section),
    "search_quality": ("Samplers", lambda r: quality_section(r["results"])),
    "replayed_search": ("Searches on recorded trainings", replay_section),
    "multi_objective": ("Several objectives", lambda r: objectives_section(r["results"])),
    "search_scaling": ("Many workers", lambda r: scaling_section(r["results"])),
    "step_cost": ("A training step", step_section),
    "compile_cost": ("Compiled steps", compile_section),
    "warm_start": ("Warm starts", warm_start_section),
    "memory": ("Memory", memory_section),
    "report_cost": ("The report", page_section),
}


def written(results: Path, plot: Path) -> str:
    """All sections that there are results of.

    Args:
        results: a directory of JSON files; comparisons of methods are in its `comparison`.
        plot: where the one of mean ranks is drawn.
    """
    parts = []
    comparisons = read(results / "comparison")
    if comparisons and all(any(r.name == OURS for r in c.fitting) for c in comparisons):
        draw(comparisons, plot)
        parts.append(methods_section(comparisons, f"assets/{plot.name}"))
    for name, (heading, section) in SECTIONS.items():
        path = results / f"{name}.json"
        if path.is_file():
            report = json.loads(path.read_text("utf-8"))
            parts += [f"## {heading}", f"Made by `benchmarks/{name}.py`{_where(report)}."]
            parts.append(section(report).strip())
    return "\n\n".join([BEGIN, *parts, END])


def _where(report: dict[str, Any]) -> str:
    """On which machine, as far as the file tells."""
    machine, torch = report.get("machine"), report["versions"].get("torch")
    found = f" on {machine['cores']} cores ({machine['processor']})" if machine else ""
    return f"{found}, with torch {torch}" if torch else found


def with_section(page: str, text: str) -> str:
    """A page with its part replaced, or added at the end."""
    if BEGIN not in page:
        return f"{page.rstrip()}\n\n{text}\n"
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{text}{after}"


def main() -> None:
    """Write the part, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--plot", type=Path, default=PLOT)
    arguments = parser.parse_args()
    text = written(arguments.results, arguments.plot)
    if text == f"{BEGIN}\n\n{END}":
        raise SystemExit(f"no results in {arguments.results}; run the benchmarks first")
    page = with_section(arguments.page.read_text("utf-8"), text)
    arguments.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
