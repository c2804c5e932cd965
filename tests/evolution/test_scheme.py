from __future__ import annotations

from collections import Counter

import pytest

from hf_biotune.evolution import ROLES, Scheme


def test_the_papers_budget_is_140_trials() -> None:
    scheme = Scheme(population_size=10, n_elites=3)
    assert sum(scheme.n_slots(generation) for generation in range(11)) == 140


@pytest.mark.parametrize(
    ("n_folds", "expected"),
    [
        (1, {"exploit": 6, "offspring": 7}),
        (2, {"rescore": 3, "exploit": 6, "offspring": 7}),
    ],
)
def test_a_generation_exploits_each_elite_on_both_sides(
    n_folds: int, expected: dict[str, int]
) -> None:
    scheme = Scheme(10, 3, n_folds)
    duties = [scheme.duty(1, slot) for slot in range(scheme.n_slots(1))]
    assert Counter(duty.role for duty in duties) == expected
    sides = Counter((duty.elite, duty.sign) for duty in duties if duty.role == "exploit")
    assert sides == {(elite, sign): 1 for elite in range(3) for sign in (1, -1)}
    assert {duty.role for duty in duties} <= set(ROLES)


def test_slots_past_the_last_hold_additional_offspring() -> None:
    scheme = Scheme(10, 3)
    assert scheme.duty(0, 25).role == "initial"
    assert scheme.duty(4, 25).role == "offspring"


def test_folds_rotate_with_the_generations() -> None:
    assert [Scheme(10, 3, 3).fold(generation) for generation in range(7)] == [0, 1, 2, 0, 1, 2, 0]
