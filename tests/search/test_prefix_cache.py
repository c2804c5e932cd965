from __future__ import annotations

import logging
import random
from dataclasses import replace

import numpy as np
import optuna
import pytest
import torch
from small import small_resnet
from torch import nn

from hf_biotune import BioTuneConfig, SearchConfig, biotune_search, get_biotune_model
from hf_biotune.exceptions import ConfigError
from hf_biotune.search import FitnessEvaluator, StoppingRule
from hf_biotune.search.augmentation import Augmentation
from hf_biotune.search.data import EncodedSplit
from hf_biotune.search.fitness_result import FitnessResult
from hf_biotune.search.metrics import METRICS
from hf_biotune.search.prefix_cache import CacheStatistics, PrefixCache
from hf_biotune.search.study import default_training_arguments
from hf_biotune.search.weights import BaseModelPool

LATE = {"layer4": 2.0, "head": 5.0}


def pretrained() -> nn.Module:
    """Only its head depends on the seed, as that of a pre-trained model."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = small_resnet()
    nn.init.normal_(model.classifier[1].weight)
    return model


@pytest.fixture
def evaluator(digits_train, digits_validation):
    def make(cached=True, model_init=pretrained, train=digits_train, memory=None, **overrides):
        settings = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "use_cpu": True}
        pool = BaseModelPool(model_init)
        return FitnessEvaluator(
            pool,
            train,
            digits_validation,
            default_training_arguments(**{**settings, **overrides}),
            METRICS["accuracy"],
            StoppingRule(None),
            cache=PrefixCache(pool, memory) if cached else None,
        )

    return make


def curves(result: FitnessResult) -> list[object]:
    return [run.curve for run in result.runs]


def config(multipliers) -> BioTuneConfig:
    return BioTuneConfig(lr_multipliers=dict(multipliers), saved_blocks=[])


@pytest.mark.parametrize("trained", [LATE, {"layer2": 1.0, "head": 1.0}, {"stem": 1.0}])
def test_a_training_with_the_cache_is_that_without_bit_for_bit(evaluator, trained):
    expected = evaluator(cached=False).evaluate(config(trained), [1, 2])
    assert curves(evaluator().evaluate(config(trained), [1, 2])) == curves(expected)


def test_one_recording_serves_epochs_seeds_and_genotypes_with_a_longer_prefix(evaluator):
    trainer = evaluator()
    trainer.evaluate(config(LATE), [1, 2])
    recorded = trainer.cache.statistics.recorded
    assert recorded == 60 + 60  # training and validation samples, once
    trainer.evaluate(config({"layer4": 0.3}), [1])
    assert trainer.cache.statistics.recorded == recorded
    trainer.evaluate(config({"head": 1.0}), [1])
    assert trainer.cache.statistics.recorded == recorded + 60 + 60


def test_samples_are_counted_by_where_they_come_from(evaluator):
    trainer = evaluator(per_device_train_batch_size=20)
    trainer.evaluate(config(LATE), [1])
    statistics = trainer.cache.statistics
    assert (statistics.hits, statistics.misses) == (2 * (60 + 60), 0)
    trainer.evaluate(config({"stem": 1.0}), [1])
    assert (statistics.hits, statistics.misses) == (2 * (60 + 60), 2 * (60 + 60))
    assert statistics.memory_bytes == 2 * 60 * 16 * 4  # what layer3 puts out
    assert statistics.seconds_saved > 0
    assert statistics.why_not == ""


def test_a_batch_of_another_size_is_served_only_if_it_gives_the_same_bits(evaluator, monkeypatch):
    trainer = evaluator(per_device_train_batch_size=25)
    cache = trainer.cache

    def judge(forward, of_size, served, samples, batch):
        if len(batch) != 10:
            served.sizes.add(len(batch))

    monkeypatch.setattr("hf_biotune.search.prefix_cache.CachedForward._judge_size", judge)
    trainer.evaluate(config(LATE), [1])
    assert cache.statistics.misses == 2 * 10  # the last batch of each epoch


def test_folds_share_the_samples_that_they_have_in_common(evaluator):
    trainer = evaluator()
    trainer.evaluate(config(LATE), [1], range(40), range(60))
    trainer.evaluate(config(LATE), [1], range(20, 60), range(60))
    assert trainer.cache.statistics.recorded == 60 + 60


def test_a_prefix_that_depends_on_the_seed_is_not_shared_between_seeds(evaluator):
    trainer = evaluator(model_init=small_resnet)
    result = trainer.evaluate(config(LATE), [1, 2])
    assert trainer.cache.statistics.recorded == 2 * (60 + 60)
    assert curves(result) == curves(
        evaluator(cached=False, model_init=small_resnet).evaluate(config(LATE), [1, 2])
    )


def test_augmented_samples_are_not_cached_but_validation_samples_are(evaluator, digits_train):
    images = EncodedSplit(
        digits_train.inputs,
        digits_train.labels,
        digits_train.label_names,
        digits_train.mean,
        digits_train.std,
        augmentation=Augmentation(horizontal_flip=0.0),
    )
    trainer = evaluator(train=images)
    result = trainer.evaluate(config(LATE), [1])
    statistics = trainer.cache.statistics
    assert (statistics.hits, statistics.misses) == (2 * 60, 2 * 60)
    expected = evaluator(cached=False, train=images).evaluate(config(LATE), [1])
    assert curves(result) == curves(expected)


def test_without_memory_activations_are_kept_in_a_file(evaluator, tmp_path):
    trainer = evaluator(memory=0)
    trainer.cache.store.directory = tmp_path / "not" / "yet"
    result = trainer.evaluate(config(LATE), [1])
    statistics = trainer.cache.statistics
    assert statistics.memory_bytes == 0
    assert statistics.file_bytes == 2 * 60 * 16 * 4
    assert statistics.hits == 2 * (60 + 60)
    assert curves(result) == curves(evaluator(cached=False).evaluate(config(LATE), [1]))


def test_without_any_room_nothing_is_cached_and_that_is_said_once(evaluator, caplog):
    trainer = evaluator(memory=0)
    trainer.cache.store.disk = 0
    with caplog.at_level(logging.WARNING):
        trainer.evaluate(config(LATE), [1, 2])
    assert trainer.cache.statistics.hits == 0
    assert trainer.cache.statistics.why_not == "behind 'layer3': there is no room"
    assert len(caplog.records) == 1


class Restless(nn.Module):
    """Between its blocks it draws random numbers, as no module of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values + torch.randn_like(pixel_values)).logits


