from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import optuna
import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_biotune.contest import Arena, compare, rank_backbones
from hf_biotune.contest.plan import Plan
from hf_biotune.contest.units import Ledger, Unit
from hf_biotune.contest.worker import ContestListener, Worker
from hf_biotune.exceptions import ConfigError, StudyMismatchError
from hf_biotune.search.storages import open_storage

METHODS = ("linear-probe", "full")


@pytest.fixture(scope="module")
def arena(image_model, digit_images):
    return Arena(str(image_model), str(digit_images), epochs=1, batch_size=12, cpu=True)


class Record(ContestListener):
    """Notes what was done, and fails after so many units."""

    def __init__(self, limit=None):
        self.begun, self.stages, self.limit = [], [], limit

    def on_unit_begin(self, unit, n_done, n_units):
        if len(self.begun) == self.limit:
            raise KeyboardInterrupt
        self.begun.append(unit)

    def on_stage(self, name):
        self.stages.append(name)


@pytest.fixture(scope="module")
def finished(arena, tmp_path_factory):
    """A comparison of two methods on two splits with two seeds, and its directory."""
    directory = tmp_path_factory.mktemp("comparison")
    standings = compare(arena, METHODS, output_dir=directory, seeds=(1, 2), splits=2)
    return standings, directory


def test_every_method_has_a_score_for_each_split_and_seed(finished):
    standings, _ = finished
    assert standings.is_complete
    for record in standings.records:
        keys = list(record.scores("macro_accuracy"))
        assert keys == [(0, 1), (0, 2), (1, 1), (1, 2)]
        assert sorted(record.tunings) == [0, 1]
    probe, full = standings.table.to_dict("records")
    assert (probe["method"], probe["n"]) == ("linear-probe", 4)
    assert probe["trained_parameters"] == 3 * 32 + 3
    assert full["trained_parameters"] == 25_643
    # One epoch of one: three rates, and twice as many where BatchNorm can move or not.
    assert (probe["tuning_trainings"], full["tuning_trainings"]) == (3, 6)
    assert full["final_trainings"] == 1
    assert 0 < full["final_seconds"] < 60
    assert full["checkpoint_bytes"] > 4 * 25_643


def test_outputs_hold_every_run_the_tables_and_the_plots(finished):
    standings, directory = finished
    results = json.loads((directory / "results.json").read_text())
    assert [len(method["runs"]) for method in results["methods"]] == [4, 4]
    assert results["is_complete"]
    for name in ("table.csv", "table.md", "table.tex", "tests.csv", "critical_difference.png"):
        assert (directory / name).stat().st_size > 0
    assert (directory / "cost.svg").read_text().startswith("<?xml")
    (test,) = standings.tests.to_dict("records")
    # Two splits; their seeds are no repetitions of their own.
    assert (test["first"], test["second"], test["n"]) == (*METHODS, 2)


def test_the_same_call_again_trains_nothing(finished, arena):
    standings, directory = finished
    record = Record()
    again = compare(arena, METHODS, output_dir=directory, seeds=(1, 2), splits=2, listener=record)
    assert record.begun == []
    assert again.to_dict() == standings.to_dict()


def test_a_further_seed_trains_that_seed_alone(finished, arena):
    _, directory = finished
    record = Record()
    compare(arena, METHODS[:1], output_dir=directory, seeds=(1, 3), splits=1, listener=record)
    assert record.begun == [Unit(0, "linear-probe", 3)]


def test_an_interrupted_comparison_goes_on_and_ends_alike(finished, arena, tmp_path):
    standings, _ = finished
    plan = {"output_dir": tmp_path, "seeds": (1, 2), "splits": 1}
    with pytest.raises(KeyboardInterrupt):
        compare(arena, METHODS[:1], **plan, listener=Record(limit=2))
    record = Record()
    resumed = compare(arena, METHODS[:1], **plan, listener=record)
    assert record.begun == [Unit(0, "linear-probe", 2)]
    of_whole = standings.records[0].scores("kappa")
    assert resumed.records[0].scores("kappa") == {(0, 1): of_whole[0, 1], (0, 2): of_whole[0, 2]}


def test_tuning_that_was_killed_repeats_no_finished_training(arena, tmp_path):
    class Stop(Record):
        def on_stage(self, name):
            super().on_stage(name)
            if len(self.stages) == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(arena, ["linear-probe"], output_dir=tmp_path, splits=1, listener=Stop())
    record = Record()
    compare(arena, ["linear-probe"], output_dir=tmp_path, splits=1, seeds=[1], listener=record)
    assert [stage for stage in record.stages if "final" not in stage] == [
        "linear probe: rate x 10, statistics epoch"
    ]


