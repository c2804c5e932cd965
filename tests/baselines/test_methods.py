"""What every method has in common: registry, tuning, final runs, accounting."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from problems import RESNET_BLOCKS, small_problem, small_vit
from small import small_resnet

from hf_biotune.baselines import (
    METHODS,
    FinalRun,
    MethodResult,
    Setting,
    Tuned,
    get_method,
    run_method,
)
from hf_biotune.exceptions import ConfigError
from hf_biotune.search import SearchConfig
from hf_biotune.search.fitness import RunKeeper
from hf_biotune.search.forward import Forward
from hf_biotune.search.task import predict


def test_an_unknown_method_is_refused_with_the_list():
    with pytest.raises(ConfigError, match=r"method must be one of linear-probe, full, .*got 'x'"):
        get_method("x")


def test_each_method_has_its_key_as_its_name_a_title_and_a_source():
    methods = {name: get_method(name) for name in METHODS}
    assert all(method.name == name for name, method in methods.items())
    assert all(method.source for method in methods.values())
    assert len({method.title for method in methods.values()}) == len(METHODS)


def test_the_list_of_methods_does_not_import_torch():
    script = "import sys; from hf_biotune.baselines import METHODS; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_three_rates_are_tried_with_moving_and_frozen_statistics(resnet_problem):
    tuned = get_method("full").tune(resnet_problem)
    assert {(t.setting.rate, t.setting.norm_statistics) for t in tuned.tried} == {
        (rate, mode) for rate in (0.3, 1.0, 3.0) for mode in ("epoch", "frozen")
    }
    assert len(tuned.tried) == 6
    assert tuned.score == max(t.score for t in tuned.tried)
    assert tuned.cost.trainings == pytest.approx(6)
    assert tuned.cost.epochs == 12
    assert tuned.cost.seconds == pytest.approx(sum(t.cost.seconds for t in tuned.tried))


def test_a_method_that_trains_no_batch_norm_is_tried_at_three_rates(resnet_problem, vit_problem):
    tuned = get_method("linear-probe").tune(resnet_problem)
    assert [t.setting for t in tuned.tried] == [Setting(3.0), Setting(1.0), Setting(10.0)]
    assert get_method("full").norm_modes(vit_problem, {}) == ("epoch",)


def test_a_rate_is_that_of_the_optimizer(resnet_problem):
    training = get_method("full").training(resnet_problem, Setting(3.0))
    model = training.wrap(resnet_problem.pool.restore(0))
    optimizer = training.optimizer(model, resnet_problem.args)
    assert {group["lr"] for group in optimizer.param_groups} == {3e-3}
    training.unwrap(model)


class AtBestEpoch(RunKeeper):
    """Predicts the test samples after each epoch that is the best so far."""

    def __init__(self, test):
        self.test = test

    def on_best_epoch(self, model, score):
        self.logits = predict(Forward(model, "cpu"), self.test.view(), 128)


@pytest.mark.parametrize(
    ("make", "name", "options"),
    [
        (small_resnet, "full", {}),
        (small_vit, "norm-only", {}),
        (small_vit, "lora", {"rank": 2, "alpha": 4}),
    ],
)
def test_a_final_run_tests_the_best_epoch_and_repeats_itself(make, name, options):
    problem = small_problem(make, epochs=4)
    method, setting = get_method(name), Setting(100.0, options=options)
    run = method.final_run(problem, setting, 1)
    keeper = AtBestEpoch(problem.data.test)
    fitness = problem.evaluator.evaluate(method.training(problem, setting), [1], keeper=keeper)
    scores = [epoch.score for epoch in fitness.runs[0].curve]
    assert scores.index(max(scores)) < 3  # the last epoch would show nothing
    assert torch.equal(run.test_logits, keeper.logits)
    assert run.validation_score == fitness.score
    assert run.test_score == problem.metric.compute(run.test_logits, problem.data.test.labels)


def test_frozen_first_blocks_are_computed_once_and_change_nothing():
    results = {}
    for is_cached in (True, False):
        search = SearchConfig(patience=None, metric="accuracy", prefix_cache=is_cached)
        problem = small_problem(search=search)
        run = get_method("linear-probe").final_run(problem, Setting(), 0)
        results[is_cached] = run, problem.evaluator.cache
    assert torch.equal(results[True][0].test_logits, results[False][0].test_logits)
    assert results[True][1].statistics.hits == 2 * (20 + 20)
    assert results[False][1] is None


def test_a_final_run_counts_what_was_trained_and_what_a_checkpoint_takes(resnet_problem):
    run = get_method("linear-probe").final_run(resnet_problem, Setting(), 0)
    assert run.trained_parameters == 32 * 10 + 10
    assert 330 * 4 < run.checkpoint_bytes < 330 * 4 + 1000  # numbers and a header
    assert run.cost.trainings == pytest.approx(1)
    assert run.peak_bytes is None or run.peak_bytes > 2**20


def test_a_run_that_diverges_has_the_worst_score(resnet_problem):
    run = get_method("full").final_run(resnet_problem, Setting(1e38), 0)
    assert run.test_score == 0.0


def test_run_method_tunes_and_trains_once_per_seed(resnet_problem):
    result = run_method(get_method("linear-probe"), resnet_problem, [1, 2])
    assert [run.seed for run in result.runs] == [1, 2]
    assert result.cost.epochs == 3 * 2 + 2 * 2
    assert result.why_not == ""


def test_results_survive_json(resnet_problem):
    result = run_method(get_method("linear-probe"), resnet_problem, [1])
    assert Tuned.from_dict(result.tuned.to_dict()) == result.tuned
    run = FinalRun.from_dict(result.runs[0].to_dict())
    assert run.to_dict() == result.runs[0].to_dict()


def test_a_method_that_does_not_fit_says_why():
    assert MethodResult("x", why_not="no bias").cost.epochs == 0


def test_the_blocks_of_the_problem(resnet_problem, vit_problem):
    assert list(resnet_problem.partition.names) == RESNET_BLOCKS
    assert resnet_problem.new_blocks == ("head",)
    assert resnet_problem.batch_norm_blocks == set(RESNET_BLOCKS) - {"head"}
    assert vit_problem.batch_norm_blocks == set()
