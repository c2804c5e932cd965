import math

import pandas as pd
from report_examples import WINNER, make_comparison, make_data, make_history, make_partition

from hf_biotune.report.summary import census, find_winner, generations, headline, winner_of

MINUS = "\N{MINUS SIGN}"
FOUND = "BioTune trains 4 of 9 blocks (64.6 % of the parameters)"


def test_a_win_names_both_rivals_with_their_scores_and_the_gain():
    result = headline(make_data())
    assert result.sentence == (
        f"{FOUND} and scores 0.953 macro accuracy on the test set: "
        "better than full fine-tuning (0.922, +0.031) and "
        "better than the linear probe (0.768, +0.185)."
    )
    assert result.note == "Means over 2 seeds."


def test_a_loss_is_called_a_loss():
    result = headline(make_data(comparison=make_comparison((0.91,), (0.931,), (0.769,))))
    assert f"worse than full fine-tuning (0.931, {MINUS}0.021)" in result.sentence
    assert "better than the linear probe (0.769, +0.141)" in result.sentence
    assert result.note.startswith("One seed per method: the spread between seeds is unknown")


def test_a_tie_is_called_a_tie():
    result = headline(make_data(comparison=make_comparison((0.9312,), (0.9309,), (0.769,))))
    assert "level with full fine-tuning (0.931, ±0.000)" in result.sentence


def test_a_gain_within_the_spread_of_seeds_is_not_called_better():
    comparison = make_comparison((0.93, 0.95), (0.92, 0.94), (0.769, 0.771))
    result = headline(make_data(comparison=comparison))
    assert "within seed noise of full fine-tuning (0.930, +0.010)" in result.sentence
    assert "no greater than the pooled standard deviation between seeds" in result.note


def test_where_lower_is_better_a_negative_difference_is_a_win():
    comparison = make_comparison((0.2,), (0.3,), (0.1,))
    result = headline(make_data(comparison=comparison, metric="loss", greater_is_better=False))
    assert f"better than full fine-tuning (0.300, {MINUS}0.100)" in result.sentence
    assert "worse than the linear probe (0.100, +0.100)" in result.sentence
    assert result.note.endswith("Lower is better.")


def test_the_best_of_all_other_rivals_is_never_left_out():
    others = (
        make_comparison()
        .iloc[[0, 0]]
        .assign(method=["L2-SP", "LoRA"], test_scores=[[0.97, 0.99], [0.5, 0.6]])
    )
    comparison = pd.concat([make_comparison(), others])
    sentence = headline(make_data(comparison=comparison)).sentence
    assert sentence.endswith(f" and worse than L2-SP (0.980, {MINUS}0.027).")
    assert "LoRA" not in sentence


def test_without_a_comparison_the_validation_score_is_all_there_is():
    result = headline(make_data(comparison=None))
    assert result.sentence == f"{FOUND}; the search scored it 0.931 validation macro accuracy."
    assert result.note.startswith("There was no comparison on a test set")


def test_a_comparison_in_which_biotune_has_no_score_makes_no_claim():
    comparison = make_comparison((math.nan,), (0.9,), (0.8,))
    assert "test set:" not in headline(make_data(comparison=comparison)).sentence


def test_unequal_numbers_of_seeds_are_told():
    comparison = make_comparison((0.95, 0.96, math.nan), (0.9,), (0.8, 0.8, 0.8))
    assert headline(make_data(comparison=comparison)).note == "Means over 1 to 3 seeds."


def test_best_and_median_leave_out_pruned_and_failed_individuals():
    history = make_history(make_partition(), n_generations=1, size=5)
    history["score"] = [0.1, 0.2, 0.4, 0.9, math.nan]
    history["state"] = ["complete", "reused", "complete", "pruned", "failed"]
    (summary,) = generations(history, greater_is_better=True)
    assert (summary.individuals, summary.scored) == (5, 3)
    assert (summary.best, summary.median) == (0.4, 0.2)
    (summary,) = generations(history, greater_is_better=False)
    assert summary.best == 0.1


def test_generations_are_summed_up_for_each_fold_apart():
    history = make_history(make_partition(), n_generations=1, size=4)
    history["fold"], history["score"] = [0, 0, 1, 1], [0.1, 0.3, 0.7, 0.9]
    assert [(s.fold, s.best) for s in generations(history, True)] == [(0, 0.3), (1, 0.9)]


def test_the_winner_is_found_at_its_first_evaluation_that_has_a_score():
    partition = make_partition()
    history = make_history(partition, winner=WINNER)
    assert find_winner(history, partition.names, WINNER) == 29
    again = pd.concat([history.iloc[[29]].assign(state="failed", score=math.nan), history])
    assert find_winner(again, partition.names, WINNER) == 30
    assert find_winner(history, partition.names, {"stem": 1.0}) is None


def test_the_census_counts_every_state():
    history = make_history(make_partition())
    history.loc[:2, "state"] = "pruned"
    history.loc[3, "state"] = "failed"
    assert census(history) == ("40 individuals in 4 generations: 36 complete, 1 failed, 3 pruned.")
    assert census(history.iloc[:1]) == "1 individual in 1 generation: 1 pruned."


def test_other_forms_of_our_own_are_no_rivals():
    together = (
        make_comparison()
        .iloc[[0]]
        .assign(method="BioTune ensemble of 3", test_scores=[[0.99]], weights="kept")
    )
    comparison = pd.concat([make_comparison(), together])
    assert headline(make_data(comparison=comparison)) == headline(make_data())


def test_the_headline_is_the_mean_over_the_seeds_of_the_finalist():
    data = make_data(comparison=None)
    row = data.history.iloc[winner_of(data)]
    finalists = pd.DataFrame(
        {
            "trial": [int(row["trial"])],
            "scores": [[float(row["score"]), 0.25, 0.25]],
            "trained_parameters": [1],
            "in_contention": [True],
            "winner": [True],
        }
    )
    mean = (float(row["score"]) + 0.5) / 3
    sentence = headline(make_data(comparison=None, finalists=finalists)).sentence
    assert f"the search scored it {mean:.3f} validation macro accuracy" in sentence
