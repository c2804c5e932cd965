"""A deep ensemble: its members are full fine-tunings, its probabilities their mean."""

from __future__ import annotations

import pytest
import torch
from problems import small_problem

from hf_biotune.baselines import get_method, run_method
from hf_biotune.baselines.deep_ensemble import N_MEMBERS


@pytest.fixture(scope="module")
def problem():
    return small_problem()


def test_it_is_the_mean_of_full_fine_tunings_with_the_seeds_after_the_first(problem):
    full = run_method(get_method("full"), problem, range(4, 4 + N_MEMBERS))
    ensemble = run_method(get_method("full-ensemble"), problem, [4, 5])
    (run,) = ensemble.runs
    probabilities = torch.stack([each.test_logits.softmax(-1) for each in full.runs]).mean(0)
    torch.testing.assert_close(run.test_logits.exp(), probabilities)
    labels = problem.data.test.labels
    assert run.test_score == pytest.approx(
        problem.metric.compute(probabilities.log(), labels), abs=1e-9
    )
    assert run.seed is None
    assert run.cost.trainings == sum(each.cost.trainings for each in full.runs)
    assert run.trained_parameters == N_MEMBERS * full.runs[0].trained_parameters
    assert run.checkpoint_bytes == sum(each.checkpoint_bytes for each in full.runs)


def test_its_tuning_is_that_of_full_fine_tuning_and_repeats_none_of_it(problem):
    tuned = get_method("full").tune(problem)
    n_tried = len(problem.attempts)
    assert get_method("full-ensemble").tune(problem) == tuned
    assert len(problem.attempts) == n_tried == 6
