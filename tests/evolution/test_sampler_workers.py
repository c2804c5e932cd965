"""Several workers on one study: nobody waits, nobody repeats what another does."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import Trial, TrialState
from searches import BLOCKS, experimental, finished, journal, new_study, plans, score_of

from hf_biotune.evolution import plan_of, suggest_genotype


def slow_score(trial: Trial) -> float:
    score = score_of(trial)
    time.sleep(0.002 * (1 + trial.number % 3))
    return score


@pytest.mark.parametrize("surrogate", [False, True], ids=["paper", "default"])
def test_two_threads_complete_a_search(surrogate: bool) -> None:
    study = new_study(surrogate=surrogate)
    study.optimize(slow_score, n_trials=50, n_jobs=2)
    assert len(finished(study)) == 50
    generations = Counter(plan.generation for plan in plans(study))
    scheme = study.sampler.scheme
    for generation in range(max(generations)):
        n_slots = scheme.n_slots(generation)
        assert n_slots <= generations[generation] <= n_slots + 1


def test_workers_that_start_together_get_different_slots(tmp_path: Path) -> None:
    n_workers = 4
    new_study(journal(tmp_path / "search.log"))
    barrier = threading.Barrier(n_workers)

    def work() -> None:
        study = new_study(journal(tmp_path / "search.log"))
        barrier.wait()
        study.optimize(slow_score, n_trials=4)

    threads = [threading.Thread(target=work) for _ in range(n_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = new_study(journal(tmp_path / "search.log"))
    assert len(finished(study)) == 16
    slots = Counter(plan.slot for plan in plans(study) if plan.generation == 0)
    assert set(slots.values()) == {1}


def test_trials_that_are_being_planned_have_the_first_choice() -> None:
    study = new_study()
    storage = study._storage
    ids = [storage.create_new_trial(study._study_id) for _ in range(3)]
    for trial_id in reversed(ids):  # the last made is planned first
        study.sampler.before_trial(study, storage.get_trial(trial_id))
    assert [plan_of(trial).slot for trial in study.trials] == [0, 1, 2]


def test_a_worker_that_finds_no_free_slot_overfills_the_generation() -> None:
    study = new_study()
    running = [study.ask() for _ in range(8)]
    assert [plan_of(trial).slot for trial in running] == list(range(8))
    assert {plan_of(trial).generation for trial in running} == {0}
    for trial in running:
        study.tell(trial, score_of(trial))
    assert plan_of(study.ask()).generation == 1
    assert len(study.sampler.get_parent_population(study, 1)) == 6


def test_an_orphan_is_run_again_though_others_have_filled_its_generation() -> None:
    study = new_study()
    running = [study.ask() for _ in range(7)]  # one more than there are slots
    genotypes = [suggest_genotype(trial, BLOCKS) for trial in running]
    for trial in (*running[:2], *running[3:]):
        study.tell(trial, 0.5)
    assert plan_of(study.ask()).generation == 1
    study.tell(running[2], state=TrialState.FAIL)
    again = study.ask()
    assert (plan_of(again).generation, plan_of(again).slot) == (0, 2)
    assert suggest_genotype(again, BLOCKS) == genotypes[2]
    assert plan_of(study.ask()).generation == 1


def test_genotypes_in_training_are_not_chosen_again() -> None:
    study = new_study(n_candidates=100)
    study.optimize(score_of, n_trials=10)
    running = [study.ask() for _ in range(4)]
    genotypes = {suggest_genotype(trial, BLOCKS) for trial in running}
    assert len(genotypes) == 4


def test_a_trial_has_a_heartbeat_as_soon_as_it_exists(tmp_path: Path) -> None:
    with experimental():
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{tmp_path / 'search.db'}", heartbeat_interval=1, grace_period=1
        )
        study = new_study(storage)
        trial_id = storage.create_new_trial(study._study_id)
        optuna.Trial(study, trial_id)  # what `study.optimize` does before its own first beat
        time.sleep(2.5)  # SQLite's clock counts whole seconds
        optuna.storages.fail_stale_trials(study)
        assert study.trials[0].state == TrialState.FAIL
        study.optimize(score_of, n_trials=8)
    storage.engine.dispose()
    assert [plan.slot for plan in plans(study)[:3]] == [0, 0, 1]
