import math

import numpy as np
import pytest

from hf_biotune.contest.standings import MethodRecord
from hf_biotune.contest.statistics import (
    Ranking,
    critical_difference,
    difference,
    holm,
    interval,
    paired_tests,
    ranking,
    repetitions,
    split_means,
)
from hf_biotune.exceptions import DataError


def runs(*scores):
    """Scores of splits 0, 1, ... with seed 7."""
    return {(split, 7): score for split, score in enumerate(scores)}


def test_the_interval_of_three_scores_is_that_of_student():
    # sd 0.1, t(0.975, 2) = 4.3027, so 4.3027 * 0.1 / sqrt(3).
    found = interval([0.8, 0.9, 1.0])
    assert found.mean == pytest.approx(0.9)
    assert found.half_width == pytest.approx(4.302653 * 0.1 / math.sqrt(3), rel=1e-6)
    assert (found.low, found.high) == pytest.approx((0.651586, 1.148414), abs=1e-6)


def test_one_score_has_no_interval():
    assert math.isnan(interval([0.5]).half_width)


def test_holm_multiplies_by_the_number_of_tests_that_are_left_and_stays_monotone():
    # Sorted: .01 x 4, .02 x 3, .04 x 2, .5 x 1.
    assert holm([0.02, 0.5, 0.01, 0.04]) == pytest.approx([0.06, 0.5, 0.04, 0.08])
    # .03 x 2 = .06 exceeds .04 x 1, which follows.
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])


def test_what_could_not_be_tested_is_no_test_for_holm():
    assert holm([0.01, math.nan, 0.02])[[0, 2]] == pytest.approx([0.02, 0.02])


def test_paired_tests_match_numbers_worked_out_by_hand():
    # Differences .1 .2 .3: mean .2, sd .1, t = .2 / (.1 / sqrt 3) = 3.4641, p(2 df) = .0742.
    (test,) = paired_tests({"ours": runs(0.6, 0.8, 1.0), "theirs": runs(0.5, 0.6, 0.7)})
    assert (test.first, test.second) == ("ours", "theirs")
    assert test.difference.mean == pytest.approx(0.2)
    assert test.t_test == pytest.approx(0.0742, abs=1e-4)
    # All three signs agree: 2 / 2^3.
    assert test.wilcoxon == pytest.approx(0.25)
    assert test.t_test_holm == test.t_test


def test_three_methods_are_three_pairs_and_holm_counts_them():
    scores = {
        "a": runs(0.6, 0.8, 1.0, 0.9),
        "b": runs(0.5, 0.6, 0.7, 0.8),
        "c": runs(0.1, 0.3, 0.2, 0.2),
    }
    tests = paired_tests(scores)
    assert [(t.first, t.second) for t in tests] == [("a", "b"), ("a", "c"), ("b", "c")]
    smallest = min(tests, key=lambda test: test.t_test)
    assert smallest.t_test_holm == pytest.approx(3 * smallest.t_test)


def test_of_equal_differences_the_spread_is_not_known():
    (same,) = paired_tests({"a": runs(0.5, 0.7), "b": runs(0.5, 0.7)})
    assert (same.t_test, same.wilcoxon) == (1.0, 1.0)
    (shifted,) = paired_tests({"a": runs(0.5, 0.5), "b": runs(0.25, 0.25)})
    assert math.isnan(shifted.t_test)
    assert (shifted.difference.mean, shifted.difference.n) == (0.25, 2)
    assert math.isnan(shifted.difference.half_width)


def test_unequal_numbers_of_scores_are_refused():
    with pytest.raises(DataError, match=r"same blocks to be ranked, got \{'a': 2, 'b': 1\}"):
        ranking({"a": [0.5, 0.6], "b": [0.5]})


def test_ranks_are_means_over_blocks_and_ties_share_them():
    found = ranking({"a": [0.9, 0.8], "b": [0.7, 0.8], "c": [0.5, 0.1]})
    assert found.ranks == {"a": 1.25, "b": 1.75, "c": 3.0}
    assert found.n_blocks == 2