def test_a_prefix_that_is_no_constant_is_not_cached_and_the_reason_is_said_once(evaluator, caplog):
    def model_init():
        return Restless(pretrained())

    trainer = evaluator(model_init=model_init)
    trained = BioTuneConfig(blocks="auto", lr_multipliers={"head": 1.0}, saved_blocks=[])
    with caplog.at_level(logging.WARNING):
        result = trainer.evaluate(trained, [1, 2])
    assert trainer.cache.statistics.hits == 0
    assert "what is cached gives other logits" in trainer.cache.statistics.why_not
    assert len(caplog.records) == 1
    expected = evaluator(cached=False, model_init=model_init).evaluate(trained, [1, 2])
    assert curves(result) == curves(expected)


class Tied(nn.Module):
    """What comes first shares its weight with what comes last, as the embedding of GPT-2 does."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Linear(8, 8)
        self.first = nn.Linear(8, 8)
        self.last = nn.Linear(8, 8)
        self.last.weight = self.first.weight

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(self.first(pixel_values)))


def test_a_block_that_also_comes_first_leaves_no_prefix(digits_validation):
    pool = BaseModelPool(Tied)
    samples = EncodedSplit({"pixel_values": torch.randn(8, 8)}, torch.arange(8), tuple("abcdefgh"))
    blocks = {"middle": "middle", "tied": ["first", "last"]}
    trained = BioTuneConfig(blocks=blocks, lr_multipliers={"tied": 1.0}, saved_blocks=[])
    wrapped = get_biotune_model(pool.restore(0), trained, keep_base_weights=False)
    cache = PrefixCache(pool)
    forward = cache.forward(wrapped.train(), wrapped, 0, "cpu")
    forward.prepare(samples.view(), [torch.arange(8)])
    forward(samples.view(), torch.arange(8))
    assert cache.statistics.hits == 0
    assert cache.statistics.why_not == (
        "behind 'middle': nothing of it ends before a later block begins"
    )


class Prompted(nn.Module):
    """What is trained last counts from the first: in a list that is no module of the pass."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.embed = nn.Linear(3 * 16 * 16, 16)
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
            self.prompts = nn.ParameterList(torch.randn(16) for _ in range(3))
            self.head = nn.Linear(16, 10)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        x = self.embed(pixel_values.flatten(1))
        for layer, prompt in zip(self.layers, self.prompts, strict=True):
            x = layer(x + prompt).tanh()
        return self.head(x)


