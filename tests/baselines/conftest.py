"""Problems that several tests only look at."""

from __future__ import annotations

import pytest
from problems import small_problem, small_vit

from hf_biotune.baselines import Problem


@pytest.fixture(scope="session")
def resnet_problem() -> Problem:
    return small_problem()


@pytest.fixture(scope="session")
def vit_problem() -> Problem:
    return small_problem(small_vit)
