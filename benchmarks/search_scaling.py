"""What do more workers do to a search: are they kept busy, and does it still find as much?

    python benchmarks/search_scaling.py
    python benchmarks/search_scaling.py --parts simulated --repetitions 4 --kinds noisy

Three parts, each with a table:

- `simulated`: the real sampler on a real study, but trainings of 1 to 60 seconds pass in virtual
  time: workers ask and tell in the order of events. An individual that trains early blocks takes
  longer, patience ends some trainings early. Regret is that of the best observed genotype among the
  first trials to finish, as in `search_quality.py`, and is compared with one worker's.
- `threads`: the same with threads that sleep for a tenth of the time, on a journal file, as a check
  of the simulation: here planning, locking and writing take the time that they take.
- `storages`: what the writes and reads of one trial take in studies of 1,000 and 10,000 trials, and
  what opening such a study takes; see `storage_overhead.py`.

Utilisation is the share of the workers' time that goes into trainings while there is a trial left
to start. What each part measured last stays in the results until it is measured again.
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from environment import save_results
from landscapes import KINDS, Landscape, decode, landscape
from numpy.typing import NDArray
from optuna.storages import BaseStorage
from storage_overhead import COUNTS, measure_storages

from hf_biotune.evolution import BioTuneSampler, plan_of, suggest_genotype
from hf_biotune.search.storages import open_storage

WORKERS = (1, 2, 4, 10, 16, 64)
POPULATION = 10
CHECKPOINTS = (50, 100)
THREADS = (1, 4, 10)
THREAD_TRIALS = 60
SPEED_UP = 10.0
SHORTEST, LONGEST = 1.0, 60.0
# Virtual seconds that planning takes: the bound that the sampler must keep up to 200 trials.
PLANNING = 0.05
RESULTS = Path(__file__).parent / "results" / "search_scaling.json"
PACKAGES = ("hf-biotune", "numpy", "optuna", "scipy", "sqlalchemy")
PARTS = ("simulated", "threads", "storages")


@dataclass
class Course:
    """What happened in one search.

    Args:
        n_workers: how many there were.
        regrets: of the best observed genotype after each finished trial, in per cent.
        busy: training seconds of all workers before the last trial was started.
        last_start: when that was.
        end: when the last trial finished.
        total: training seconds of all workers.
        planning: measured seconds of each plan.
    """

    n_workers: int
    regrets: list[float] = field(default_factory=list)
    busy: float = 0.0
    last_start: float = 0.0
    end: float = 0.0
    total: float = 0.0
    planning: list[float] = field(default_factory=list)

    @property
    def utilisation(self) -> float:
        """While there was a trial left to start."""
        return self.busy / (self.n_workers * self.last_start)

    @property
    def utilisation_to_the_end(self) -> float:
        """With the time in which some workers wait for the last trials of others."""
        return self.total / (self.n_workers * self.end)


def duration(genes: NDArray[np.float64], generator: np.random.Generator) -> float:
    """Seconds that training a genotype takes, from 1 to 60.

    The backward pass goes down to the first trained block; patience ends a third of the trainings
    after 0.3 to 1 of their epochs; machines and data loaders differ by a tenth or two.
    """
    (trained,) = decode(np.atleast_2d(genes)).trained
    depth = float(trained[::-1].nonzero()[0].max() + 1) / len(trained) if trained.any() else 0.0
    epochs = generator.uniform(0.3, 1.0) if generator.random() < 1 / 3 else 1.0
    seconds = 45.0 * (0.05 + 0.95 * depth) * epochs * generator.lognormal(0.0, 0.2)
    return float(np.clip(seconds, SHORTEST, LONGEST))


class Search:
    """Trials on a landscape, one at a time or by several threads."""

    def __init__(self, place: Landscape, n_workers: int, storage: BaseStorage) -> None:
        self._place = place
        self._sampler = BioTuneSampler(
            place.block_names, population_size=POPULATION, seed=place.repetition
        )
        self._storage = storage
        self.study = self.open()
        self._durations = np.random.default_rng([11, place.repetition])
        self._noise = np.random.default_rng([7, place.repetition])
        self._best = -np.inf
        self.course = Course(n_workers)

    def open(self) -> optuna.Study:
        """The study, as another worker sees it."""
        return optuna.create_study(
            storage=self._storage,
            study_name="scaling",
            direction="maximize",
            sampler=self._sampler,
            load_if_exists=True,
        )

    def ask(self, study: optuna.Study) -> tuple[optuna.Trial, NDArray[np.float64], float]:
        """A planned trial, its genes and how long it will take."""
        begin = time.thread_time()
        trial = study.ask()
        genes = suggest_genotype(trial, self._place.block_names).to_array()
        self.course.planning.append(time.thread_time() - begin)
        return trial, genes, duration(genes, self._durations)

    def tell(self, study: optuna.Study, trial: optuna.Trial, genes: NDArray[np.float64]) -> None:
        """Score a trial."""
        score = self._place.observe(genes, plan_of(trial).fold, self._noise)
        study.tell(trial, score)
        if score > self._best:
            self._best, regret = score, self._place.regret(genes)
            self.course.regrets.append(regret)
        else:
            self.course.regrets.append(self.course.regrets[-1])


def simulate(place: Landscape, n_workers: int, n_trials: int) -> Course:
    """A search of several workers in virtual time."""
    search = Search(place, n_workers, optuna.storages.InMemoryStorage())
    course = search.course
    free = [(0.0, worker) for worker in range(n_workers)]
    running: list[tuple[float, float, int, optuna.Trial, NDArray[np.float64]]] = []
    spans = []
    for _ in range(n_trials):
        if not free:
            _finish_next(search, running, free)
        now, worker = heapq.heappop(free)
        trial, genes, seconds = search.ask(search.study)
        start = now + PLANNING
        spans.append((start, start + seconds))
        heapq.heappush(running, (start + seconds, start, worker, trial, genes))
    while running:
        _finish_next(search, running, free)
    _account(course, spans)
    return course


def _finish_next(search: Search, running: list[Any], free: list[tuple[float, int]]) -> None:
    end, _, worker, trial, genes = heapq.heappop(running)
    search.tell(search.study, trial, genes)
    heapq.heappush(free, (end, worker))


def _account(course: Course, spans: Sequence[tuple[float, float]]) -> None:
    course.last_start = max(start for start, _ in spans)
    course.end = max(end for _, end in spans)
    course.total = sum(end - start for start, end in spans)
    until = course.last_start
    course.busy = sum(max(0.0, min(end, until) - min(start, until)) for start, end in spans)


def run_threads(place: Landscape, n_workers: int, n_trials: int) -> Course:
    """A search of several threads that sleep, on a journal file."""
    with tempfile.TemporaryDirectory() as directory:
        storage = open_storage(None, directory)
        search = Search(place, n_workers, storage)
        spans: list[tuple[float, float]] = []
        left = iter(range(n_trials))
        lock = threading.Lock()
        begin = time.perf_counter()

        def work() -> None:
            study = search.open()
            while True:
                with lock:
                    if next(left, None) is None:
                        return
                trial, genes, seconds = search.ask(study)
                start = time.perf_counter() - begin
                time.sleep(seconds / SPEED_UP)
                end = time.perf_counter() - begin
                with lock:
                    spans.append((start, end))
                    search.tell(study, trial, genes)

        threads = [threading.Thread(target=work) for _ in range(n_workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        _account(search.course, spans)
        return search.course


def measure_simulated(
    kinds: Sequence[str], workers: Sequence[int], repetitions: int
) -> Iterator[dict[str, Any]]:
    """Utilisation and regret by number of workers; what there is after each number."""
    results: dict[str, Any] = {}
    regrets: dict[int, NDArray[np.float64]] = {}
    for n_workers in workers:
        courses = [
            simulate(_place(kind, number), n_workers, max(CHECKPOINTS))
            for kind in kinds
            for number in range(repetitions)
        ]
        regrets[n_workers] = np.array([[c.regrets[n - 1] for n in CHECKPOINTS] for c in courses])
        row = {
            **_mean_of(courses),
            "hours": round(float(np.mean([c.end for c in courses])) / 3600, 3),
            "regret": regrets[n_workers].mean(axis=0).round(2).tolist(),
            **_compared(regrets[n_workers], regrets[workers[0]], kinds, repetitions),
        }
        results[str(n_workers)] = row
        print_simulated(n_workers, row)
        yield {
            "checkpoints": list(CHECKPOINTS),
            "kinds": list(kinds),
            "repetitions": repetitions,
            "population_size": POPULATION,
            "workers": results,
        }


@cache
def _place(kind: str, number: int) -> Landscape:
    """A landscape, whose optimum takes as long to find as a search."""
    return landscape(kind, number)


def _mean_of(courses: Sequence[Course]) -> dict[str, float]:
    return {
        "utilisation": round(float(np.mean([c.utilisation for c in courses])), 4),
        "utilisation_to_the_end": round(
            float(np.mean([c.utilisation_to_the_end for c in courses])), 4
        ),
        "planning_seconds": round(float(np.mean([np.mean(c.planning) for c in courses])), 5),
    }


def _compared(
    regrets: NDArray[np.float64],
    single: NDArray[np.float64],
    kinds: Sequence[str],
    repetitions: int,
) -> dict[str, Any]:
    """Regret relative to one worker's, its 95 % interval by bootstrap, and by kind."""
    generator = np.random.default_rng(0)
    draws = generator.integers(len(regrets), size=(2000, len(regrets)))
    ratios = regrets[draws].mean(axis=1) / single[draws].mean(axis=1)
    low, high = np.quantile(ratios, (0.025, 0.975), axis=0)
    by_kind = {
        kind: regrets[index * repetitions : (index + 1) * repetitions].mean(0).round(2).tolist()
        for index, kind in enumerate(kinds)
    }
    return {
        "relative_regret": (regrets.mean(axis=0) / single.mean(axis=0)).round(3).tolist(),
        "interval": np.stack([low, high], axis=1).round(3).tolist(),
        "regret_by_kind": by_kind,
    }


