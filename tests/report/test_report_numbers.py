import pytest

from hf_biotune.report import numbers

MINUS = "\N{MINUS SIGN}"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0454, "+0.045"), (-0.007, f"{MINUS}0.007"), (0.0004, "±0.000"), (-0.0004, "±0.000")],
)
def test_a_difference_has_a_sign_and_nothing_is_neither_plus_nor_minus(value, text):
    assert numbers.difference(value) == text


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ([0.9534], "0.953 (n = 1)"),
        ([0.95, 0.96], "0.955 ± 0.064 (95 %, n = 2)"),
        ([0.95, 0.96, 0.97], "0.960 ± 0.025 (95 %, n = 3)"),
        ([0.9, float("nan"), 0.92], "0.910 ± 0.127 (95 %, n = 2)"),
        ([float("nan"), 0.9], "0.900 (n = 1)"),
        ([float("nan")], "\N{EN DASH}"),
        ([], "\N{EN DASH}"),
    ],
)
def test_only_two_or_more_seeds_have_a_t_interval(scores, text):
    assert numbers.score_of_seeds(scores) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 %"),
        (0.0001, "< 0.1 %"),
        (0.4612, "46.1 %"),
        (0.99912, "99.9 %"),
        (0.99999, "> 99.9 %"),
        (1, "100 %"),
    ],
)
def test_a_share_is_never_rounded_to_nothing_or_all(value, text):
    assert numbers.share(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.949, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (3599.7, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (float("nan"), "\N{EN DASH}"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds, text):
    assert numbers.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (928, "928"),
        (1_448, "1.45 k"),
        (34_900, "34.9 k"),
        (999_999, "1.00 M"),
        (25_557_032, "25.6 M"),
        (7e9, "7.00 G"),
    ],
)
def test_a_short_count_has_three_digits(value, text):
    assert numbers.short_count(value) == text


def test_a_number_stays_with_its_unit_and_sign():
    bound = numbers.bind("64.6 % at 0.953 ± 0.003 (n = 2) in 12 min 10 s, 40 trainings")
    assert bound.split(" ") == [
        "64.6\xa0%",
        "at",
        "0.953\xa0±\xa00.003",
        "(n\xa0=\xa02)",
        "in",
        "12\xa0min\xa010\xa0s,",
        "40\xa0trainings",
    ]