def test_a_directory_of_something_else_is_refused(finished, arena):
    from dataclasses import replace

    _, directory = finished
    other = replace(arena, epochs=2)
    with pytest.raises(StudyMismatchError, match=r"differs in epochs \(there 1, here 2\)"):
        compare(other, METHODS, output_dir=directory)


def test_other_weights_under_the_same_name_are_refused(image_model, digit_images, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(image_model, model)
    arena = Arena(str(model), str(digit_images), epochs=1, batch_size=12, cpu=True)
    compare(arena, ["linear-probe"], output_dir=tmp_path / "out", splits=1, seeds=[1])
    (weights,) = model.glob("*.safetensors")
    tensors = load_file(weights)
    save_file({name: t + 1 for name, t in tensors.items()}, weights, {"format": "pt"})
    with pytest.raises(StudyMismatchError, match=r"is of another model .*, though its name"):
        compare(arena, METHODS, output_dir=tmp_path / "out", splits=1, seeds=[1])


def test_a_worker_that_learns_late_that_a_method_does_not_fit_leaves_it(
    arena, tmp_path, monkeypatch
):
    plan = Plan(arena, ("linear-probe",), seeds=(1,), splits=1)
    worker = Worker(plan, tmp_path, ContestListener())
    # As if another process wrote it after this one had looked what is open.
    worker._ledger.write(Unit(0, "linear-probe"), {"why_not": "it is too small"})
    assert not worker._work_on(Unit(0, "linear-probe", 1))
    assert not worker._ledger.is_done(Unit(0, "linear-probe", 1))


def test_bad_plans_are_refused_before_anything_is_loaded():
    arena = Arena("no-model", "no-data")
    with pytest.raises(ConfigError, match=r"methods must be among .*full.*, got 'best'"):
        compare(arena, ["full", "best"])
    with pytest.raises(ConfigError, match="splits must be an integer of at least 1, got 0"):
        compare(arena, ["full"], splits=0)
    with pytest.raises(ConfigError, match=r"seeds must be distinct .* got \(1, 1\)"):
        compare(arena, ["full"], seeds=[1, 1])
    with pytest.raises(ConfigError, match="workers must be an integer of at least 1, got 0"):
        compare(arena, ["full"], workers=0)
    with pytest.raises(ConfigError, match="budget must be"):
        compare(arena, ["full"], budget="much")
    for seed in (-1, "x", 2.5, 2**32):
        with pytest.raises(ConfigError, match="seeds must be integers from 0 to"):
            compare(arena, ["full"], seeds=[seed])
    with pytest.raises(ConfigError, match=r"which settings are chosen with, got 559"):
        compare(arena, ["full"], seeds=[1, 559])
    # Models are not ranked by a loss.
    for metric in ("luck", "loss"):
        message = f"metric must be one of macro_accuracy, accuracy, f1, got '{metric}'"
        with pytest.raises(ConfigError, match=message):
            Plan(arena, METHODS, metric=metric)


def test_texts_go_the_same_way_as_images(text_model, scipy_texts, tmp_path):
    arena = Arena(str(text_model), str(scipy_texts), max_length=16, epochs=1, cpu=True)
    standings = compare(arena, METHODS, output_dir=tmp_path, seeds=[1], splits=2)
    full = standings.table.to_dict("records")[1]
    assert full["n"] == 2
    # No BatchNorm: three rates and nothing else to tune.
    assert full["tuning_trainings"] == 3


def test_a_method_that_does_not_fit_is_said_skipped_and_shown(image_model, digit_images, tmp_path):
    arena = Arena(
        str(image_model), str(digit_images), blocks=["resnet", "classifier"], epochs=1, cpu=True
    )

    class Misfits(Record):
        def on_misfit(self, unit, reason):
            self.stages.append(f"{unit.method}: {reason}")

    record = Misfits()
    standings = compare(
        arena, ["linear-probe", "last-k"], output_dir=tmp_path, seeds=[1], splits=1,
        listener=record,
    )  # fmt: skip
    reason = "between one and all of 2 blocks there is no number"
    assert f"last-k: {reason}" in record.stages
    assert standings.is_complete
    assert f"n/a: {reason}" in (tmp_path / "table.md").read_text()
    assert [record.name for record in standings.fitting] == ["linear-probe"]


def test_an_ensemble_shares_the_search_and_its_cost(arena, tmp_path):
    methods = ["biotune-ensemble", "biotune"]
    record = Record()
    standings = compare(
        arena, methods, output_dir=tmp_path, seeds=(1, 2), splits=1, budget=3, listener=record
    )
    # The search comes first, whatever the order of the methods.
    assert record.begun[0] == Unit(0, "biotune")
    ensemble, alone = standings.table.to_dict("records")
    assert (ensemble["n"], alone["n"]) == (1, 2)
    assert ensemble["tuning_trainings"] == alone["tuning_trainings"] >= 3
    assert ensemble["tuning_seconds"] > alone["tuning_seconds"]
    assert [stage for stage in record.stages if stage == "search: biotune"] == ["search: biotune"]


def test_searches_of_different_splits_and_data_draw_different_genotypes(
    image_model, digit_images, tmp_path
):
    """Else one lucky draw would look like a good method everywhere."""
    drawn = []
    for share in (0.5, 1.0):
        arena = Arena(str(image_model), str(digit_images), train_fraction=share, epochs=1, cpu=True)
        output_dir = tmp_path / str(share)
        compare(arena, ["random-search"], output_dir=output_dir, seeds=[1], splits=2, budget=12)
        for split in range(2):
            directory = output_dir / "searches" / f"split-{split}" / "search-random"
            storage = open_storage(None, directory)
            study = optuna.load_study(study_name="hf_biotune", storage=storage)
            first = next(trial for trial in study.trials if "start" not in trial.user_attrs)
            drawn.append(tuple(first.params.values()))
    assert len(set(drawn)) == 4


@pytest.mark.parametrize(
    ("ensemble", "alone"), [("biotune-ensemble", "biotune"), ("full-ensemble", "full")]
)
def test_a_shared_tuning_is_paid_by_both_whoever_did_it(arena, tmp_path, ensemble, alone):
    plan = {"output_dir": tmp_path, "seeds": [1], "splits": 1, "budget": 3}
    first = compare(arena, [ensemble], **plan).table.to_dict("records")[0]
    record = Record()
    later = compare(arena, [alone], **plan, listener=record).table.to_dict("records")[0]
    # Nothing was searched or trained again, but for the final model.
    assert [stage for stage in record.stages if "final" not in stage] in ([], [f"search: {alone}"])
    assert later["tuning_trainings"] == first["tuning_trainings"]
    assert later["tuning_seconds"] >= first["tuning_seconds"] > 0


def test_backbones_are_ranked_by_logme(image_model, digit_images, tmp_path):
    import shutil

    from transformers import ResNetForImageClassification

    model = ResNetForImageClassification.from_pretrained(image_model)
    with torch.no_grad():
        # One that tells nothing: every feature is 0.
        for parameter in model.resnet.encoder.stages[3].parameters():
            parameter.zero_()
    blind = tmp_path / "blind"
    shutil.copytree(image_model, blind)
    model.save_pretrained(blind)
    ranking = rank_backbones([str(blind), str(image_model)], str(digit_images), cpu=True)
    assert [score.model for score in ranking] == [str(image_model), str(blind)]
    assert ranking[0].n_features == 32
    with pytest.raises(ConfigError, match="models must be distinct and at least one, got"):
        rank_backbones([], str(digit_images))


def test_a_claim_is_free_as_soon_as_its_process_is_dead(tmp_path):
    ledger, unit = Ledger(tmp_path), Unit(0, "full", 1)
    code = (
        "import sys, time\n"
        "from hf_biotune.contest.units import Ledger, Unit\n"
        "with Ledger(sys.argv[1]).claimed(Unit(0, 'full', 1)) as mine:\n"
        "    print(mine, flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "True"
    with ledger.claimed(unit) as is_mine:
        assert not is_mine
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with ledger.claimed(unit) as is_mine:
        assert is_mine


@pytest.mark.slow
def test_two_workers_do_every_unit_once(arena, tmp_path):
    started = time.time()
    n_threads = torch.get_num_threads()
    standings = compare(arena, METHODS, output_dir=tmp_path, seeds=(1, 2), splits=1, workers=2)
    assert standings.is_complete
    assert torch.get_num_threads() == n_threads
    assert time.time() - started < 300
    clocks = sorted(tmp_path.glob("units/split-0/*/seed-*.clock"))
    assert [len(clock.read_text().splitlines()) for clock in clocks] == [1] * 4
