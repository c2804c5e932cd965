"""`compare`: methods on the same data, budget and seeds, resumable, by any number of workers."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

from ..exceptions import BioTuneError
from ..search.workers import check_workers, interrupts_ignored, set_verbosity, verbosity_here
from .arena import Arena
from .outputs import write_outputs
from .plan import DEFAULT_METHODS, DEFAULT_SEEDS, Plan, checked_methods
from .standings import Standings, standings_of
from .units import Ledger
from .worker import ContestListener, Worker, shared_threads


def compare(
    arena: Arena,
    methods: Sequence[str] = DEFAULT_METHODS,
    *,
    output_dir: str | Path = "comparison",
    seeds: Sequence[int] = DEFAULT_SEEDS,
    splits: int = 3,
    budget: str | int | float = 20,
    metric: str = "macro_accuracy",
    workers: int = 1,
    listener: ContestListener | None = None,
) -> Standings:
    """Compare methods of fine-tuning on one model and one data set.

    Every finished training is kept in `output_dir` at once. The same call goes on where a killed
    one was, and the same call in another process shares the work. More methods, seeds and splits
    may be added later; the rest must stay as it is.

    Args:
        arena: model, data and training.
        methods: names of [`METHODS`]; `"all"` stands for all of them. Default: those of the paper,
            random search and BioTune.
        output_dir: of everything that is kept, and of the tables and plots; see [`write_outputs`].
        seeds: of the final trainings, on each split. Default: 1, 2, 3, which no tuning sees.
        splits: how many; see [`redraw`]. Default: 3.
        budget: of each method that searches; see [`Budget.parse`]. Default: 20 trainings. The
            others try three rates, each with BatchNorm statistics of the epoch and frozen.
        metric: that settings are chosen by and methods are ranked by. Default: macro accuracy.
        workers: processes that share the work. With more than 1, the call must be guarded by
            `if __name__ == "__main__":` in a script.
        listener: is told what happens in this process.

    Returns:
        Scores, intervals, costs, tests and ranks.

    Raises:
        ConfigError: a method is unknown, or a number is out of its range.
        DataError: the data can't be read, or is too small to be split.
        StudyMismatchError: `output_dir` holds a comparison of something else.

    Example:
        ```python
        from hf_biotune import Arena, compare
        standings = compare(Arena("microsoft/resnet-50", "beans"), ["full", "lora", "biotune"])
        print(standings.table)
        ```
    """
    check_workers(workers)
    plan = Plan(arena, checked_methods(methods), tuple(seeds), splits, str(budget), metric)
    directory = Path(output_dir)
    helpers = [
        multiprocessing.get_context("spawn").Process(
            target=_help, args=(plan, directory, workers, verbosity_here()), daemon=True
        )
        for _ in range(workers - 1)
    ]
    try:
        # Ctrl-C is for this process, which ends the others.
        with interrupts_ignored():
            for helper in helpers:
                helper.start()
        with shared_threads(workers):
            Worker(plan, directory, listener or ContestListener()).run()
        for helper in helpers:
            helper.join()
    finally:
        for helper in helpers:
            if helper.is_alive():
                helper.terminate()
    failed = [helper.exitcode for helper in helpers if helper.exitcode]
    if failed:
        raise BioTuneError(
            f"{len(failed)} of {workers} workers ended with status {failed[0]}; their messages "
            f"are above. What they finished is kept: the same call goes on"
        )
    standings = standings_of(plan, Ledger(directory))
    write_outputs(standings, directory)
    return standings


def _help(plan: Plan, directory: Path, n_workers: int, verbosity: tuple[int, int]) -> None:
    """What a further process does."""
    set_verbosity(verbosity)
    with shared_threads(n_workers):
        Worker(plan, directory, ContestListener()).run()