def print_simulated(n_workers: int, row: dict[str, Any]) -> None:
    """A line of the first table."""
    cells = "  ".join(
        f"{regret:5.1f} {ratio:5.2f} [{low:.2f}, {high:.2f}]"
        for regret, ratio, (low, high) in zip(
            row["regret"], row["relative_regret"], row["interval"], strict=True
        )
    )
    print(
        f"{n_workers:7d} {row['utilisation']:6.3f} {row['utilisation_to_the_end']:6.3f} "
        f"{row['hours']:6.2f} h {1e3 * row['planning_seconds']:5.0f} ms   {cells}",
        flush=True,
    )


def measure_threads(workers: Sequence[int]) -> dict[str, Any]:
    """Utilisation of threads that sleep, beside that of the simulation."""
    results = {}
    for n_workers in workers:
        place = _place("noisy", 0)
        real = run_threads(place, n_workers, THREAD_TRIALS)
        row = {
            **_mean_of([real]),
            "simulated": round(simulate(place, n_workers, THREAD_TRIALS).utilisation, 4),
        }
        results[str(n_workers)] = row
        print(
            f"{n_workers:7d} {row['utilisation']:6.3f} (simulated {row['simulated']:.3f}), "
            f"planning {1e3 * row['planning_seconds']:.0f} ms",
            flush=True,
        )
    return {"trials": THREAD_TRIALS, "speed_up": SPEED_UP, "workers": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--workers", nargs="+", type=int, default=list(WORKERS))
    parser.add_argument("--repetitions", type=int, default=12)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    path: Path = arguments.output
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    if "simulated" in arguments.parts:
        print("workers   busy to end       in  planning   regret, relative to one worker, after")
        print(f"{'':42}{CHECKPOINTS} trials")
        for measured in measure_simulated(
            arguments.kinds, arguments.workers, arguments.repetitions
        ):
            results["simulated"] = measured
            write(path, results)
    if "threads" in arguments.parts:
        print("threads   busy")
        results["threads"] = measure_threads(THREADS)
    if "storages" in arguments.parts:
        results["storages"] = measure_storages(COUNTS)
    write(path, results)


def write(path: Path, results: dict[str, Any]) -> None:
    """Keep what has been measured."""
    save_results(path, {"results": results}, PACKAGES)


if __name__ == "__main__":
    main()
