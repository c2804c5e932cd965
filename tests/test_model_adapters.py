"""Several adapters on one base: swapped exactly, and what they can not do is said."""

from __future__ import annotations

import re

import pytest
import torch
from peft import LoraConfig, get_layer_status, get_model_status
from wrapped import (
    bert,
    images,
    logits,
    quiet_wrap,
    resnet,
    same,
    snapshot,
    train,
    tuned,
)

from hf_biotune import BioTuneConfig, BioTuneModel
from hf_biotune.exceptions import ConfigError


def two_adapters() -> BioTuneModel:
    model = tuned()
    model.add_adapter("b", BioTuneConfig(lr_multipliers={"stage0": 1.0, "stage1": 2.0}))
    return model


def test_a_new_adapter_starts_from_the_base_weights_and_is_not_active():
    model = two_adapters()
    first = logits(model)

    assert model.active_adapters == ["default"]
    model.set_adapter("b")
    assert torch.equal(logits(model), logits(resnet()))
    model.set_adapter("default")
    assert torch.equal(logits(model), first)


def test_adapters_are_trained_in_turn_and_swapped_exactly():
    model = two_adapters()
    first = snapshot(model.get_base_model())
    model.set_adapter("b")
    train(model)
    second = snapshot(model.get_base_model())

    model.set_adapter("default")
    assert same(snapshot(model.get_base_model()), first)
    model.set_adapter("b")
    assert same(snapshot(model.get_base_model()), second)
    with model.disable_adapter():
        assert same(snapshot(model.get_base_model()), snapshot(resnet()))


def test_each_adapter_trains_its_own_blocks_and_freezes_the_rest():
    model = two_adapters()
    blocks = model.base_model.partitions["default"]

    model.set_adapter("b")
    assert {blocks.block_of_parameter(n) for n, p in model.get_base_model().named_parameters() if
            p.requires_grad} == {"stage0", "stage1"}  # fmt: skip
    model.train()
    assert not model.get_base_model().classifier.training
    assert model.get_base_model().resnet.encoder.stages[0].training
    model.set_adapter("default", inference_mode=True)
    assert model.get_nb_trainable_parameters()[0] == 0


def test_only_tensors_of_trained_blocks_are_held_beside_the_model():
    model = two_adapters()
    tuner, blocks = model.base_model, model.base_model.partitions["default"]

    model.set_adapter("b")

    held = {block for name in tuner.base_tensors() for block in [block_of(blocks, name)]}
    assert held == {"stage0", "stage1", "head"}
    assert set(tuner.weights.aside) == {"default"}
    assert {block_of(blocks, name) for name in tuner.weights.aside["default"]} == {"stage1", "head"}


def block_of(blocks, name: str) -> str:
    return blocks.block_of_module(name.rpartition(".")[0])


def test_loading_under_a_name_swaps_as_if_it_were_alone(tmp_path):
    model, other = tuned(), quiet_wrap(resnet(), BioTuneConfig(lr_multipliers={"stem": 1.0}))
    train(other)
    other.save_pretrained(tmp_path)
    first = logits(model)

    model.load_adapter(tmp_path, adapter_name="b")

    assert torch.equal(logits(model), first)
    model.set_adapter("b")
    assert torch.equal(logits(model), logits(other))
    model.set_adapter("default")
    assert torch.equal(logits(model), first)


def test_adapters_of_different_partitions_live_on_one_base():
    model = tuned(bert)
    first = snapshot(model.get_base_model())
    model.add_adapter(
        "fine",
        BioTuneConfig(blocks={"low": r"bert\.encoder\.layer\.0", "up": "bert.pooler"},
                      lr_multipliers={"up": 1.0}),
    )  # fmt: skip
    model.set_adapter("fine")
    train(model)
    second = snapshot(model.get_base_model())

    model.set_adapter("default")
    assert same(snapshot(model.get_base_model()), first)
    model.set_adapter("fine")
    assert same(snapshot(model.get_base_model()), second)
    assert {s.name for s in get_layer_status(model)} == {
        "markers.layer1",
        "markers.head",
        "markers.up",
    }
    assert get_model_status(model).available_adapters == ["default", "fine"]


def test_deleting_the_active_adapter_makes_the_first_other_one_active():
    model = two_adapters()
    model.set_adapter("b")
    train(model)

    model.delete_adapter("b")

    assert model.active_adapter == "default"
    assert list(model.peft_config) == ["default"]
    assert {s.name for s in model.get_layer_status()} == {"markers.stage1", "markers.head"}
    assert torch.equal(logits(model), logits(tuned()))
    assert "stage0" not in {
        block_of(model.base_model.partitions["default"], n) for n in model.base_model.base_tensors()
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.set_adapter("c"), "no adapter is named 'c'; this model's adapters are"),
        (lambda m: m.set_adapter(["default", "b"]), "exactly one adapter can be active"),
        (lambda m: m.delete_adapter("c"), "no adapter is named 'c'"),
        (
            lambda m: m.add_adapter("b", BioTuneConfig(lr_multipliers={"head": 1.0})),
            "an adapter named 'b' exists already",
        ),
        (lambda m: m.add_adapter("c", LoraConfig()), "takes BioTuneConfig adapters only"),
        (lambda m: m.add_weighted_adapter(["default", "b"], [1, 1], "c"), "not possible"),
        (
            lambda m: m(images(2), adapter_names=["default", "b"]),
            "samples of one batch can't go through different adapters",
        ),
        (
            lambda m: m.generate(images(2), adapter_names=["default", "b"]),
            "samples of one batch can't go through different adapters",
        ),
        (lambda m: m.save_pretrained("x", selected_adapters=["c"]), "no adapter is named 'c'"),
        (lambda m: m.save_pretrained("x", safe_serialization=False), "only safetensors"),
    ],
)
def test_what_several_adapters_can_not_do_is_said(call, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        call(two_adapters())


def test_the_only_adapter_can_not_be_deleted():
    with pytest.raises(ConfigError, match=r"is the only adapter; call unload\(\)"):
        tuned().delete_adapter("default")


def test_adding_an_adapter_while_disabled_is_refused():
    model = tuned()
    with model.disable_adapter(), pytest.raises(ConfigError, match="inside disable_adapter"):
        model.add_adapter("b", BioTuneConfig(lr_multipliers={"head": 1.0}))


def test_merging_a_named_adapter_merges_that_one():
    model = two_adapters()
    model.set_adapter("b")
    train(model)
    expected = logits(model)
    model.set_adapter("default")

    assert torch.equal(logits(model.merge_and_unload(adapter_names=["b"])), expected)
