from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_biotune import Genotype
from hf_biotune.exceptions import GenotypeError
from hf_biotune.genotype import importance_of, lr_multiplier

genes = st.floats(0, 1)
genotypes = st.builds(
    Genotype, st.lists(genes, min_size=1, max_size=20).map(tuple), freezing_threshold=genes
)
NAMES = ["stem", "layer1", "head"]


@pytest.mark.parametrize(("gene", "multiplier"), [(0, 0.1), (0.25, 10**-0.5), (0.5, 1), (1, 10)])
def test_multiplier_is_ten_to_twice_the_distance_from_one_half(gene, multiplier):
    assert lr_multiplier(gene) == pytest.approx(multiplier, rel=1e-15)


@given(st.floats(0.1, 10))
def test_importance_of_inverts_the_multiplier(multiplier):
    assert lr_multiplier(importance_of(multiplier)) == pytest.approx(multiplier)


@pytest.mark.parametrize("multiplier", [0.09, 10.1, math.nan, -1])
def test_no_gene_reaches_a_multiplier_outside_of_a_tenth_to_ten(multiplier):
    with pytest.raises(GenotypeError, match=r"multipliers in \[0.1, 10.0\], got"):
        importance_of(multiplier)


def test_a_block_trains_only_if_its_gene_exceeds_the_threshold():
    genotype = Genotype((0.3, 0.30001, 1.0), 0.3)
    assert genotype.selected == (False, True, True)
    assert list(genotype.decode(NAMES)) == ["layer1", "head"]


def test_a_genotype_that_selects_nothing_is_invalid_and_says_so():
    genotype = Genotype((0.2, 0.2, 0.2), 0.2)
    assert not genotype.is_valid
    with pytest.raises(GenotypeError, match=r"no block is trained.*freezing_threshold 0.2"):
        genotype.decode(NAMES)


def test_decoding_for_another_number_of_blocks_names_them():
    with pytest.raises(GenotypeError, match="1 importance genes but the partition has 3 blocks"):
        Genotype((0.5,), 0.1).decode(NAMES)


@pytest.mark.parametrize(
    ("importances", "threshold", "message"),
    [
        ((0.5,), 1.3, r"freezing_threshold must be in \[0, 1\], got 1.3"),
        ((0.5, -0.1), 0.2, r"importances\[1\] must be in \[0, 1\], got -0.1"),
        ((math.nan,), 0.2, r"importances\[0\] must be in \[0, 1\], got nan"),
        (("0.5",), 0.2, r"importances\[0\] must be a number in \[0, 1\], got '0.5'"),
        ((True,), 0.2, r"importances\[0\] must be a number"),
        ((), 0.2, "at least one importance gene"),
    ],
)
def test_genes_out_of_range_are_refused(importances, threshold, message):
    with pytest.raises(GenotypeError, match=message):
        Genotype(importances, threshold)


@given(genotypes)
def test_json_and_array_round_trips_are_exact(genotype):
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert Genotype.from_array(genotype.to_array()) == genotype
    assert Genotype.from_json(genotype.to_json()).key == genotype.key


def test_the_next_float_makes_another_genotype_with_another_key():
    first = Genotype((0.5,), 0.1)
    second = Genotype((math.nextafter(0.5, 1),), 0.1)
    assert first != second
    assert first.key != second.key


def test_negative_zero_is_zero():
    assert Genotype((-0.0, 1.0), 0.0).key == Genotype((0.0, 1.0), 0.0).key


def test_the_key_is_the_same_in_another_process():
    code = "from hf_biotune import Genotype; print(Genotype((0.25, 0.75), 0.5).key)"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert other.stdout.strip() == Genotype((0.25, 0.75), 0.5).key == "00d97b36a8651608"


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_random_genotypes_are_valid_and_reproducible(n_blocks, seed):
    first = Genotype.random(n_blocks, np.random.default_rng(seed))
    assert first.is_valid
    assert len(first) == n_blocks
    assert first == Genotype.random(n_blocks, np.random.default_rng(seed))


def test_from_multipliers_decodes_to_them():
    wanted = {"layer1": 0.2, "head": 5.0}
    decoded = Genotype.from_multipliers(wanted, NAMES).decode(NAMES)
    assert decoded == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("multipliers", "message"),
    [
        ({"layer9": 1.0}, "no block is named 'layer9'; this model's blocks are: stem, layer1"),
        ({}, "at least one block"),
        ({"head": 0.1}, "must be greater than 0.1"),
    ],
)
def test_from_multipliers_refuses_what_no_genotype_decodes_to(multipliers, message):
    with pytest.raises(GenotypeError, match=message):
        Genotype.from_multipliers(multipliers, NAMES)


@pytest.mark.parametrize("text", ["", "[1]", "{}", '{"importances": 3, "freezing_threshold": 0}'])
def test_json_that_holds_no_genotype_is_refused(text):
    with pytest.raises(GenotypeError):
        Genotype.from_json(text)


@pytest.mark.parametrize(
    ("importances", "threshold", "selected"),
    [
        ((0.2, 0.7, 0.4), 0.9, (False, True, False)),
        ((0.2, 0.7, 0.7), 0.7, (False, True, True)),
        ((0.0, 0.0), 0.0, (True, False)),
        ((1.0,), 1.0, (True,)),
    ],
)
def test_a_genotype_that_trains_nothing_is_repaired_to_train_its_most_important_block(
    importances, threshold, selected
):
    genotype = Genotype(importances, threshold)
    assert not genotype.is_valid
    assert genotype.repaired().selected == selected
    assert genotype.repaired().importances == pytest.approx(importances)


def test_a_genotype_that_trains_a_block_needs_no_repair():
    genotype = Genotype((0.2, 0.7), 0.5)
    assert genotype.repaired() is genotype
