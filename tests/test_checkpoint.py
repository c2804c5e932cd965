"""The adapter file: trained blocks with their buffers, complete or not at all."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest
import torch
import wrapped
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from wrapped import (
    LAST_TWO,
    logits,
    quiet_wrap,
    resnet,
    same,
    snapshot,
    train,
)

from hf_biotune import BioTuneConfig, BioTuneModel
from hf_biotune.checkpoint import HEADER_KEY, WEIGHTS_NAME, write_adapter
from hf_biotune.exceptions import CheckpointError

tuned = partial(wrapped.tuned, rate=0.5)


@pytest.mark.parametrize("make", LAST_TWO, ids=lambda make: make.__name__)
def test_what_is_saved_and_loaded_is_the_tuned_model_bit_for_bit(make, tmp_path):
    model = tuned(make)

    model.save_pretrained(tmp_path)
    loaded = BioTuneModel.from_pretrained(make(), tmp_path)

    assert same(snapshot(loaded), snapshot(model))
    assert torch.equal(logits(loaded), logits(model))
    assert loaded.peft_config["default"].lr_multipliers == dict.fromkeys(LAST_TWO[make], 0.5)


def test_the_file_holds_the_trained_blocks_with_their_statistics_and_nothing_else(tmp_path):
    model = tuned()
    model.save_pretrained(tmp_path)

    keys = set(load_file(tmp_path / WEIGHTS_NAME))

    prefixes = ("base_model.model.resnet.encoder.stages.1.", "base_model.model.classifier.")
    assert keys == {name for name in model.state_dict() if name.startswith(prefixes)}
    assert any(key.endswith("running_mean") for key in keys)
    assert {p.name for p in tmp_path.iterdir()} == {
        WEIGHTS_NAME,
        "adapter_config.json",
        "README.md",
    }


def test_the_header_says_blocks_and_rates(tmp_path):
    tuned(norm_statistics="frozen").save_pretrained(tmp_path)

    with safe_open(tmp_path / WEIGHTS_NAME, framework="pt") as file:
        header = json.loads(file.metadata()[HEADER_KEY])

    assert header["lr_multipliers"] == {"stage1": 0.5, "head": 0.5}
    assert header["norm_statistics"] == "frozen"


def test_a_loaded_model_is_for_inference_unless_asked_otherwise(tmp_path):
    tuned().save_pretrained(tmp_path)

    loaded = BioTuneModel.from_pretrained(resnet(), tmp_path)
    trainable = BioTuneModel.from_pretrained(resnet(), tmp_path, is_trainable=True)

    assert not loaded.training
    assert loaded.get_nb_trainable_parameters()[0] == 0
    assert trainable.get_nb_trainable_parameters()[0] > 0
    train(trainable)


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path):
    model = tuned()
    model.save_pretrained(tmp_path)
    loaded = BioTuneModel.from_pretrained(resnet(), tmp_path, is_trainable=True)

    train(model)
    train(loaded)

    assert same(snapshot(loaded), snapshot(model))


def test_adapters_go_into_subfolders_of_their_names(tmp_path):
    model = tuned()
    expected = logits(model)
    model.add_adapter("b", BioTuneConfig(lr_multipliers={"stage0": 1.0}))
    model.set_adapter("b")
    train(model)

    model.save_pretrained(tmp_path)

    first = BioTuneModel.from_pretrained(resnet(), tmp_path)
    second = BioTuneModel.from_pretrained(resnet(), tmp_path, subfolder="b")
    assert torch.equal(logits(first), expected)
    assert torch.equal(logits(second), logits(model))


def test_selected_adapters_only_are_saved(tmp_path):
    model = tuned()
    model.add_adapter("b", BioTuneConfig(lr_multipliers={"stage0": 1.0}))

    model.save_pretrained(tmp_path, selected_adapters=["b"])

    assert (tmp_path / "b" / WEIGHTS_NAME).exists()
    assert not (tmp_path / WEIGHTS_NAME).exists()


def test_other_processes_than_the_main_one_write_nothing(tmp_path):
    tuned().save_pretrained(tmp_path / "out", is_main_process=False)

    assert not (tmp_path / "out").exists()


def test_a_gathered_state_dict_is_saved_instead_of_the_models_own(tmp_path):
    model = tuned()
    gathered = {name: value + 1 for name, value in model.state_dict().items()}

    model.save_pretrained(tmp_path, state_dict=gathered)

    written = load_file(tmp_path / WEIGHTS_NAME)
    assert written
    assert all(torch.equal(value, gathered[name]) for name, value in written.items())


def test_keys_of_an_older_architecture_are_mapped(tmp_path):
    model = tuned()
    model.save_pretrained(tmp_path)
    old = load_file(tmp_path / WEIGHTS_NAME)
    save_file(
        {name.replace("classifier.", "fully.connected."): v for name, v in old.items()},
        tmp_path / WEIGHTS_NAME,
    )

    with pytest.raises(CheckpointError, match="missing 'classifier"):
        BioTuneModel.from_pretrained(resnet(), tmp_path)
    loaded = BioTuneModel.from_pretrained(
        resnet(), tmp_path, key_mapping={r"fully\.connected\.": "classifier."}
    )
    assert torch.equal(logits(loaded), logits(model))


def test_arguments_of_peft_are_taken(tmp_path):
    model = tuned()
    model.save_pretrained(tmp_path)

    loaded = BioTuneModel.from_pretrained(
        resnet(),
        tmp_path,
        low_cpu_mem_usage=True,
        torch_device="cpu",
        autocast_adapter_dtype=False,
        revision=None,
        cache_dir=None,
    )

    assert torch.equal(logits(loaded), logits(model))


def test_a_single_precision_adapter_is_loaded_into_a_half_precision_model(tmp_path):
    model = tuned()
    model.save_pretrained(tmp_path)

    loaded = BioTuneModel.from_pretrained(resnet().bfloat16(), tmp_path)

    assert same(snapshot(loaded), snapshot(model.bfloat16()))


def test_tied_weights_are_saved_once_and_stay_tied(tmp_path):
    class Tied(nn.Sequential):
        def __init__(self) -> None:
            torch.manual_seed(0)
            super().__init__(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 2))
            self[2].weight = self[0].weight

    config = BioTuneConfig(blocks={"a": ["0", "2"], "b": "3"}, lr_multipliers={"a": 1.0})
    model = quiet_wrap(Tied(), config)
    with torch.no_grad():
        model.get_base_model()[0].weight.add_(1)

    model.save_pretrained(tmp_path)
    loaded = BioTuneModel.from_pretrained(Tied(), tmp_path).get_base_model()

    assert loaded[2].weight is loaded[0].weight
    assert torch.equal(loaded[2].weight, model.get_base_model()[2].weight)


def test_a_failed_write_leaves_the_older_file_whole(tmp_path, monkeypatch):
    model = tuned()
    model.save_pretrained(tmp_path)
    before = (tmp_path / WEIGHTS_NAME).read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("hf_biotune.checkpoint.os.replace", fail)
    train(model)
    with pytest.raises(OSError, match="disk full"):
        write_adapter(tmp_path, model.biotune_state_dict(), model.peft_config["default"])

    assert (tmp_path / WEIGHTS_NAME).read_bytes() == before
    assert {p.name for p in tmp_path.glob("adapter_model*")} == {WEIGHTS_NAME}


def test_loading_over_an_adapter_of_other_blocks_names_both(tmp_path):
    tuned(resnet, "stage0", "head").save_pretrained(tmp_path)
    model = tuned(resnet, "stage1", "head")
    before = snapshot(model)

    message = "['head', 'stage0'], but adapter 'default' the blocks ['head', 'stage1']"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        model.load_adapter(tmp_path)

    assert same(snapshot(model), before)


def test_weights_of_another_shape_are_refused_and_the_model_is_as_before(tmp_path):
    tuned().save_pretrained(tmp_path)
    other = resnet()
    other.classifier[1] = nn.Linear(16, 5)
    before, modes = snapshot(other), [m.training for m in other.modules()]

    with pytest.raises(CheckpointError, match="with the same number of labels"):
        BioTuneModel.from_pretrained(other, tmp_path)

    assert same(snapshot(other), before)
    assert [m.training for m in other.modules()] == modes
    assert not hasattr(other, "peft_config")
    assert all(p.requires_grad for p in other.parameters())


def test_a_new_adapter_whose_weights_can_not_be_read_is_not_kept(tmp_path):
    tuned().save_pretrained(tmp_path)
    (tmp_path / WEIGHTS_NAME).unlink()
    model = tuned()

    with pytest.raises(CheckpointError, match=WEIGHTS_NAME):
        model.load_adapter(tmp_path, "b")

    assert list(model.peft_config) == ["default"]


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        BioTuneModel.from_pretrained(resnet(), tmp_path / "nowhere")


def test_a_file_is_no_directory_to_save_to(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match="is a file"):
        tuned().save_pretrained(tmp_path / "file")


def test_the_card_is_written_once_and_kept_up_to_date(tmp_path):
    model = tuned()
    model.create_or_update_model_card(str(tmp_path))
    card = (tmp_path / "README.md").read_text()

    assert "library_name: hf_biotune" in card
    assert "stage1" in card
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == card
