import copy
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from stranger_files import as_json, changed, damaged, not_json

from hf_biotune import BioTuneEnsemble
from hf_biotune.exceptions import CheckpointError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*holds fields that this version does not know"),
]

CONFIG = "ensemble_config.json"
PATHS = ("..", ".", "", "/etc", "../outside", "a/b", "a\\b", "C:", "a\0", "x" * 101, "\u202e", "é")


@pytest.fixture
def ensemble(stranger):
    """The stranger's adapter, twice, as an ensemble; and what loads it into a fresh base model."""
    together = BioTuneEnsemble.from_adapters(copy.deepcopy(stranger.base), [stranger.directory] * 2)
    together.save_pretrained(stranger.directory)

    def load():
        base = copy.deepcopy(stranger.base)
        if stranger.attempt(lambda: BioTuneEnsemble.from_pretrained(base, stranger.directory)):
            return
        for name, tensor in base.state_dict().items():
            assert torch.equal(tensor, stranger.base.state_dict()[name]), name
        assert all(parameter.requires_grad for parameter in base.parameters())
        assert all(module.training for module in base.modules())
        assert "peft_config" not in base.__dict__

    load()
    assert stranger.outcomes == {"accepted": 1}
    stranger.outcomes.clear()
    stranger.memory = 0
    return load


def load_all(stranger, load, name, files, number):
    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(files)
    def check(data):
        stranger.write(name, data)
        load()

    check()
    assert stranger.memory < 64 * 1024


def test_any_configuration_can_at_worst_raise(stranger, ensemble):
    valid = json.loads((stranger.directory / CONFIG).read_text())
    load_all(stranger, ensemble, CONFIG, changed(valid).map(as_json), 120)
    load_all(stranger, ensemble, CONFIG, not_json(), 60)
    assert stranger.refused >= 100


def test_damaged_configurations_and_members_can_at_worst_raise(stranger, ensemble):
    for name in (CONFIG, "member-1/adapter_config.json"):
        valid = (stranger.directory / name).read_bytes()
        load_all(stranger, ensemble, name, damaged(valid), 60)
        stranger.write(name, valid)
    weights = (stranger.directory / "member-1/adapter_model.safetensors").read_bytes()
    load_all(
        stranger, ensemble, "member-1/adapter_model.safetensors", damaged(weights, within=500), 60
    )
    assert stranger.refused >= 100


@pytest.mark.parametrize("path", PATHS)
def test_a_member_lies_beside_the_configuration(stranger, ensemble, path):
    config = json.loads((stranger.directory / CONFIG).read_text())
    config["members"][1]["name"] = path
    stranger.write(CONFIG, as_json(config))
    with pytest.raises(CheckpointError, match="a member must have a name of letters, digits"):
        BioTuneEnsemble.from_pretrained(copy.deepcopy(stranger.base), stranger.directory)


def test_a_member_that_is_a_link_to_elsewhere_is_refused(stranger, ensemble, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (stranger.directory / "member-1").rename(outside / "member-1")
    (stranger.directory / "member-1").symlink_to(outside / "member-1")
    with pytest.raises(CheckpointError, match="is a link that leads out of"):
        BioTuneEnsemble.from_pretrained(copy.deepcopy(stranger.base), stranger.directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format must be a number from 1 to 1, got 2; a later version"),
        ({"format": True}, "format must be a number from 1 to 1, got True"),
        ({"members": []}, "members must be a list of 1 to 100"),
        (
            {"members": [{"name": f"m{n}"} for n in range(101)]},
            "members must be a list of 1 to 100",
        ),
        ({"members": [{"name": "member-0"}] * 2}, "each member needs another name"),
        ({"members": ["member-0"]}, "got 'member-0'"),
        (
            {"members": [{"name": "member-0", "validation_score": "high"}]},
            "validation_score of 'member-0' must be a number or null, got 'high'",
        ),
    ],
)
def test_what_is_wrong_is_named(stranger, ensemble, change, message):
    config = json.loads((stranger.directory / CONFIG).read_text())
    stranger.write(CONFIG, as_json({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        BioTuneEnsemble.from_pretrained(copy.deepcopy(stranger.base), stranger.directory)
