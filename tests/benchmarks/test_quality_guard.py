"""The default search must not come to choose worse genotypes than it did, on real trainings.

Recorded once (`benchmarks/record_table.py`) and replayed by the real engine. If a change is meant
to choose otherwise, and better, run `benchmarks/replayed_search.py` again and commit what it
writes.
"""

import json

import pytest
import replay
import replayed_search
from table import Table

from hf_biotune import SearchConfig

SEEDS = range(60)


@pytest.fixture(scope="module")
def table():
    return Table.load(replay.TABLE)


@pytest.fixture(scope="module")
def before():
    return json.loads(replayed_search.RESULTS.read_text())["results"]


def worse_than_before(now, before):
    """What is wrong, or nothing; a standard error is free, for processors that round otherwise."""
    mean, error = before["regret"].values()
    regret = now["regret"]["mean"]
    if regret <= mean + error:
        return None
    return (
        f"the default search chose genotypes of mean regret {regret:.1f} %, before it was "
        f"{mean:.1f} % (standard error {error:.1f})"
    )


def test_the_default_search_chooses_no_worse_genotypes_than_before(table, before):
    now = replayed_search.summary(replayed_search.repeat("default", SEEDS, table))
    assert not (problem := worse_than_before(now, before["default"])), problem
    assert now["trainings"]["mean"] <= before["default"]["trainings"]["mean"] * 1.05


def test_the_guard_notices_a_search_that_chooses_at_random_among_few(table, before):
    poor = [
        replayed_search.replay(
            SearchConfig(
                budget=5, sampler="random", seeded_start=False, seed=seed, **replayed_search.PLAIN
            ),
            table,
        )
        for seed in SEEDS
    ]
    now = replayed_search.summary(poor)
    problem = worse_than_before(now, before["default"])
    assert f"{now['regret']['mean']:.1f} %" in problem
    assert f"{before['default']['regret']['mean']:.1f} %" in problem


def test_the_table_holds_150_genotypes_with_every_epoch_and_seed(table):
    assert len(table) >= 150
    assert table.recorded[:, :, table.part(replayed_search.ALL_DATA)].all()