def test_ranks_of_the_worked_example_of_demsar():
    # Table 6 of Demsar (2006): AUC of C4.5 and three variants on 14 data sets.
    table = np.array(
        [
            [0.763, 0.768, 0.771, 0.798],
            [0.599, 0.591, 0.590, 0.569],
            [0.954, 0.971, 0.968, 0.967],
            [0.628, 0.661, 0.654, 0.657],
            [0.882, 0.888, 0.886, 0.898],
            [0.936, 0.931, 0.916, 0.931],
            [0.661, 0.668, 0.609, 0.685],
            [0.583, 0.583, 0.563, 0.625],
            [0.775, 0.838, 0.866, 0.875],
            [1.000, 1.000, 1.000, 1.000],
            [0.940, 0.962, 0.965, 0.962],
            [0.619, 0.666, 0.614, 0.669],
            [0.972, 0.981, 0.9751, 0.975],
            [0.957, 0.978, 0.946, 0.970],
        ]
    ).T
    found = ranking(dict(zip(("C4.5", "+m", "+cf", "+m+cf"), table, strict=True)))
    assert [round(rank, 3) for rank in found.ranks.values()] == [3.143, 2.0, 2.893, 1.964]
    assert found.critical_difference == pytest.approx(1.25, abs=0.01)
    assert found.friedman < 0.05


@pytest.mark.parametrize(("k", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_critical_differences_follow_the_published_table_of_q(k, q):
    # Demsar (2006), table 5a.
    assert critical_difference(k, 6) == pytest.approx(q * math.sqrt(k * (k + 1) / 36), abs=2e-3)


def test_cliques_are_the_largest_groups_within_the_critical_difference():
    found = Ranking({"d": 4.0, "a": 1.0, "b": 1.8, "c": 2.5}, 5, 0.01, 1.0)
    assert found.cliques == [("a", "b"), ("b", "c")]


def test_two_methods_have_no_friedman_test():
    assert math.isnan(ranking({"a": [1, 2], "b": [0, 1]}).friedman)


def test_ranks_of_one_method_are_refused():
    with pytest.raises(DataError, match="at least two methods, got a"):
        ranking({"a": [0.5]})


def test_methods_with_other_seeds_are_compared_by_the_means_of_splits():
    several = {(0, 1): 0.5, (0, 2): 0.7, (1, 1): 0.4, (1, 2): 0.6}
    (test,) = paired_tests({"several": several, "one": {(0, 0): 0.4, (1, 0): 0.4}})
    assert split_means(several) == pytest.approx({0: 0.6, 1: 0.5})
    assert test.difference.n == 2
    assert test.difference.mean == pytest.approx(0.15)


def test_seeds_of_a_split_are_no_repetitions_of_their_own():
    ours = {(0, 1): 0.5, (0, 2): 0.7, (1, 1): 0.4, (1, 2): 0.6}
    theirs = {(0, 1): 0.4, (0, 2): 0.4, (1, 1): 0.3, (1, 2): 0.3}
    assert repetitions(ours) == [0.6, 0.5]
    (test,) = paired_tests({"ours": ours, "theirs": theirs})
    assert (test.difference.n, test.difference.mean) == (2, pytest.approx(0.2))
    # A seed that only one of them has finished does not count.
    del theirs[1, 2]
    (test,) = paired_tests({"ours": ours, "theirs": theirs})
    assert test.difference.mean == pytest.approx((0.2 + 0.1) / 2)
    # On one split seeds are all that there is.
    one = [{key: score for key, score in each.items() if key[0] == 0} for each in (ours, theirs)]
    (test,) = paired_tests({"ours": one[0], "theirs": one[1]})
    assert (test.difference.n, test.difference.mean) == (2, pytest.approx(0.2))


def test_a_model_without_a_seed_is_compared_with_all_seeds_of_the_other():
    scores = {"macro_accuracy": 0.85}
    alone = MethodRecord("a", "A", runs={(0, 1): {"scores": scores, "is_seedless": True}})
    runs = {
        (0, seed): {"scores": {"macro_accuracy": score}, "is_seedless": False}
        for seed, score in ((1, 0.80), (2, 0.90), (3, 0.91))
    }
    several = MethodRecord("b", "B", runs=runs)
    (test,) = paired_tests({r.name: r.scores("macro_accuracy") for r in (alone, several)})
    assert test.difference.mean == pytest.approx(-0.02)
    assert test.difference.n == 1


@pytest.mark.parametrize(("value", "n"), [(0.1, 3), (0.02, 12), (0.7, 5)])
def test_of_equal_differences_nothing_is_certain_however_they_are_rounded(value, n):
    assert interval([value] * n).half_width == 0.0
    assert math.isnan(difference([value] * n).half_width)
    assert difference([0.0] * n).half_width == 0.0


def test_methods_without_a_common_split_are_refused():
    with pytest.raises(DataError, match=r"'a' and 'b' have no split in common.*\[0\] and \[1\]"):
        paired_tests({"a": {(0, 1): 0.5}, "b": {(1, 2): 0.5}})
