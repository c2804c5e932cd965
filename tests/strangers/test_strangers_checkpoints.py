import json
import os
import struct

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import PeftModel
from safetensors.torch import load_file, save_file
from stranger_files import (
    as_json,
    damaged,
    join_safetensors,
    lying_safetensors,
    other_tensors,
    split_safetensors,
    wrong_length,
)

from hf_biotune import BioTuneModel
from hf_biotune.exceptions import CheckpointError

pytestmark = pytest.mark.slow

NAME = "adapter_model.safetensors"


def valid_weights(stranger):
    return (stranger.directory / NAME).read_bytes()


def load_all(stranger, files, number=300):
    @settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(files)
    def load(data):
        stranger.write(NAME, data)
        stranger.load()

    load()
    assert stranger.memory < 64 * 1024
    assert set(stranger.outcomes) <= {"CheckpointError", "accepted"}


def test_weights_that_are_cut_or_garbage_can_at_worst_raise(stranger):
    valid = valid_weights(stranger)
    cut = st.integers(0, len(valid) - 1).map(lambda length: valid[:length])
    padded = st.binary(min_size=1, max_size=100).map(lambda more: valid + more)
    load_all(stranger, st.one_of(cut, padded, st.binary(max_size=500)))
    assert stranger.refused == stranger.outcomes.total() >= 200


def test_weights_with_damaged_bytes_can_at_worst_raise(stranger):
    valid = valid_weights(stranger)
    load_all(stranger, damaged(valid, within=8 + struct.unpack("<Q", valid[:8])[0]))
    assert stranger.refused >= 200


def test_a_header_that_lies_can_at_worst_raise(stranger):
    load_all(stranger, lying_safetensors(valid_weights(stranger)))
    assert stranger.refused >= 200


def test_a_header_of_another_length_than_announced_can_at_worst_raise(stranger):
    load_all(stranger, wrong_length(valid_weights(stranger)))
    assert stranger.refused == stranger.outcomes.total() >= 100


def test_sound_weights_of_another_model_can_at_worst_raise(stranger):
    load_all(stranger, other_tensors(valid_weights(stranger)))
    assert stranger.refused == stranger.outcomes.total() >= 100


def test_damaged_values_change_the_values_and_nothing_else(stranger):
    """What a sound file holds is for the stranger to choose: these load, NaN and all."""
    tensors = load_file(stranger.directory / NAME)
    save_file(
        {name: torch.full_like(t, 7) for name, t in tensors.items()}, stranger.directory / NAME
    )
    model = BioTuneModel.from_pretrained(stranger.base, stranger.directory)
    assert all((tensor == 7).all() for tensor in model.biotune_state_dict().values())
    assert not any((p == 7).any() for p in model.base_model.model["head"].parameters())


@pytest.mark.parametrize("announced", [2**20, 100_000_000, 2**40, 2**63, 2**64 - 1])
def test_a_header_of_absurd_size_is_refused_before_it_is_read(stranger, announced):
    path = stranger.directory / NAME
    path.write_bytes(struct.pack("<Q", announced) + b"{")
    os.truncate(path, 2**40)  # a sparse file: a terabyte that takes no room
    with pytest.raises(CheckpointError, match="can't be read as safetensors"):
        BioTuneModel.from_pretrained(stranger.base, stranger.directory)
    stranger.load()
    assert stranger.memory < 64 * 1024


def test_a_header_full_of_tensors_is_refused_before_it_is_read(stranger):
    header, tensors = split_safetensors(valid_weights(stranger))
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header |= {f"x{index}": empty for index in range(100_000)}
    stranger.write(NAME, join_safetensors(as_json(header), tensors))
    with pytest.raises(CheckpointError, match="announces a header of"):
        BioTuneModel.from_pretrained(stranger.base, stranger.directory)


def test_names_outside_of_the_declared_blocks_are_named(stranger):
    tensors = load_file(stranger.directory / NAME)
    tensors["base_model.model.head.weight"] = torch.zeros(2, 4)
    save_file(tensors, stranger.directory / NAME)
    with pytest.raises(CheckpointError, match=r"missing none, unexpected 'head\.weight'"):
        BioTuneModel.from_pretrained(stranger.base, stranger.directory)
    stranger.load()
    assert stranger.refused == 1


