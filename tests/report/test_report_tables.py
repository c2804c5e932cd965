from report_examples import make_comparison, make_data

from hf_biotune.report import comparison_markdown
from hf_biotune.report.tables import winner_rows, winner_total

DASH, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"


def test_markdown_of_two_seeds_gives_mean_interval_and_n():
    lines = comparison_markdown(make_comparison()).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == [
        "Method",
        "Test score",
        "Validation score",
        "Trained parameters",
        "Share",
        "Learning rate",
        "Final training",
        "Search",
    ]
    assert cells[2] == [
        "linear probe",
        "0.768 ± 0.019 (95 %, n = 2)",
        "0.758 ± 0.019 (95 %, n = 2)",
        "12,810",
        "0.4 %",
        "0.001",
        "31 s",
        DASH,
    ]
    assert cells[4] == [
        "BioTune",
        "0.953 ± 0.025 (95 %, n = 2)",
        "0.943 ± 0.025 (95 %, n = 2)",
        "2,332,632",
        "64.6 %",
        "0.001",
        "1 min 11 s",
        "12 min 10 s, 40.0 trainings",
    ]
    assert len({len(line) for line in lines}) == 1


def test_markdown_of_one_seed_gives_no_interval():
    table = comparison_markdown(make_comparison((0.95,), (0.92,), (0.77,)))
    assert "±" not in table
    assert "0.950 (n = 1)" in table


def test_a_method_can_not_break_out_of_the_markdown_table():
    comparison = make_comparison()
    comparison.loc[0, "method"] = "a|b\n<b>`c"
    row = comparison_markdown(comparison).splitlines()[2]
    assert row.startswith(r"| a\|b &lt;b>\`c ")


def test_the_winners_rows_give_multiplier_and_rate_or_frozen():
    rows = winner_rows(make_data())
    assert [row.block for row in rows if row.multiplier is None] == [
        "stem",
        "stage0",
        "stage4",
        "stage6",
        "head",
    ]
    stage5 = rows[6]
    assert (stage5.block, stage5.parameters, stage5.share) == ("stage5", "2,026,348", "56.1 %")
    assert (stage5.multiplier, stage5.rate) == (f"{TIMES}8", "0.008")
    assert (rows[0].rate, rows[0].colour) == (None, None)


def test_the_total_is_what_the_winner_trains():
    total = winner_total(make_data())
    assert (total.parameters, total.share) == ("2,332,632", "64.6 %")


def test_without_a_numeric_base_rate_there_are_no_rates():
    for facts in ({}, {"base learning rate": "about 1e-3"}, {"base learning rate": "nan"}):
        assert all(row.rate is None for row in winner_rows(make_data(facts=facts)))
