from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from small import small_resnet
from transformers import set_seed

from hf_biotune import BioTuneModel, SearchConfig, biotune_search
from hf_biotune.exceptions import CheckpointError, ConfigError
from hf_biotune.search import SearchListener, adapter_store, default_training_arguments
from hf_biotune.search.contenders import contenders
from hf_biotune.search.forward import Forward
from hf_biotune.search.history import fitness_of, was_trained
from hf_biotune.search.metrics import METRICS
from hf_biotune.search.task import predict

ACCURACY = METRICS["macro_accuracy"]
SEARCH = SearchConfig(
    budget=None,
    generations=1,
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
def search(digits_train, digits_validation):
    def run(directory=None, listener=None, **changes):
        epochs = changes.pop("epochs", 3)
        return biotune_search(
            small_resnet,
            digits_train,
            digits_validation,
            default_training_arguments(
                None if directory is None else str(directory),
                num_train_epochs=epochs,
                per_device_train_batch_size=20,
                use_cpu=True,
            ),
            replace(SEARCH, **changes),
            storage=None if directory else optuna.storages.InMemoryStorage(),
            listener=listener,
        )

    return run


@pytest.fixture(scope="module")
def finished(search, tmp_path_factory) -> Path:
    """The directory of a finished search."""
    directory = tmp_path_factory.mktemp("finished")
    search(directory)
    return directory


@pytest.fixture
def directory(finished, tmp_path) -> Path:
    """A copy of it: searching on there trains nothing."""
    return shutil.copytree(finished, tmp_path / "out")


def adapters(directory: Path) -> set[str]:
    return {path.name for path in (directory / "adapters").iterdir()}


def score(model, data):
    return ACCURACY.compute(predict(Forward(model, "cpu"), data.view(), 128), data.labels)


def tensors(model):
    return {name: tensor.clone() for name, tensor in model.get_base_model().state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stored", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_winner_needs_no_second_training(search, directory, digits_validation, stored):
    result = search(directory if stored else None)
    (winner,) = (f for f in result.finalists if f.trial == result.best_trial)
    best = max(run.score for run in winner.fitness.runs)
    assert score(result.best_model, digits_validation) == best
    for run in winner.fitness.runs:
        assert score(result.kept_model(seed=run.seed), digits_validation) == run.score
    assert not any(parameter.requires_grad for parameter in result.best_model.parameters())
    assert not result.best_model.training


def test_the_best_individuals_are_kept_and_the_finalists_with_every_seed(search, directory):
    result = search(directory)
    best = contenders(result.study, ACCURACY, 3)
    assert best[0].number == result.finalists[0].trial
    runs = {trial.number: fitness_of(trial).runs for trial in best}
    runs |= {finalist.trial: finalist.fitness.runs for finalist in result.finalists}
    assert adapters(directory) == {
        f"trial-{number}-seed-{run.seed}" for number in runs for run in runs[number]
    }


def test_what_is_kept_is_a_usual_adapter(search, directory, digits_validation):
    result = search(directory)
    for trial in contenders(result.study, ACCURACY, 3):
        set_seed(1)
        adapter = directory / "adapters" / f"trial-{trial.number}-seed-1"
        loaded = BioTuneModel.from_pretrained(small_resnet(), adapter)
        assert score(loaded, digits_validation) == fitness_of(trial).runs[0].score
        assert (adapter / "README.md").exists()


@pytest.mark.slow
def test_the_best_epoch_is_kept_and_not_the_last(search, tmp_path, digits_validation):
    result = search(tmp_path, generations=0, epochs=8, patience=1)
    best = contenders(result.study, ACCURACY, 3)
    curves = [[epoch.score for epoch in fitness_of(trial).runs[0].curve] for trial in best]
    assert any(curve[-1] < max(curve) for curve in curves)
    for trial in best:
        model = result.kept_model(trial.number, seed=1)
        assert score(model, digits_validation) == fitness_of(trial).runs[0].score


@pytest.mark.slow
def test_no_more_is_ever_kept_than_asked_for(search, tmp_path):
    class Count(SearchListener):
        def __init__(self):
            self.kept = []

        def on_trial_begin(self, number, generation, role):
            if number:
                self.kept.append(len({name.split("-")[1] for name in adapters(tmp_path)}))

    count = Count()
    result = search(tmp_path, count, generations=2, keep_best=2)
    # Two for their score, and the best of the seeded start as a finalist; leaders with every seed.
    assert max(count.kept) <= 2 * 2 + 1
    kept = {int(name.split("-")[1]) for name in adapters(tmp_path)}
    best = {trial.number for trial in contenders(result.study, ACCURACY, 2)}
    assert kept == best | {finalist.trial for finalist in result.finalists}
    assert len(result.history) > 10


@pytest.mark.slow
def test_finalists_are_kept_when_fewer_are_asked_for(search, tmp_path, digits_validation):
    result = search(tmp_path, generations=0, keep_best=1, n_finalists=3)
    for finalist in result.finalists:
        for run in finalist.fitness.runs:
            model = result.kept_model(finalist.trial, run.seed)
            assert score(model, digits_validation) == run.score


@pytest.mark.slow
def test_with_folds_the_best_of_each_are_kept(search, tmp_path):
    changes = {"fold_fraction": 0.5, "n_finalists": 0, "halving": False}
    result = search(tmp_path, keep_best=1, **changes)
    # Each with as many seeds as it raced with.
    assert len({name.partition("-seed-")[0] for name in adapters(tmp_path)}) == 2
    assert result.best_model.active_peft_config.lr_multipliers == result.best_config.lr_multipliers


@pytest.mark.slow
def test_an_individual_with_several_seeds_keeps_all_of_them(search, digits_validation):
    result = search(generations=0, seeds_per_individual=2, n_finalists=0, keep_best=1)
    for run in fitness_of(result.study.trials[result.best_trial]).runs:
        assert score(result.kept_model(seed=run.seed), digits_validation) == run.score


@pytest.mark.slow
@pytest.mark.parametrize("trial", [2, 6])
def test_a_resumed_search_keeps_what_an_uninterrupted_one_keeps(search, finished, tmp_path, trial):
    class Stop(SearchListener):
        def on_trial_begin(self, number, generation, role):
            self.now = number

        def on_epoch_end(self, seed, curve, epochs):
            if self.now == trial and len(curve) == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, Stop())
    resumed, uninterrupted = search(tmp_path), search(finished)
    assert same(tensors(resumed.best_model), tensors(uninterrupted.best_model))
    first, second = (contenders(r.study, ACCURACY, 3) for r in (resumed, uninterrupted))
    for ours, theirs in zip(first, second, strict=True):
        a, b = resumed.kept_model(ours.number), uninterrupted.kept_model(theirs.number)
        assert same(tensors(a), tensors(b))


def test_a_finished_search_finds_its_adapters_again(search, directory):
    assert same(tensors(search(directory).best_model), tensors(search(directory).best_model))


def test_a_process_that_dies_while_it_writes_leaves_no_adapter(search, tmp_path, monkeypatch):
    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(adapter_store, "asdict", die)  # after the weights, before the rest
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path)
    assert adapters(tmp_path) == set()