def test_two_names_for_one_tensor_are_refused(stranger):
    tensors = load_file(stranger.directory / NAME)
    tensors["body.bias"] = torch.zeros(4)  # the same without PEFT's prefix
    save_file(tensors, stranger.directory / NAME)
    with pytest.raises(CheckpointError, match=r"are 'body\.bias' in the base model; drop one"):
        BioTuneModel.from_pretrained(stranger.base, stranger.directory)


def test_long_names_meet_no_regular_expression(stranger):
    tensors = load_file(stranger.directory / NAME)
    tensors["a" * 501] = torch.zeros(1)
    save_file(tensors, stranger.directory / NAME)
    with pytest.raises(CheckpointError, match="a tensor's name may have 500 characters"):
        BioTuneModel.from_pretrained(
            stranger.base, stranger.directory, key_mapping={"(a|aa)+b": "body"}
        )


@pytest.mark.parametrize("name", ["adapter_model.bin", "pytorch_model.bin", "adapter_model.pt"])
def test_a_pickle_beside_or_instead_of_the_weights_is_not_opened(stranger, name):
    stranger.write(name, b"\x80\x04cposix\nsystem\n(S'false'\ntR.")
    stranger.load()
    (stranger.directory / NAME).unlink()
    stranger.load()
    assert stranger.outcomes == {"accepted": 1, "CheckpointError": 1}


def test_peft_s_own_loader_opens_no_pickle_of_ours_either(stranger):
    (stranger.directory / NAME).unlink()
    stranger.write("adapter_model.bin", b"\x80\x04cposix\nsystem\n(S'false'\ntR.")
    with pytest.raises(CheckpointError, match=r"no adapter_model\.safetensors in"):
        PeftModel.from_pretrained(stranger.base, stranger.directory)


def test_a_pickle_that_calls_itself_safetensors_is_not_opened(stranger):
    stranger.write(NAME, b"\x80\x04cposix\nsystem\n(S'false'\ntR.")
    stranger.load()
    assert stranger.outcomes == {"CheckpointError": 1}


@pytest.mark.parametrize("what", ["directory", "pipe", "missing"])
def test_weights_that_are_no_file_are_refused(stranger, what):
    path = stranger.directory / NAME
    path.unlink()
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)  # reading it would wait forever
    stranger.load()
    assert stranger.outcomes == {"CheckpointError": 1}


@pytest.mark.parametrize(
    "subfolder",
    ["..", "../..", "a/../..", "/etc", "C:\\x", "C:x", "a\\b", "..\\..", "a\0b", "//host/x", 3, []],
)
def test_a_subfolder_that_leaves_the_checkpoint_is_refused(stranger, subfolder):
    with pytest.raises(CheckpointError, match="subfolder must"):
        BioTuneModel.from_pretrained(stranger.base, stranger.directory, subfolder=subfolder)


def test_a_subfolder_that_links_out_of_the_checkpoint_is_refused(stranger, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    for path in stranger.directory.iterdir():
        (outside / path.name).write_bytes(path.read_bytes())
    (stranger.directory / "best").symlink_to(outside)
    with pytest.raises(CheckpointError, match="'best' is a link that leads out of"):
        BioTuneModel.from_pretrained(stranger.base, stranger.directory, subfolder="best")


def test_any_subfolder_can_at_worst_raise(stranger):
    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(st.text(max_size=300))
    def load(subfolder):
        stranger.load(subfolder=subfolder)

    load()
    assert set(stranger.outcomes) <= {"CheckpointError", "accepted"}


def test_metadata_in_the_header_is_not_believed(stranger):
    header, tensors = split_safetensors(valid_weights(stranger))
    header["__metadata__"] = {"format": "tf", "hf_biotune": json.dumps({"lr_multipliers": [1]})}
    stranger.write(NAME, join_safetensors(as_json(header), tensors))
    stranger.load()
    assert stranger.outcomes.total() == 1


def test_a_second_adapter_from_a_stranger_leaves_the_first_alone(stranger):
    model = BioTuneModel.from_pretrained(stranger.base, stranger.directory, is_trainable=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stranger.write(NAME, valid_weights(stranger)[:-4])
    for name in ("default", "second"):
        with pytest.raises(CheckpointError):
            model.load_adapter(stranger.directory, adapter_name=name, is_trainable=True)
    assert list(model.peft_config) == ["default"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.get_nb_trainable_parameters()[0] == 60
