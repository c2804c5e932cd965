from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import optuna
import pytest
from safetensors import safe_open
from small import small_resnet

from hf_biotune import SearchConfig, biotune_search, get_biotune_model
from hf_biotune.evolution import curve_of, on_front
from hf_biotune.exceptions import ConfigError
from hf_biotune.search import SearchListener, default_training_arguments
from hf_biotune.search.history import fitness_of, was_trained

SEARCH = SearchConfig(
    objectives=("accuracy", "trainable_parameters"),
    budget=None,
    generations=2,
    population_size=5,
    n_elites=1,
    seeds=(1, 2),
    n_finalists=2,
    memory_layout="contiguous",
    precision="fp32",
)


def run(train, validation, config, storage=None, **options):
    return biotune_search(
        small_resnet,
        train,
        validation,
        default_training_arguments(
            num_train_epochs=3, per_device_train_batch_size=20, use_cpu=True
        ),
        config,
        storage=storage or optuna.storages.InMemoryStorage(),
        **options,
    )


@pytest.fixture(scope="module")
def result(digits_train, digits_validation):
    return run(digits_train, digits_validation, SEARCH)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objectives": "accuracy"}, "objectives must be a list of names, got the string"),
        (
            {"objectives": ("acuracy", "seconds")},
            "the first of objectives must be the metric, one of macro_accuracy, accuracy, f1, "
            "loss, got 'acuracy'",
        ),
        ({"objectives": ("seconds", "accuracy")}, "first of objectives must be .* got 'seconds'"),
        (
            {"objectives": ("accuracy", "flops")},
            "must be among trainable_parameters, seconds, checkpoint_size, got 'flops'",
        ),
        ({"objectives": ("loss", "seconds", "seconds")}, "got 'seconds' twice"),
        ({"objectives": ("loss",)}, "'loss' alone; for one objective give metric='loss'"),
        (
            {"objectives": ("loss", "seconds"), "metric": "f1"},
            "objectives begins with 'loss', but metric is 'f1'; give one of the two",
        ),
        (
            {"objectives": ("loss", "seconds"), "sampler": "cmaes"},
            "sampler 'cmaes' searches for one objective, but objectives has 2: loss, seconds; "
            "those that can are biotune, random, tpe, gp, nsgaii",
        ),
        (
            {"objectives": ("loss", "seconds"), "sampler": optuna.samplers.CmaEsSampler()},
            "sampler 'CmaEsSampler' searches for one objective",
        ),
    ],
)
def test_objectives_that_can_not_be_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        SearchConfig(**values)


def test_the_first_objective_is_the_metric():
    assert SearchConfig(objectives=("loss", "seconds")).metric == "loss"
    assert SearchConfig().objectives == ()


def test_the_study_holds_score_and_parameters_and_prunes_by_our_own_rule(result):
    directions = [direction.name for direction in result.study.directions]
    assert directions == ["MAXIMIZE", "MINIMIZE"]
    for trial in result.study.trials:
        fitness = fitness_of(trial)
        if trial.state == optuna.trial.TrialState.COMPLETE:
            assert trial.values == [fitness.score, fitness.trained_parameters]
        else:
            assert trial.values is None
            assert list(curve_of(trial)) == [1]
    assert "pruned" in set(result.history.state)


def test_who_is_halved_had_better_peers_that_cost_no_more(result):
    trials = result.study.trials
    halved = [t for t in trials if t.state == optuna.trial.TrialState.PRUNED]
    for trial in halved:
        size, score = fitness_of(trial).trained_parameters, curve_of(trial)[1]
        peers = [
            curve_of(peer)[1]
            for peer in trials[: trial.number]
            if "reused_from" not in peer.user_attrs and fitness_of(peer).trained_parameters <= size
        ]
        assert len(peers) >= 3
        assert sum(peer > score for peer in peers) >= (len(peers) + 1) / 3


