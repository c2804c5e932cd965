"""How long the report of a large study takes, and how large it is.

    PYTHONPATH=tests/report python benchmarks/report_cost.py

1,000 individuals of 20 blocks, as the tests of the report make them up. The first report of a
process reads fonts and templates, so it and the median of some further ones are told. The exit
status is 1 if a limit is passed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from environment import save_results
from report_examples import make_data, make_history, make_partition

from hf_biotune.report import ReportData, write_report

RESULTS = Path(__file__).parent / "results" / "report_cost.json"
BLOCKS, GENERATIONS, INDIVIDUALS = 20, 25, 40
# What we allow.
SECONDS, MEGABYTES = 3.0, 5.0


def large_study() -> ReportData:
    """A study of 1,000 individuals on two folds."""
    partition = make_partition({f"encoder.layer.{i}": 10 ** (i % 5 + 3) for i in range(BLOCKS)})
    history = make_history(partition, n_generations=GENERATIONS, size=INDIVIDUALS, n_folds=2)
    return make_data(partition=partition, history=history)


def timed(directory: Path, data: ReportData) -> tuple[float, float, Path]:
    """Wall time and CPU time of one report, and where it is."""
    cpu, wall = time.process_time(), time.perf_counter()
    path = write_report(directory, data)
    return time.perf_counter() - wall, time.process_time() - cpu, path


def main() -> int:
    """Print and write a table; 1 if a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    data = large_study()
    with tempfile.TemporaryDirectory() as directory:
        times = [timed(Path(directory), data) for _ in range(arguments.repetitions + 1)]
        megabytes = times[0][2].stat().st_size / 1e6
        together = sum(file.stat().st_size for file in Path(directory).iterdir()) / 1e6
    report = {
        "individuals": GENERATIONS * INDIVIDUALS,
        "blocks": BLOCKS,
        "first_seconds": round(times[0][0], 3),
        "seconds": round(statistics.median(wall for wall, _, _ in times[1:]), 3),
        "cpu_seconds": round(statistics.median(cpu for _, cpu, _ in times[1:]), 3),
        "page_megabytes": round(megabytes, 2),
        "all_files_megabytes": round(together, 2),
    }
    print(json.dumps(report, indent=1))
    save_results(arguments.output, report, ("hf-biotune", "matplotlib", "jinja2"))
    return int(report["first_seconds"] > SECONDS or report["page_megabytes"] > MEGABYTES)


if __name__ == "__main__":
    raise SystemExit(main())