def test_what_a_killed_process_left_unfinished_is_cleared_in_time(tmp_path, monkeypatch):
    store = adapter_store.AdapterDirectory(tmp_path)
    (tmp_path / ".unfinished-abc" / "trial-1-seed-1").mkdir(parents=True)
    (tmp_path / "trial-2-seed-1").mkdir()
    store.remove(2)
    assert [path.name for path in tmp_path.iterdir()] == [".unfinished-abc"]
    monkeypatch.setattr(adapter_store, "_STALE_SECONDS", -1)
    store.remove(3)
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_keep_the_same_training(search, directory):
    result = search(directory)
    store = adapter_store.AdapterDirectory(directory / "adapters")
    before = tensors(result.best_model)
    trained = json.loads(next((directory / "adapters").glob("trial-*/run.json")).read_text())
    run = adapter_store.TrainedRun(**trained)
    for _ in range(2):
        store.save(run, result.best_model, result.best_model.biotune_state_dict())
    assert same(before, tensors(store.load(run, small_resnet())))
    assert not list((directory / "adapters").glob(".unfinished*"))


@pytest.mark.parametrize("how", ["deleted", "of another study", "half"])
def test_weights_that_are_not_those_of_the_study_are_refused(search, directory, how):
    result = search(directory)
    for kept in (directory / "adapters").iterdir():
        if how == "deleted":
            shutil.rmtree(kept)
        elif how == "half":
            (kept / "run.json").write_text('{"study": ')
        else:
            facts = json.loads((kept / "run.json").read_text())
            (kept / "run.json").write_text(json.dumps({**facts, "study": "0" * 64}))
    with pytest.raises(CheckpointError, match=r"weights of individual \d+ with seed \d are not in"):
        _ = result.best_model


