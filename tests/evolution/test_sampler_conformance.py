"""Optuna's own tests for samplers, where they apply.

One group doesn't. `RelativeSamplerTestCase.test_sample_relative_*` hands the sampler search spaces
of its own ("x", "y"), but ours has a fixed one, the genes of a model, from the first trial on;
below, the same is asked of the genes.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.testing import pytest_samplers
from searches import BLOCKS, new_study, run

from hf_biotune.evolution import BioTuneSampler, parameter_names


class _OurSampler:
    @pytest.fixture(params=[False, True], ids=["paper", "default"])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: BioTuneSampler(
            BLOCKS, population_size=3, n_elites=1, surrogate=request.param, n_candidates=5
        )


class TestBasic(_OurSampler, pytest_samplers.BasicSamplerTestCase):
    pass


class TestSeveralObjectives(_OurSampler, pytest_samplers.MultiObjectiveSamplerTestCase):
    pass


class TestRelative(_OurSampler):
    test_trial_relative_params = pytest_samplers.RelativeSamplerTestCase.test_trial_relative_params

    def test_genes_are_sampled_as_plain_floats_in_range(
        self, sampler: Callable[[], BaseSampler]
    ) -> None:
        study = new_study()
        study.sampler = sampler()
        space = study.sampler.infer_relative_search_space(study, None)
        assert space == {name: FloatDistribution(0.0, 1.0) for name in parameter_names(BLOCKS)}
        run(study, 10)
        for _ in range(3):
            trial = study._storage.get_trial(study._storage.create_new_trial(study._study_id))
            parameters = study.sampler.sample_relative(study, trial, space)
            assert list(parameters) == list(space)
            assert all(type(value) is float and 0 <= value <= 1 for value in parameters.values())
