from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from hf_biotune.exceptions import ConfigError
from hf_biotune.search.importances import block_importances

BLOCKS = ("stem", "body", "head")


def history(n=40, n_folds=1, score=None):
    """Scores that depend on the rate of the body, or its being frozen, and a little on the head."""
    generator = np.random.default_rng(0)
    rates = np.where(generator.random((n, 3)) < 0.4, np.nan, 10 ** generator.uniform(-1, 1, (n, 3)))
    body = np.where(np.isnan(rates[:, 1]), 0.0, 0.3 - 0.2 * np.log10(rates[:, 1]) ** 2)
    fold = np.arange(n) % n_folds
    scores = 0.5 + body + 0.02 * ~np.isnan(rates[:, 2]) - 0.4 * fold
    return pd.DataFrame(
        {
            "state": "complete",
            "fold": fold,
            "score": scores if score is None else score,
            **{f"multiplier:{name}": rates[:, i] for i, name in enumerate(BLOCKS)},
        }
    )


@pytest.mark.parametrize("evaluator", ["fanova", "ped-anova"])
def test_the_block_that_scores_depend_on_matters_most(evaluator):
    found = block_importances(history(), BLOCKS, greater_is_better=True, evaluator=evaluator)
    assert found.index[0] == "body"
    assert found.sum() == pytest.approx(1)
    assert list(found) == sorted(found, reverse=True)
    assert set(found.index) == set(BLOCKS)


def test_fanova_gives_a_block_its_share_of_the_variance():
    found = block_importances(history(), BLOCKS, greater_is_better=True)
    assert found["body"] > 0.9


def test_frozen_stays_apart_from_rates_that_a_gene_shifts_below_all_others():
    generator = np.random.default_rng(1)
    frozen = generator.random((80, 3)) < 0.4
    # As with a gene for the base rate: logarithms from -2.5 to 1.
    rates = 10 ** (generator.uniform(-1, 1, (80, 3)) - 1.5 * generator.integers(0, 2, (80, 1)))
    frame = pd.DataFrame(
        {
            "state": "complete",
            "fold": 0,
            "score": 0.5 + 0.3 * frozen[:, 1] + 0.01 * generator.random(80),
            **{
                f"multiplier:{name}": np.where(frozen[:, i], np.nan, rates[:, i])
                for i, name in enumerate(BLOCKS)
            },
        }
    )
    found = block_importances(frame, BLOCKS, greater_is_better=True)
    assert found["body"] > 0.9


def test_the_difficulty_of_a_fold_is_no_importance():
    one = block_importances(history(), BLOCKS, greater_is_better=True)
    two = block_importances(history(n_folds=2), BLOCKS, greater_is_better=True)
    assert two["body"] == pytest.approx(one["body"], abs=0.1)


def test_the_same_history_has_the_same_importances():
    first, second = (block_importances(history(), BLOCKS, greater_is_better=True) for _ in "12")
    assert first.equals(second)


def test_pruned_individuals_and_diverged_ones_do_not_spoil_the_order():
    frame = history()
    frame["score"] = 1 - frame["score"]
    frame.loc[:3, "score"] = math.inf
    frame.loc[4:6, ["state", "score"]] = ["pruned", 9.0]
    assert block_importances(frame, BLOCKS, greater_is_better=False).index[0] == "body"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"evaluator": "shap"}, "evaluator must be one of fanova, ped-anova, got 'shap'"),
        ({"history": history(9)}, "at least 10 individuals .* got 9; search with a larger budget"),
        ({"history": history(score=0.5)}, "all 40 individuals have the same score"),
    ],
)
def test_what_can_not_be_told_is_an_error(arguments, message):
    with pytest.raises(ConfigError, match=message):
        block_importances(
            **{"history": history(), "block_names": BLOCKS, "greater_is_better": True, **arguments}
        )