def test_the_front_is_that_of_all_who_were_trained_to_their_end(result):
    front = result.pareto_front
    assert list(front.trainable_parameters) == sorted(front.trainable_parameters)
    assert list(front.score) == sorted(front.score)
    assert front.knee.sum() == 1
    confirmed = {finalist.trial: finalist.fitness.score for finalist in result.finalists}
    for trial in filter(was_trained, result.study.trials):
        score = confirmed.get(trial.number, fitness_of(trial).score)
        size = fitness_of(trial).trained_parameters
        assert ((front.score >= score) & (front.trainable_parameters <= size)).any()
    for row in front.itertuples():
        assert row.trainable_parameters == sum(result.partition[b].n_parameters for b in row.blocks)
        assert row.trained_share == row.trainable_parameters / result.partition.n_parameters
        assert row.seeds == (2 if row.trial in confirmed else 1)


def test_the_knee_and_the_best_under_a_limit_come_with_their_configuration(result):
    front = result.pareto_front
    assert result.knee.trial == front.trial[front.knee].item()
    largest = int(front.trainable_parameters.max())
    assert result.best_under(trainable_parameters=largest).score == front.score.max()
    small = result.best_under(trainable_parameters=0.5)
    assert small.trainable_parameters <= 0.5 * result.partition.n_parameters
    trained = sum(result.partition[name].n_parameters for name in small.config.lr_multipliers)
    assert trained == small.trainable_parameters
    assert small.genotype.decode(result.partition) == small.config.lr_multipliers


def test_the_weights_of_whoever_was_on_the_front_are_kept(result):
    trained = [trial for trial in result.study.trials if was_trained(trial)]
    points = np.array([[-trial.values[0], trial.values[1]] for trial in trained])
    for trial, is_on in zip(trained, on_front(points), strict=True):
        if is_on:
            assert result.kept.holds(trial, result._run(trial, None))
    smallest = min(trained, key=lambda trial: (trial.values[1], -trial.values[0]))
    model = result.kept_model(smallest.number)
    assert model.active_peft_config.lr_multipliers == smallest.user_attrs["lr_multipliers"]


def test_the_checkpoint_size_is_that_of_the_adapters_tensors(result, tmp_path):
    chosen = result.knee
    model = get_biotune_model(small_resnet(), chosen.config)
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    with safe_open(path, "pt") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    assert chosen.checkpoint_size == sum(tensor.nbytes for tensor in tensors)
    assert chosen.checkpoint_size < path.stat().st_size


def test_the_winner_is_the_best_score_among_the_finalists(result):
    scores = {f.trial: f.fitness.score for f in result.finalists if f.in_contention}
    assert result.best_score == max(scores.values())
    assert result.best_trial in result.lineage().trial.tolist()


def test_a_search_for_a_score_has_a_front_of_score_and_parameters(digits_train, digits_validation):
    plain = run(
        digits_train,
        digits_validation,
        replace(SEARCH, objectives=(), generations=0, seeds=(1,), n_finalists=0),
    )
    front = plain.pareto_front
    for first, second in itertools.pairwise(front.itertuples()):
        assert first.trainable_parameters < second.trainable_parameters
        assert first.score < second.score
    assert plain.best_under(trainable_parameters=0.99).trainable_parameters > 0
    assert [d.name for d in plain.study.directions] == ["MAXIMIZE"]
    with pytest.raises(ConfigError, match="a limit must be for one of trainable_parameters, "):
        plain.best_under(flops=3)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "nsgaii"])
def test_other_samplers_search_for_several_objectives_too(sampler, digits_train, digits_validation):
    config = replace(
        SEARCH,
        sampler=sampler,
        n_finalists=0,
        seeds=(1,),
        generations=1,
        objectives=("accuracy", "seconds"),
    )
    found = run(digits_train, digits_validation, config)
    assert len(found.pareto_front) >= 1
    assert all(t.values is None or len(t.values) == 2 for t in found.study.trials)


@pytest.mark.slow
def test_an_interrupted_search_for_two_objectives_ends_as_the_uninterrupted_one(
    result, digits_train, digits_validation
):
    class StopAt(SearchListener):
        def on_trial_begin(self, number, generation, role):
            if number == 7:
                raise KeyboardInterrupt

    storage = optuna.storages.InMemoryStorage()
    with pytest.raises(KeyboardInterrupt):
        run(digits_train, digits_validation, SEARCH, storage, listener=StopAt())
    resumed = run(digits_train, digits_validation, SEARCH, storage)
    assert resumed.pareto_front.score.tolist() == result.pareto_front.score.tolist()
    assert resumed.pareto_front.blocks.tolist() == result.pareto_front.blocks.tolist()
    assert resumed.best_score == result.best_score
