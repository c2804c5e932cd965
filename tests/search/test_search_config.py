from __future__ import annotations

import json

import pytest

from hf_biotune import SearchConfig
from hf_biotune.exceptions import ConfigError
from hf_biotune.search import Budget


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        (40, Budget(trainings=40)),
        ("40", Budget(trainings=40)),
        ("40-trainings", Budget(trainings=40)),
        ("1 training", Budget(trainings=1)),
        ("30m", Budget(minutes=30)),
        ("1.5h", Budget(minutes=90)),
        ("3x", Budget(fine_tunings=3)),
        ("0.5 x", Budget(fine_tunings=0.5)),
    ],
)
def test_a_budget_is_read_as_a_person_writes_it(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "abc", "-3", "30 parsecs", "m", "1e3"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(
        ConfigError, match="budget must be a number of trainings, a time or a multiple"
    ):
        Budget.parse(text)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="budget must be greater than 0, got 0"):
        SearchConfig(budget=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"population_size": 4, "n_elites": 3},
            r"population_size must be at least n_elites \+ 2 = 5, got 4",
        ),
        ({"n_elites": 0}, "n_elites must be an integer of at least 1, got 0"),
        ({"generations": -1}, "generations must be an integer of at least 0, got -1"),
        ({"budget": None}, "a search needs an end"),
        ({"fold_fraction": 1.5}, r"must be in \(0, 1\], got 1.5"),
        ({"patience": 0}, "patience must be an integer of at least 1, got 0"),
        ({"patience_from": 2.0}, r"patience_from must be in \[0, 1\], got 2.0"),
        ({"seeds": ()}, "seeds must be distinct and at least one"),
        ({"seeds": (1, 1)}, "seeds must be distinct"),
        ({"seeds_per_individual": 4}, r"seeds_per_individual must be in \[1, 3\].*got 4"),
        ({"memory_layout": "rows"}, "memory_layout must be one of auto, contiguous"),
        ({"precision": "fp8"}, "precision must be one of auto, fp32, bf16, got 'fp8'"),
        ({"fused_optimizer": "yes"}, "fused_optimizer must be True, False or 'auto', got 'yes'"),
        ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
    ],
)
def test_values_out_of_range_are_refused_with_value_and_rule(values, message):
    with pytest.raises(ConfigError, match=message):
        SearchConfig(**values)


def test_the_paper_preset_is_the_published_scheme():
    paper = SearchConfig.paper()
    assert paper.population_size == 10
    assert paper.n_elites == 3
    assert paper.generations == 10
    assert paper.seeds_per_individual == 3
    assert paper.seeds == (684, 559, 629)
    assert paper.n_folds == 2
    shortcuts = (paper.surrogate, paper.prefer_cheap, paper.halving, paper.memoise)
    assert shortcuts == (False, False, False, False)
    assert not paper.seeded_start
    computed = (paper.memory_layout, paper.precision, paper.fused_optimizer)
    assert computed == ("contiguous", "fp32", False)


def test_overrides_of_the_paper_preset_win():
    assert SearchConfig.paper(generations=2).generations == 2


def test_a_configuration_is_plain_json():
    assert json.loads(json.dumps(SearchConfig().to_dict()))["budget"] == "20 trainings"