@pytest.mark.slow
def test_keeping_can_be_switched_off(search, tmp_path):
    result = search(tmp_path, generations=0, keep_best=0)
    assert not (tmp_path / "adapters").exists()
    with pytest.raises(ConfigError, match="keep_best is 0, so the search kept no weights"):
        _ = result.best_model


@pytest.mark.slow
def test_what_is_kept_can_change_when_a_search_goes_on(search, directory):
    more = search(directory, keep_best=1, n_finalists=1, generations=2)
    assert len({name.split("-")[1] for name in adapters(directory)}) == 1
    assert more.best_model is more.best_model


def test_only_what_was_trained_can_be_asked_for(search, directory):
    result = search(directory)
    for number in (999, -1):
        with pytest.raises(ConfigError, match=f"trained to its end, got {number}; history lists"):
            result.kept_model(number)
    with pytest.raises(ConfigError, match=r"was trained with, 1, 2, got 7"):
        result.kept_model(seed=7)


@pytest.mark.parametrize("stored", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_best_individuals_are_one_model(search, directory, digits_validation, stored):
    result = search(directory if stored else None)
    together = result.ensemble(3)
    numbers = [int(member.name.split("-")[1]) for member in together.members]
    assert numbers[0] == result.best_trial
    # The other finalist is there for safety: the best of the seeded start.
    assert sorted(numbers) == sorted(t.number for t in contenders(result.study, ACCURACY, 3))
    probabilities = 0
    for number in numbers:
        alone = Forward(result.kept_model(number), "cpu")
        probabilities += predict(alone, digits_validation.view(), 64).softmax(-1) / 3
    logits = together.predict(digits_validation, 64)
    torch.testing.assert_close(logits.exp(), probabilities)


def test_members_have_distinct_blocks_and_rates_and_their_best_seed(search, directory):
    result = search(directory)
    together = result.ensemble(3)
    multipliers = [member.config.lr_multipliers for member in together.members]
    assert all(multipliers.count(each) == 1 for each in multipliers)
    runs = {
        trial.number: fitness_of(trial).runs for trial in result.study.trials if was_trained(trial)
    }
    runs |= {finalist.trial: finalist.fitness.runs for finalist in result.finalists}
    for member in together.members:
        trial = int(member.name.split("-")[1])
        if trial in runs:
            assert member.validation_score == max(run.score for run in runs[trial])


def test_every_kept_training_of_the_best_may_be_a_member(search, directory):
    result = search(directory)
    best_seeds = [member.name for member in result.ensemble(2).members]
    every_seed = [member.name for member in result.ensemble(2, every_seed=True).members]
    assert set(best_seeds) < set(every_seed)
    winner = f"trial-{result.best_trial}"
    assert [name for name in every_seed if name.startswith(f"{winner}-")] == [
        f"{winner}-seed-{seed}" for seed in result.best_seeds
    ]
    assert {name.split("-")[1] for name in best_seeds} == {n.split("-")[1] for n in every_seed}


def test_no_more_members_than_were_kept(search, directory):
    result = search(directory)
    with pytest.raises(ConfigError, match=r"4 individuals are asked for, but \d+ .* the best 3"):
        result.ensemble(4)
    for k in (0, True, 2.0):
        with pytest.raises(ConfigError, match=f"k must be an integer of at least 1, got {k}"):
            result.ensemble(k)


def test_an_attempt_that_ran_out_of_memory_leaves_no_weights(search, directory):
    result = search(directory)
    model = result.best_model
    keeper = result.kept.keeper(999, fold=0)
    keeper.on_best_epoch(model, 1.0)  # then memory runs out, and the second attempt is worse
    keeper.on_best_epoch(model, 0.0)
    before = adapters(directory)
    keeper.on_run_end(model, result.best_run())
    assert adapters(directory) == before
