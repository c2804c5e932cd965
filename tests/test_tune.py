"""`tune`: which models it compares and saves, without the command line around it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from small import digits_split, small_resnet
from transformers import set_seed

from hf_biotune import BioTuneEnsemble, BioTuneModel, SearchConfig
from hf_biotune.exceptions import CheckpointError, ConfigError
from hf_biotune.search import DataSplits, SearchResult, default_training_arguments
from hf_biotune.search.forward import Forward
from hf_biotune.search.metrics import METRICS
from hf_biotune.search.task import predict
from hf_biotune.tune import tune

ACCURACY = METRICS["macro_accuracy"]
SEARCH = SearchConfig(
    budget=None,
    generations=0,
    population_size=5,
    n_elites=1,
    seeds=(1, 2),
    n_finalists=2,
    keep_best=3,
    memory_layout="contiguous",
    precision="fp32",
    surrogate=False,
)


@pytest.fixture(scope="module")
def data():
    parts = (digits_split(per_class=4, first=first) for first in (0, 20, 40))
    return DataSplits(*parts, "digits")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """Tune with some options; the search in it is done once."""
    searched = tmp_path_factory.mktemp("searched") / "out"

    def tuned(**options):
        directory = tmp_path_factory.mktemp("tuned") / "out"
        if searched.exists():
            shutil.copytree(searched, directory)
        args = default_training_arguments(
            str(directory), num_train_epochs=2, per_device_train_batch_size=20, use_cpu=True
        )
        result = tune(small_resnet, data, args, SEARCH, **options)
        if not searched.exists():
            searched.mkdir()
            for name in ("study.journal", "adapters"):
                shutil.move(directory / name, searched / name)
            shutil.copytree(searched, directory, dirs_exist_ok=True)
        return result

    return tuned


def score(model, split):
    return ACCURACY.compute(predict(Forward(model, "cpu"), split.view(), 128), split.labels)


def rows(result):
    return {row["method"]: row for row in result.comparison.to_dict("records")}


def seeded_base(seed):
    set_seed(seed)
    return small_resnet()


@pytest.mark.slow
def test_without_retraining_the_kept_models_are_tested_and_saved(run, data):
    result = run(retrain="none")
    ours = rows(result)["BioTune"]
    models = [result.search.kept_model(seed=seed) for seed in (1, 2)]
    assert ours["test_scores"] == [score(model, data.test) for model in models]
    assert ours["validation_scores"] == [score(model, data.validation) for model in models]
    assert (ours["weights"], ours["seconds"]) == ("kept", 0.0)
    assert {row["weights"] for row in rows(result).values()} == {"kept", "trained"}
    saved = BioTuneModel.from_pretrained(seeded_base(1), result.adapter)
    best = result.search.best_model
    for name, tensor in best.biotune_state_dict().items():
        assert torch.equal(saved.biotune_state_dict()[name], tensor)
    page = result.report.read_text()
    assert "none (kept)" in page
    logits = predict(Forward(saved, "cpu"), data.test.view(), 128)
    wrong = int((logits.argmax(-1) != data.test.labels).sum())
    assert f"gives {wrong} of 40 test samples a wrong class" in page
    assert page.count("data:image/png;base64,") >= min(wrong, 12)
    assert "as the search trained it; the compared methods were trained anew" in page


@pytest.mark.slow
def test_training_on_validation_samples_too_has_a_row_of_its_own(run, data):
    result = run(retrain="train+validation")
    methods = rows(result)
    assert list(methods) == [
        "linear probe", "full fine-tuning", "BioTune", "BioTune on train + validation",
    ]  # fmt: skip
    both = methods["BioTune on train + validation"]
    assert (both["validation_scores"], both["weights"]) == ([], "trained")
    saved = BioTuneModel.from_pretrained(seeded_base(1), result.adapter)
    assert score(saved, data.test) == both["test_scores"][0]
    assert "trained anew on training and validation samples, for" in result.report.read_text()
    sentence = (result.report.parent / "README.md").read_text()
    assert "than BioTune on train" not in sentence


@pytest.mark.slow
def test_an_ensemble_is_saved_with_a_row_of_its_own(run, data):
    result = run(retrain="none", ensemble=3)
    row = rows(result)["BioTune ensemble of 3"]
    loaded = BioTuneEnsemble.from_pretrained(small_resnet(), result.ensemble)
    assert row["test_scores"] == [score(loaded, data.test)]
    assert row["validation_scores"] == [score(loaded, data.validation)]
    assert row["trained_parameters"] == sum(
        result.search.partition[block].n_parameters
        for member in loaded.members
        for block in member.config.lr_multipliers
    )
    stored = json.loads((result.report.parent / "comparison.json").read_text())
    assert [entry["method"] for entry in stored] == list(rows(result))
    assert isinstance(result.comparison, pd.DataFrame)


@pytest.fixture
def no_final_training(monkeypatch):
    def fail(*args):
        raise AssertionError("a method was trained that nobody will see")

    monkeypatch.setattr("hf_biotune.tune.final_runs", fail)


@pytest.mark.slow
def test_only_weights_that_are_there_are_tested(run, monkeypatch):
    def forget(result, trial, everything=SearchResult._kept_runs):
        return everything(result, trial)[:1]

    monkeypatch.setattr(SearchResult, "_kept_runs", forget)
    assert rows(run(retrain="none"))["BioTune"]["seeds"] == [1]


@pytest.mark.slow
def test_what_is_missing_after_the_search_is_missed_before_the_final_trainings(
    run, monkeypatch, no_final_training
):
    def lose(result, seed=None):
        raise CheckpointError(f"seed {seed} is not there")

    monkeypatch.setattr(SearchResult, "kept_model", lose)
    with pytest.raises(CheckpointError, match="seed 2 is not there"):
        run(retrain="none", final_seeds=(2,))

    def too_few(result, k):
        raise ConfigError(f"{k} individuals are asked for")

    monkeypatch.setattr(SearchResult, "ensemble", too_few)
    with pytest.raises(ConfigError, match="3 individuals are asked for"):
        run(ensemble=3)


@pytest.mark.parametrize(
    ("options", "changes", "message"),
    [
        ({"retrain": "both"}, {}, r"one of none, train, train\+validation, got 'both'"),
        ({"ensemble": -1}, {}, "ensemble must be an integer of at least 0, got -1"),
        ({"ensemble": 4}, {}, "ensemble=4 needs as many kept individuals, but keep_best=3"),
        ({"ensemble": 2}, {"keep_best": 0}, "ensemble=2 needs weights .* but keep_best=0"),
        ({"retrain": "none"}, {"keep_best": 0}, "retrain='none' .* but keep_best=0"),
        (
            {"retrain": "none", "final_seeds": (7,)},
            {},
            r"with the seeds 1, 2, but final_seeds=\(7,\); leave one",
        ),
        (
            {"retrain": "none", "final_seeds": (2,)},
            {"n_finalists": 0},
            r"with the seeds 1, but final_seeds=\(2,\)",
        ),
    ],
)
def test_what_can_not_be_done_is_refused_before_the_search(
    data, tmp_path, options, changes, message
):
    def never():
        raise AssertionError("a model was made")

    with pytest.raises(ConfigError, match=message):
        tune(
            never,
            data,
            default_training_arguments(str(tmp_path)),
            replace(SEARCH, **changes),
            **options,
        )


def test_the_report_names_the_finalists_with_intervals_and_the_winners_ancestors(run, data):
    result = run(retrain="none")
    page = result.report.read_text(encoding="utf-8")
    for finalist in result.search.finalists:
        assert f'<th scope="row">{finalist.trial}</th>' in page
    assert "(95\N{NO-BREAK SPACE}%, n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}2)" in page
    assert "Where the winner comes from" in page
    lineage = result.search.lineage()
    assert lineage.trial[0] == result.search.best_trial
    assert lineage.seeds[0] == list(result.search.best_seeds)
    # Five individuals tell nothing about blocks.
    assert not (result.report.parent / "importances.png").exists()
