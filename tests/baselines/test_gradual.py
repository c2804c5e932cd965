"""Blocks that join in one after the other."""

from __future__ import annotations

import torch
from problems import RESNET_BLOCKS, small_problem, small_vit

from hf_biotune.baselines import Setting, get_method
from hf_biotune.baselines.gradual import beginnings


def test_each_block_has_an_even_share_of_the_epochs():
    assert beginnings(["c", "b", "a"], 6) == {"c": 0, "b": 2, "a": 4}
    assert beginnings(["c", "b", "a"], 2) == {"c": 0, "b": 0, "a": 1}  # all have their turn


def trained_blocks_by_epoch(problem, name):
    """The blocks whose weights differ from those at the end of the epoch before."""
    training, model = get_method(name).training(problem, Setting()), problem.pool.model
    before = {n: p.detach().clone() for n, p in problem.pool.restore(0).named_parameters()}
    seen = []

    def after_epoch(seed, curve):
        moved = set()
        for key, parameter in model.named_parameters():
            if not torch.equal(parameter, before[key]):
                moved.add(problem.partition.block_of_parameter(key))
                before[key] = parameter.detach().clone()
        seen.append(moved)
        return True

    problem.evaluator.evaluate(training, [0], after_epoch=after_epoch)
    return seen


def test_from_the_last_to_the_first():
    problem = small_problem(small_vit, epochs=4)
    assert trained_blocks_by_epoch(problem, "gradual-last-first") == [
        {"head"},
        {"head", "layer1"},
        {"head", "layer1", "layer0"},
        {"head", "layer1", "layer0", "stem"},
    ]


def test_from_the_first_to_the_last_but_a_new_head_is_trained_from_the_start():
    problem = small_problem(small_vit, epochs=4)
    assert trained_blocks_by_epoch(problem, "gradual-first-last") == [
        {"stem", "head"},
        {"stem", "layer0", "head"},
        {"stem", "layer0", "layer1", "head"},
        {"stem", "layer0", "layer1", "head"},
    ]


def test_statistics_of_a_block_do_not_move_before_its_time():
    problem = small_problem(epochs=6)
    training = get_method("gradual-last-first").training(problem, Setting())
    start = {n: b.clone() for n, b in problem.pool.restore(0).named_buffers()}

    def after_epoch(seed, curve):
        held = RESNET_BLOCKS[: -len(curve)]
        for name, buffer in problem.pool.model.named_buffers():
            if problem.partition.block_of_module(name.rpartition(".")[0]) in held:
                assert torch.equal(buffer, start[name])
        return len(curve) < 3

    problem.evaluator.evaluate(training, [0], after_epoch=after_epoch)


def test_patience_counts_from_the_last_block_on():
    training = get_method("gradual-last-first").training(small_problem(epochs=12), Setting())
    assert training.settled_after(12) == 10
    rule = small_problem(epochs=12, patience=2).evaluator.stopping
    metric = small_problem().metric
    assert not rule.is_over([0.9] + [0.1] * 10, 12, metric, settled_after=10)
    assert rule.is_over([0.9] + [0.1] * 11, 12, metric, settled_after=10)
