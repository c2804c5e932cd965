"""The parts of `docs/results.md` about how well searches choose, with one worker and with many."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hf_biotune.report.tables import markdown_table

Results = Mapping[str, Any]
NOT_RUN = "not run"


def quality_section(results: Results) -> str:
    """Of `search_quality.py`: regret by number of trainings.

    Args:
        results: by kind of landscape and method.
    """
    marks, table = _by_sampler(results, _regrets)
    return (
        f"Mean normalised regret in per cent (0: the optimum, 100: a median random genotype) of "
        f"the best observed genotype after {', '.join(map(str, marks))} trainings, with the "
        f"standard error of the last and the number of repetitions. `digits` is a table of real "
        f"trainings, the others are synthetic.\n\n"
        f"{table}"
    )


def _by_sampler(results: Results, cell: Callable[[Results | None], str]) -> tuple[list[int], str]:
    """After how many trainings there is a figure, and the table by sampler and landscape."""
    marks = next(iter(next(iter(results.values())).values()))["checkpoints"]
    rows = [("Sampler", *results)]
    for method in dict.fromkeys(method for kind in results.values() for method in kind):
        rows.append((method, *(cell(kind.get(method)) for kind in results.values())))
    return marks, markdown_table(rows)


def _regrets(found: Results | None) -> str:
    if found is None:
        return NOT_RUN
    means = " ".join(f"{mean:.1f}" for mean in found["mean"])
    return f"{means} ± {found['standard_error'][-1]:.1f} ({found['repetitions']})"


def replay_section(report: Results) -> str:
    """Of `replayed_search.py`: whole searches on recorded trainings.

    Args:
        report: the file's content.
    """
    rows = [("Search", "Regret, %", "Test score", "Trainings", "Recorded CPU s")]
    for name, found in report["results"].items():
        rows.append(
            (
                name,
                _with_error(found["regret"], 1),
                _with_error(found["test_score"], 4),
                f"{found['trainings']['mean']:.1f}",
                f"{found['seconds']['mean']:.0f}",
            )
        )
    repetitions = {found["repetitions"] for found in report["results"].values()}
    table = report["table"]
    return (
        f"Whole searches, with folds, halving, racing and finalists, whose trainings are looked up "
        f"in a table of recorded ones: {table['model'].split(' (')[0]} on "
        f"{table['data'].split(' (')[0]} at {table['image_size']} pixels, {table['n_epochs']} "
        f"epochs; {', '.join(map(str, sorted(repetitions)))} seeds, ± standard error. `-` leaves "
        f"one saving out of the default; `random` and `tpe` keep all savings.\n\n"
        f"{markdown_table(rows)}"
    )


def scaling_section(results: Results) -> str:
    """Of `search_scaling.py`: simulated workers, and what storages cost.

    Args:
        results: by part.
    """
    simulated = results["simulated"]
    first, last = simulated["checkpoints"]
    rows = [("Workers", "Busy", "Busy to the end", f"Regret at {first}", f"Regret at {last}")]
    for workers, found in simulated["workers"].items():
        rows.append(
            (
                workers,
                f"{found['utilisation']:.3f}",
                f"{found['utilisation_to_the_end']:.3f}",
                *(_relative(found, place) for place in (0, 1)),
            )
        )
    parts = [
        f"Simulated trainings of 1 to 60 s on a population of {simulated['population_size']}, "
        f"{simulated['repetitions']} repetitions on {len(simulated['kinds'])} landscapes. *Busy*: "
        f"while there is a trial left to start. Regret after as many trials, as a multiple of one "
        f"worker's, with its 95 % interval.",
        markdown_table(rows),
        "What keeping one trial costs, in CPU milliseconds:",
        markdown_table(_storages(results["storages"])),
    ]
    return "\n\n".join(part.strip() for part in parts)


def _relative(found: Results, place: int) -> str:
    low, high = found["interval"][place]
    if low == high:
        return f"{found['relative_regret'][place]:.2f}"
    return f"{found['relative_regret'][place]:.2f} ({low:.2f} to {high:.2f})"


def _storages(storages: Results) -> list[tuple[str, ...]]:
    counts = next(iter(storages.values()))
    rows = [("Storage", *(f"{int(count):,} trials" for count in counts))]
    for name, of_count in storages.items():
        rows.append((name, *(f"{1000 * o['keeping_cpu_seconds']:.1f}" for o in of_count.values())))
    return rows


def objectives_section(results: Results) -> str:
    """Of `multi_objective.py`: fronts of score and trained parameters.

    Args:
        results: by kind of landscape and method.
    """
    marks, table = _by_sampler(results, _volumes)
    return (
        f"Hypervolume of score and trained parameters (1 would be the best score for nothing) "
        f"after {' and '.join(map(str, marks))} trainings, with the standard error of the last."
        f"\n\n{table}"
    )


def _volumes(found: Results | None) -> str:
    if found is None:
        return NOT_RUN
    means = " ".join(f"{mean:.3f}" for mean in found["mean"])
    return f"{means} ± {found['standard_error'][-1]:.3f}"


def _with_error(found: Results, digits: int) -> str:
    return f"{found['mean']:.{digits}f} ± {found['standard_error']:.{digits}f}"
