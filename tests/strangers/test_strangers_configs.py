import json
import time
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stranger_files import EXPLODING, anything, as_json, changed, damaged, not_json

from hf_biotune import BioTuneConfig, BioTuneModel, Genotype
from hf_biotune.exceptions import ConfigError, GenotypeError
from hf_biotune.tune import read_config

pytestmark = pytest.mark.slow

NAME = "adapter_config.json"


def examples(number):
    """The same examples in every run, and no files of hypothesis' own."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def valid_config(stranger):
    return json.loads((stranger.directory / NAME).read_bytes())


def load_all(stranger, files, number):
    """Load a checkpoint with each of these as its configuration."""

    @examples(number)
    @given(files)
    def load(data):
        stranger.write(NAME, data)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* holds fields that this version")
            stranger.load()

    load()
    assert stranger.memory < 64 * 1024


def test_configs_that_are_no_json_or_no_config_can_at_worst_raise(stranger):
    load_all(stranger, not_json(), 1_200)
    assert stranger.refused == stranger.outcomes.total() == 1_200


def test_configs_with_changed_values_can_at_worst_raise(stranger):
    load_all(stranger, changed(valid_config(stranger)).map(as_json), 2_600)
    assert stranger.refused > 2_100
    assert stranger.outcomes["accepted"] > 0


def test_configs_with_damaged_bytes_can_at_worst_raise(stranger):
    load_all(stranger, damaged((stranger.directory / NAME).read_bytes()), 1_900)
    assert stranger.refused > 1_700


def test_config_classes_raise_nothing_else_either(stranger):
    values = valid_config(stranger)

    @examples(500)
    @given(st.sampled_from(sorted(values)), anything)
    def construct(field, value):
        stranger.attempt(lambda: BioTuneConfig(**{**values, field: value}))

    construct()
    assert stranger.refused > 200


def test_genotypes_raise_genotype_errors_only(stranger):
    values = {"importances": [0.3, 0.7], "freezing_threshold": 0.2}

    @examples(500)
    @given(st.one_of(anything, changed(values)))
    def construct(value):
        stranger.attempt(lambda: Genotype.from_dict(value))
        stranger.attempt(lambda: Genotype.from_json(json.dumps(value)))

    construct()
    assert set(stranger.outcomes) == {"GenotypeError", "accepted"}
    with pytest.raises(GenotypeError, match="not valid JSON"):
        Genotype.from_json("[" * 100_000)


def test_the_configuration_of_a_search_is_read_as_carefully(stranger):
    path = stranger.directory / "best_config.json"

    @examples(300)
    @given(st.one_of(not_json(), damaged(as_json(valid_config(stranger)))))
    def read(data):
        path.write_bytes(data)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* holds fields that this version")
            stranger.attempt(lambda: read_config(path))

    read()
    assert stranger.refused > 200


@pytest.mark.parametrize("pattern", EXPLODING)
@pytest.mark.parametrize("field", ["partition", "blocks"])
def test_a_regular_expression_in_a_file_is_never_matched(stranger, field, pattern):
    values = valid_config(stranger) | {"partition": None, field: {"body": [pattern]}}
    stranger.write(NAME, as_json(values))
    started = time.perf_counter()
    with pytest.raises(ConfigError, match="has no module or parameter of that name"):
        BioTuneModel.from_pretrained(stranger.base, stranger.directory)
    assert time.perf_counter() - started < 1


def test_fields_of_a_later_version_are_ignored_with_a_warning(stranger):
    stranger.write(NAME, as_json(valid_config(stranger) | {"rotation": 90, "self": 1, "cls": 2}))
    with pytest.warns(
        UserWarning, match=r"ignores: \['cls', 'rotation', 'self'\]; a later version"
    ):
        stranger.load()
    assert stranger.outcomes == {"accepted": 1}


@pytest.mark.parametrize("kind", ["LORA", "LN_TUNING", "HIRA"])
def test_the_config_of_another_method_is_refused_by_its_name(stranger, kind):
    stranger.write(NAME, as_json({"peft_type": kind, "r": 8}))
    message = f"peft_type must be 'BIOTUNE', got '{kind}'; load adapters of other methods with peft"
    for load in (
        lambda: BioTuneModel.from_pretrained(stranger.base, stranger.directory),
        lambda: BioTuneConfig.from_pretrained(stranger.directory),
        lambda: BioTuneConfig.from_peft_type(peft_type=kind, r=8),
        lambda: read_config(stranger.directory / NAME),
    ):
        with pytest.raises(ConfigError, match=message):
            load()


@pytest.mark.parametrize("library", ["antigravity", "os", "transformersx", 3, None, "tests.evil"])
def test_an_auto_mapping_can_not_make_peft_import_a_module(stranger, library):
    mapping = {"parent_library": library, "base_model_class": "system"}
    stranger.write(NAME, as_json(valid_config(stranger) | {"auto_mapping": mapping}))
    with pytest.raises(ConfigError, match="auto_mapping must name a module of transformers"):
        BioTuneModel.from_pretrained(stranger.base, stranger.directory)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"peft_type": "BIOTUNE", "lr_multipliers": {"a": 1, "a": 2}}', "'a' stands twice"),
        ('{"peft_type": "BIOTUNE", "lr_multipliers": {"a": NaN}}', "NaN is not a number"),
        ('{"peft_type": "BIOTUNE", "lr_multipliers": {"a": 1e999}}', "must be finite and greater"),
        ('{"peft_type": "BIOTUNE", "lr_multipliers": {"\\ud800": 1}}', "surrogates not allowed"),
        ('{"peft_type": "BIOTUNE", "inference_mode": 1}', "inference_mode must be true or false"),
        ('{"peft_type": "BIOTUNE", "task_type": "DANCE"}', "Invalid task type: 'DANCE'"),
        ('{"lr_multipliers": {"a": 1}}', "peft_type must be 'BIOTUNE', but it is missing"),
        ("[1]", r"must hold a JSON object, got \[1\]"),
        ("[" * 100_000, "nested too deeply"),
        (" " * 5_000_000, "longer than 4,194,304 bytes"),
        ("\N{LATIN SMALL LETTER E WITH ACUTE}", "not valid JSON in UTF-8"),
    ],
)
def test_what_is_wrong_with_a_config_is_said(stranger, text, message):
    stranger.write(NAME, text.encode("latin-1"))
    with pytest.raises(ConfigError, match=message):
        BioTuneConfig.from_pretrained(stranger.directory)
