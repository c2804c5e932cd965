"""Folds: disjoint, complete, stratified, and a function of the seed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_biotune.exceptions import ConfigError, DataError
from hf_biotune.search.folds import draw_stratified, folds, n_folds

FRACTIONS = st.sampled_from([1.0, 0.75, 0.5, 0.4, 1 / 3, 0.25, 0.2])
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def labels(draw, minimum=5):
    """At least `minimum` samples of each of one to four classes, in any order."""
    counts = draw(st.lists(st.integers(minimum, minimum + 12), min_size=1, max_size=4))
    return np.array(draw(st.permutations(np.repeat(np.arange(len(counts)), counts).tolist())))


@pytest.mark.parametrize(
    ("fraction", "n"),
    [(1.0, 1), (0.999, 2), (0.5, 2), (0.4, 3), (1 / 3, 3), (0.1, 10), (1 / 49, 49)],
)
def test_the_number_of_folds_is_one_over_the_fraction_rounded_up(fraction, n):
    assert n_folds(fraction) == n


@given(labels(), labels(), FRACTIONS, SEEDS)
def test_every_sample_is_in_exactly_one_fold(train, validation, fraction, seed):
    result = folds(train, validation, fraction, seed)
    assert len(result) == n_folds(fraction)
    for part, whole in (("train", train), ("validation", validation)):
        together = np.concatenate([getattr(split, part) for split in result])
        assert sorted(together.tolist()) == list(range(len(whole)))


@given(labels(), FRACTIONS, SEEDS)
def test_folds_differ_by_at_most_one_sample_of_each_class(train, fraction, seed):
    result = folds(train, train, fraction, seed)
    for label in np.unique(train):
        counts = [int((train[split.train] == label).sum()) for split in result]
        assert max(counts) - min(counts) <= 1


@given(labels(), FRACTIONS, SEEDS)
def test_the_same_seed_gives_the_same_sorted_folds(train, fraction, seed):
    one, two = (folds(train, train, fraction, seed) for _ in range(2))
    for first, second in zip(one, two, strict=True):
        assert first.train.dtype == np.int64
        assert first.train.tolist() == second.train.tolist() == sorted(first.train.tolist())


@given(SEEDS)
def test_another_seed_gives_other_folds(seed):
    many = np.arange(60) % 2
    one, two = folds(many, many, 0.5, seed)[0], folds(many, many, 0.5, (seed + 1) % 2**32)[0]
    assert one.train.tolist() != two.train.tolist()


def test_the_fraction_one_gives_one_fold_with_everything():
    (split,) = folds([0, 1, 1], [1, 0], 1.0, seed=3)
    assert (split.train.tolist(), split.validation.tolist()) == ([0, 1, 2], [0, 1])


def test_labels_may_be_a_tensor():
    torch = pytest.importorskip("torch")
    result = folds(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1]), 0.5, seed=1)
    assert [split.train.tolist() for split in result] == [[0, 2], [1, 3]]


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01, float("nan"), True])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ConfigError, match=rf"must be in \(0, 1\], got {fraction}; use 1.0 for all"):
        folds([0, 1], [0, 1], fraction, seed=0)


def test_a_class_smaller_than_the_number_of_folds_is_named():
    message = (
        r"class 'dog' has 2 sample\(s\) in validation, fewer than the 3 folds; use a larger "
        r"fraction \(1.0 means no folds\), or add samples"
    )
    with pytest.raises(DataError, match=message):
        folds([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1], 0.4, seed=0, label_names=("cat", "dog"))
    with pytest.raises(DataError, match=r"class '1' has 1 sample\(s\) in train"):
        folds([0, 0, 0, 1], [0, 0, 0, 1], 0.5, seed=0)


@given(labels(minimum=2), st.floats(0.01, 0.99), SEEDS)
def test_a_draw_and_its_rest_hold_every_sample_once_and_every_class(train, fraction, seed):
    drawn, rest = draw_stratified(train, fraction, seed)
    assert sorted([*drawn, *rest]) == list(range(len(train)))
    for label in np.unique(train):
        count = int((train == label).sum())
        number = int((train[drawn] == label).sum())
        assert number == min(max(1, round(fraction * count)), count - 1)


def test_a_draw_depends_on_the_seed_alone():
    names = ["a", "b"] * 30
    assert draw_stratified(names, 0.5, 1)[0].tolist() == draw_stratified(names, 0.5, 1)[0].tolist()
    assert draw_stratified(names, 0.5, 1)[0].tolist() != draw_stratified(names, 0.5, 2)[0].tolist()
