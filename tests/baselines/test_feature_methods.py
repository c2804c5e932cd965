import pytest
from problems import small_problem

from hf_biotune.baselines import get_method, run_method


@pytest.mark.parametrize("name", ["top-tuning", "evolved-features"])
def test_methods_on_features_train_no_network_and_have_one_model(name, resnet_problem):
    problem = resnet_problem
    result = run_method(get_method(name), problem, (1, 2))
    (run,) = result.runs
    assert run.cost.trainings == result.tuned.cost.trainings == 0
    assert run.seed is None
    assert run.test_logits.shape == (len(problem.data.test), problem.data.test.n_classes)
    # The head is fitted again, and is the same.
    assert run.validation_score == result.tuned.score


def test_top_tuning_says_which_kernel_it_took(resnet_problem):
    setting = get_method("top-tuning").tune(resnet_problem).setting
    assert setting.options["width"] in (0.5, 1.0, 2.0)
    assert setting.options["penalty"] in (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def test_evolved_features_are_some_of_those_before_the_head(resnet_problem):
    setting = get_method("evolved-features").tune(resnet_problem).setting
    assert 0 < setting.options["n_features"] <= 32


def test_features_are_those_of_a_frozen_network():
    problem = small_problem()
    before = {name: t.clone() for name, t in problem.pool.restore(684).state_dict().items()}
    get_method("top-tuning").tune(problem)
    after = problem.model.state_dict()
    assert all((after[name] == value).all() for name, value in before.items())
