"""Methods that are a choice of blocks and rates, by hand."""

from __future__ import annotations

import pytest
from problems import RESNET_BLOCKS, small_problem, small_vit

from hf_biotune import partition
from hf_biotune.baselines import Cost, Setting, get_method
from hf_biotune.baselines.setting import Tried


def rates(name, problem, rate=1.0, **options):
    setting = Setting(rate, options=options)
    return get_method(name).training(problem, setting).config.lr_multipliers


def test_layer_decay_slows_a_block_by_the_number_of_blocks_after_it(resnet_problem):
    found = rates("layer-decay", resnet_problem, 3.0, decay=0.5)
    assert found == {
        "stem": 3 / 32,
        "layer1": 3 / 16,
        "layer2": 3 / 8,
        "layer3": 3 / 4,
        "layer4": 3 / 2,
        "head": 3.0,
    }


def test_last_k_trains_the_last_k_blocks(resnet_problem):
    method = get_method("last-k")
    assert [o["k"] for o in method.options(resnet_problem)] == [2, 3]
    assert rates("last-k", resnet_problem, 0.3, k=2) == {"layer4": 0.3, "head": 0.3}


def test_last_k_needs_three_blocks(resnet_problem):
    two = partition(resnet_problem.model, {"body": "resnet", "head": "classifier"})
    reason = get_method("last-k").why_not(resnet_problem.model, two)
    assert reason == "between one and all of 2 blocks there is no number"
    assert get_method("last-k").why_not(resnet_problem.model, resnet_problem.partition) is None


def test_surgical_fine_tuning_tries_each_block_with_the_head(resnet_problem):
    options = get_method("surgical").options(resnet_problem)
    assert [o["block"] for o in options] == RESNET_BLOCKS[:-1]
    assert rates("surgical", resnet_problem, block="layer2") == {"layer2": 1.0, "head": 1.0}


class Scores:
    """Stands for trainings: the score of a set of blocks, by hand."""

    def __init__(self, scores, monkeypatch, method):
        self.tried = []

        def attempt(problem, setting):
            blocks = "".join(sorted(setting.options["blocks"]))
            self.tried.append(blocks)
            return Tried(setting, scores.get(blocks, 0.0), Cost(1.0, 2, 3.0))

        monkeypatch.setattr(method, "attempt", attempt)


def test_subtuning_grows_the_set_of_blocks_as_long_as_one_helps(monkeypatch):
    problem, method = small_problem(small_vit), get_method("subtuning")
    layer0_first = {"": 0.5, "layer0": 0.6, "layer1": 0.55, "layer0layer1": 0.7, "stem": 0.6}
    scores = Scores({**layer0_first, "layer0layer1stem": 0.7}, monkeypatch, method)
    tuned = method.tune(problem)
    chosen = ["stem"]  # the first of two that are equally good
    assert tuned.setting.options == {"blocks": chosen}
    assert scores.tried[:6] == ["", "stem", "layer0", "layer1", "layer0stem", "layer1stem"]
    assert tuned.cost == Cost(8.0, 16, 24.0)  # those, and two more rates


def test_subtuning_stops_when_nothing_is_left(monkeypatch):
    problem, method = small_problem(small_vit), get_method("subtuning")
    Scores({"layer1": 0.1, "layer0layer1": 0.2, "layer0layer1stem": 0.3}, monkeypatch, method)
    setting = method.tune(problem).setting
    assert setting.options == {"blocks": ["layer1", "layer0", "stem"]}
    assert set(rates("subtuning", problem, **setting.options)) == {
        "stem",
        "layer0",
        "layer1",
        "head",
    }


def test_options_are_chosen_at_the_middle_rate_and_then_rates_for_the_best(monkeypatch):
    problem, method = small_problem(small_vit), get_method("layer-decay")
    tried = []

    def attempt(problem, setting):
        tried.append((setting.options["decay"], setting.rate))
        score = {0.65: 0.1, 0.75: 0.3, 0.9: 0.2}[setting.options["decay"]]
        return Tried(setting, score + 0.01 * setting.rate, Cost(1.0, 2, 3.0))

    monkeypatch.setattr(method, "attempt", attempt)
    tuned = method.tune(problem)
    assert tried == [(0.65, 1.0), (0.75, 1.0), (0.9, 1.0), (0.75, 0.3), (0.75, 3.0)]
    assert tuned.setting == Setting(3.0, "epoch", {"decay": 0.75})
    assert tuned.score == pytest.approx(0.33)


def test_lp_ft_trains_the_head_alone_for_the_first_half():
    problem = small_problem(epochs=5)
    training = get_method("lp-ft").training(problem, Setting(0.3))
    assert training.begins == {**dict.fromkeys(RESNET_BLOCKS, 2), "head": 0}
    assert training.settled_after(5) == 2
    assert set(training.config.lr_multipliers.values()) == {0.3}