PROMPTED = BioTuneConfig(
    blocks={"body": ["embed", "layers"], "head": ["prompts", "head"]},
    lr_multipliers={"head": 9.0},
    saved_blocks=[],
)


@pytest.mark.parametrize("flips", [None, Augmentation(horizontal_flip=0.0)])
def test_scores_are_not_of_activations_from_before_the_training(evaluator, digits_train, flips):
    train = replace(digits_train, augmentation=flips)
    expected = evaluator(cached=False, model_init=Prompted, train=train).evaluate(PROMPTED, [1])
    trainer = evaluator(model_init=Prompted, train=train)
    assert curves(trainer.evaluate(PROMPTED, [1])) == curves(expected)
    assert "what is cached gives other gradients" in trainer.cache.statistics.why_not


class Skipping(Prompted):
    """Leaves layers out at random, by Python's and NumPy's generators."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        x = self.embed(pixel_values.flatten(1))
        for layer in self.layers:
            x = layer(x).tanh()
        if self.training and random.random() + np.random.random() < 0.7:
            x = x * 0.5
        return self.head(x)


def test_what_the_cache_does_draws_no_random_numbers_of_a_training(evaluator):
    expected = evaluator(cached=False, model_init=Skipping).evaluate(PROMPTED, [1])
    trainer = evaluator(model_init=Skipping)
    for _ in range(2):
        assert curves(trainer.evaluate(PROMPTED, [1])) == curves(expected)


class OfTheBatch(Prompted):
    """Its frozen part depends on the other samples of a batch, in evaluations too."""

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        x = self.layers[0](self.embed(pixel_values.flatten(1)))
        return self.head(self.layers[1](x - x.mean(0)))


def test_validation_samples_that_depend_on_their_neighbours_are_not_cached(evaluator):
    sizes = {"per_device_eval_batch_size": 20, "model_init": OfTheBatch}
    expected = evaluator(cached=False, **sizes).evaluate(PROMPTED, [1])
    trainer = evaluator(**sizes)
    trainer.evaluate(PROMPTED, [1], None, range(0, 60, 3))
    assert curves(trainer.evaluate(PROMPTED, [1])) == curves(expected)
    assert trainer.cache.statistics.hits == 0


def test_without_memory_for_the_check_the_training_goes_on_without_the_cache(
    evaluator, monkeypatch
):
    expected = evaluator(cached=False).evaluate(config(LATE), [1])

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    trainer = evaluator()
    monkeypatch.setattr("hf_biotune.search.prefix_cache.CachedForward._outcome", full)
    result = trainer.evaluate(config(LATE), [1])
    assert curves(result) == curves(expected)
    assert [run.batch_parts for run in result.runs] == [1]
    assert "there is no memory to check it" in trainer.cache.statistics.why_not


SEARCH = {
    "budget": "6-trainings",
    "population_size": 4,
    "n_elites": 1,
    "seeds": (1, 2),
    "n_finalists": 1,
    "memory_layout": "contiguous",
    "precision": "fp32",
    "fused_optimizer": False,
}


def search(train, validation, **overrides):
    return biotune_search(
        pretrained,
        train,
        validation,
        default_training_arguments(num_train_epochs=3, use_cpu=True),
        SearchConfig(**{**SEARCH, **overrides}),
        storage=optuna.storages.InMemoryStorage(),
    )


def test_a_search_with_the_cache_is_that_without(digits_train, digits_validation):
    cached = search(digits_train, digits_validation)
    plain = search(digits_train, digits_validation, prefix_cache=False)
    same = [c for c in plain.history.columns if not c.startswith("seconds")]
    assert cached.history[same].equals(plain.history[same])
    assert cached.best_score == plain.best_score
    assert cached.cache_statistics.hits > 0
    assert plain.cache_statistics is None


def test_the_published_scheme_has_no_cache():
    assert SearchConfig().prefix_cache
    assert not SearchConfig.paper().prefix_cache


def test_memory_of_less_than_nothing_is_refused():
    with pytest.raises(ConfigError, match="must be at least 0 GiB, got -1; prefix_cache=False"):
        SearchConfig(prefix_cache_memory=-1)


def test_statistics_read_like_a_sentence():
    statistics = CacheStatistics(hits=9000, misses=1000, memory_bytes=3 * 2**20, seconds_saved=2)
    assert str(statistics) == (
        "9,000 of 10,000 samples from the prefix cache, 2.0 s saved, 3 MiB of memory"
    )
