"""A search that is stopped and continued equals one that never was."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from searches import BLOCKS, course, journal, new_study, run, score_of

from hf_biotune.evolution import plan_of, suggest_genotype
from hf_biotune.genotype import Genotype

PRESETS = pytest.mark.parametrize(
    "arguments",
    [{"surrogate": False}, {"surrogate": True}, {"surrogate": True, "n_folds": 2}],
    ids=["paper", "default", "folds"],
)


@PRESETS
def test_the_same_seed_gives_the_same_search_in_memory_and_on_disk(
    arguments: dict[str, object], tmp_path: Path
) -> None:
    studies = [
        new_study(**arguments),
        new_study(**arguments),
        new_study(journal(tmp_path / "search.log"), **arguments),
    ]
    for study in studies:
        run(study, 32)
    assert course(studies[0]) == course(studies[1]) == course(studies[2])


@PRESETS
def test_another_seed_gives_another_search(arguments: dict[str, object]) -> None:
    first, second = new_study(seed=1, **arguments), new_study(seed=2, **arguments)
    for study in (first, second):
        run(study, 8)
    assert not {genes for *_, genes, _ in course(first)} & {
        genes for *_, genes, _ in course(second)
    }


@PRESETS
@pytest.mark.parametrize("stop", [1, 5, 6, 9, 14, 21])
def test_a_killed_search_continues_as_if_nothing_had_happened(
    arguments: dict[str, object], stop: int, tmp_path: Path
) -> None:
    undisturbed = new_study(**arguments)
    run(undisturbed, 26)

    killed = new_study(journal(tmp_path / "search.log"), **arguments)
    run(killed, stop)
    orphan = killed.ask()  # the process dies while this one is training
    suggest_genotype(orphan, BLOCKS)

    resumed = new_study(journal(tmp_path / "search.log"), **arguments)
    resumed.tell(orphan.number, state=TrialState.FAIL)
    run(resumed, 26 - stop)
    assert course(resumed) == course(undisturbed)
    assert len(resumed.trials) == 27


@PRESETS
def test_a_fresh_process_for_every_trial_makes_no_difference(
    arguments: dict[str, object], tmp_path: Path
) -> None:
    undisturbed = new_study(**arguments)
    run(undisturbed, 24)
    for _ in range(24):
        run(new_study(journal(tmp_path / "search.log"), **arguments), 1)
    assert course(new_study(journal(tmp_path / "search.log"))) == course(undisturbed)


def test_an_enqueued_trial_that_was_killed_is_repeated() -> None:
    def enqueue(study: optuna.Study) -> None:
        for gene in (0.6, 0.7, 0.8):
            study.enqueue_trial({f"importance:{name}": gene for name in BLOCKS})

    undisturbed, killed = new_study(), new_study()
    enqueue(undisturbed)
    run(undisturbed, 20)

    enqueue(killed)
    run(killed, 1)
    orphan = killed.ask()
    killed.tell(orphan, state=TrialState.FAIL)
    run(killed, 19)
    # The next in the queue comes first, so the order differs, but nothing else does.
    assert sorted(course(killed), key=lambda row: row[:2]) == course(undisturbed)


@pytest.mark.parametrize("stop", [0, 1, 2])
def test_first_genotypes_keep_their_places_when_one_is_killed(stop: int) -> None:
    first = [Genotype((gene,) * 4, 0.5) for gene in (0.6, 0.7, 0.8)]
    undisturbed, killed = new_study(first=first), new_study(first=first)
    run(undisturbed, 16)

    run(killed, stop)
    killed.tell(killed.ask(), state=TrialState.FAIL)
    run(killed, 16 - stop)
    assert course(killed) == course(undisturbed)


def test_an_orphan_that_nobody_marks_as_failed_holds_nobody_up() -> None:
    study = new_study()
    for _ in range(3):
        study.ask()
    run(study, 40)
    assert plan_of(study.trials[-1]).generation == 5  # 6 + 4 x 8 complete five generations


def test_a_trial_killed_before_it_was_planned_holds_nobody_up() -> None:
    study = new_study()
    study._storage.create_new_trial(study._study_id)
    run(study, 40)
    assert plan_of(study.trials[-1]).generation == 5  # 6 + 4 x 8 complete five generations


def test_trials_of_another_origin_are_left_out() -> None:
    study = new_study()
    run(study, 3)
    study.add_trial(optuna.create_trial(value=100.0, params={}, distributions={}))
    run(study, 20)
    undisturbed = new_study()
    run(undisturbed, 23)
    assert [plan_of(trial).genes for trial in study.trials if trial.params] == [
        plan_of(trial).genes for trial in undisturbed.trials
    ]


def test_the_plan_does_not_depend_on_when_the_sampler_was_made() -> None:
    study = new_study()
    run(study, 15)
    same_sampler = plan_of(study.ask()).genes
    study.tell(15, state=TrialState.FAIL)
    study.sampler = new_study().sampler
    trial = study.ask()
    assert plan_of(trial).genes == same_sampler
    assert isinstance(score_of(trial), float)
