"""`kill -9` at any moment costs the trainings in flight, and nothing else."""

from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from tiny_searches import SEARCH, course, kill, results, search, start, study_of, wait_for

from hf_biotune.evolution import plan_of
from hf_biotune.evolution.plan import stored_plan
from hf_biotune.search.history import FAILURE_KEY, finished_trials, spent_trainings
from hf_biotune.search.processes import SUFFIX, Processes

ENDLESS = replace(SEARCH, budget=100_000)


def orphans(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.trials if trial.state == TrialState.FAIL]


def assert_every_orphan_was_run_again(study: optuna.Study) -> None:
    taken = Counter(
        (plan.generation, plan.slot, plan.genes)
        for trial in finished_trials(study)
        if (plan := plan_of(trial))
    )
    for trial in orphans(study):
        plan = stored_plan(trial)
        # One that was killed before it was planned has nothing to repeat.
        assert plan is None or taken[plan.generation, plan.slot, plan.genes] == 1


def has_tried(directory: Path, n_trials: int) -> bool:
    try:
        return len(study_of(directory).trials) >= n_trials
    except KeyError:
        return False


def has_tried_or_ended(directory: Path, n_trials: int, worker: BaseProcess) -> bool:
    return has_tried(directory, n_trials) or worker.exitcode is not None


@pytest.mark.slow
def test_two_workers_are_killed_at_thirty_random_moments(tmp_path: Path) -> None:
    chance = random.Random(0)
    workers = [start(tmp_path, ENDLESS), start(tmp_path, ENDLESS)]
    wait_for(lambda: has_tried(tmp_path, 2))
    known: dict[int, tuple] = {}
    for _ in range(30):
        time.sleep(chance.uniform(0.0, 0.6))
        # One of them, or both.
        for number in chance.choice([[0], [1], [0, 1]]):
            kill(workers[number])
            workers[number] = start(tmp_path, ENDLESS)
        found = results(study_of(tmp_path))
        assert known.items() <= found.items()  # nothing was lost, nothing has changed
        known = found
    for worker in workers:
        kill(worker)
    study = study_of(tmp_path)
    before = results(study)
    budget = len(before) + 12
    last = [start(tmp_path, replace(SEARCH, budget=budget)) for _ in range(2)]
    for worker in last:
        worker.join(120)
        assert worker.exitcode == 0
    study = study_of(tmp_path)
    after = results(study)
    assert before.items() <= after.items()
    assert not [trial for trial in study.trials if trial.state == TrialState.RUNNING]
    assert_every_orphan_was_run_again(study)
    assert orphans(study)
    assert all("ended while training it" in t.user_attrs[FAILURE_KEY] for t in orphans(study))
    # Two trainings are reserved for the finalists; each worker may overshoot by one.
    assert budget - 2 <= spent_trainings(finished_trials(study)) <= budget - 2 + 2
    # Within a generation each slot was trained once; at its end two workers may meet.
    slots = Counter((plan.generation, plan.slot) for plan, _ in after.values())
    assert sum(count - 1 for count in slots.values()) <= 2


@pytest.mark.slow
def test_one_worker_that_is_killed_again_and_again_ends_as_if_it_never_was(tmp_path: Path) -> None:
    chance = random.Random(1)
    config = replace(
        SEARCH,
        budget=14,
        surrogate=True,
        seeded_start=True,
        memoise=True,
        racing=True,
        prefix_cache=True,
    )
    undisturbed = search(tmp_path / "undisturbed", config)
    killed = tmp_path / "killed"
    n_kills = 0
    for _ in range(8):
        n_trials = len(study_of(killed).trials) if has_tried(killed, 1) else 0
        worker = start(killed, config)
        wait_for(partial(has_tried_or_ended, killed, n_trials + 1, worker))
        time.sleep(chance.uniform(0.0, 0.04))
        if worker.is_alive():
            kill(worker)
            n_kills += 1
    resumed = search(killed, config)
    assert n_kills >= 4
    assert orphans(resumed.study)
    assert course(resumed.study) == course(undisturbed.study)
    assert [f.scores for f in resumed.finalists] == [f.scores for f in undisturbed.finalists]
    assert resumed.best_config.lr_multipliers == undisturbed.best_config.lr_multipliers
    assert resumed.trainings == undisturbed.trainings


@pytest.mark.slow
def test_two_workers_share_an_sqlite_file_and_survive_a_kill(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'search.db'}"
    workers = [start(tmp_path, SEARCH, storage=storage) for _ in range(2)]
    wait_for(lambda: (tmp_path / "search.db").exists())
    time.sleep(1.0)
    kill(workers[0])
    workers[0] = start(tmp_path, SEARCH, storage=storage)
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    study = study_of(tmp_path, storage)
    assert_every_orphan_was_run_again(study)
    assert 10 <= spent_trainings(finished_trials(study)) <= 12


def test_a_second_process_joins_a_search_and_leaves_what_the_first_trains_alone(
    tmp_path: Path,
) -> None:
    first = start(tmp_path, ENDLESS)
    wait_for(lambda: has_tried(tmp_path, 3))
    search(tmp_path, replace(SEARCH, budget=8, n_finalists=0))
    assert first.is_alive()
    assert not orphans(study_of(tmp_path))
    kill(first)
    again = search(tmp_path, replace(SEARCH, budget=1, n_finalists=0))
    assert not [trial for trial in again.study.trials if trial.state == TrialState.RUNNING]
    owners = {trial.user_attrs["process"] for trial in again.study.trials}
    assert len(owners) == 2
    # One that was killed between two trainings left no orphan, so nobody had to look for it yet.
    third = Processes(again.study)
    assert third.others() == []
    third.close()
    log = optuna.load_study(study_name="hf_biotune" + SUFFIX, storage=again.study._storage)
    assert not [entry for entry in log.trials if entry.state == TrialState.RUNNING]
