"""transformers' own `load_adapter`, `add_adapter` and auto classes with our adapters."""

from __future__ import annotations

import re

import peft
import pytest
import torch
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils.import_utils import is_peft_greater_or_equal
from wrapped import bert, logits, quiet_wrap, resnet, same, snapshot, train

from hf_biotune import BioTuneConfig, BioTuneModel
from hf_biotune.exceptions import ConfigError

needs_recent_peft = pytest.mark.skipif(
    not is_peft_greater_or_equal(MIN_PEFT_VERSION),
    reason=f"transformers' own adapter methods need peft >= {MIN_PEFT_VERSION}",
)


def saved(make, directory, *blocks: str, **kwargs) -> torch.Tensor:
    """Write a base model and a tuned adapter to it; the adapter's logits."""
    make().save_pretrained(directory / "base")
    model = quiet_wrap(
        type(make()).from_pretrained(directory / "base"),
        BioTuneConfig(lr_multipliers=dict.fromkeys(blocks, 1.0), **kwargs),
    )
    train(model)
    model.save_pretrained(directory / "adapter")
    return logits(model)


@needs_recent_peft
@pytest.mark.parametrize("make", [resnet, bert])
def test_load_adapter_of_a_transformers_model_opens_one(tmp_path, make):
    expected = saved(make, tmp_path, "head", *(["stage1"] if make is resnet else ["layer1"]))
    model = type(make()).from_pretrained(tmp_path / "base")

    info = model.load_adapter(tmp_path / "adapter")

    assert (info.missing_keys, info.unexpected_keys) == (set(), set())
    assert torch.equal(logits(model), expected)
    assert model.active_adapters() == ["default"]
    assert not any(p.requires_grad for p in model.parameters())


@needs_recent_peft
def test_auto_model_opens_an_adapter_directory(tmp_path):
    expected = saved(resnet, tmp_path, "stage1", "head")

    model = AutoModelForImageClassification.from_pretrained(tmp_path / "adapter")

    assert torch.equal(logits(model), expected)
    assert not model.training


@needs_recent_peft
def test_auto_model_opens_one_with_a_task_type(tmp_path):
    expected = saved(bert, tmp_path, "layer1", "head", task_type="SEQ_CLS")

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter", num_labels=3)

    assert torch.equal(logits(model), expected)


def injected(tmp_path, **kwargs):
    expected = saved(resnet, tmp_path, "stage1", "head")
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    model.load_adapter(tmp_path / "adapter", **kwargs)
    return model, expected


@needs_recent_peft
def test_an_injected_adapter_is_disabled_and_enabled_exactly(tmp_path):
    model, expected = injected(tmp_path)

    model.disable_adapters()
    assert torch.equal(logits(model), logits(resnet()))
    model.enable_adapters()
    assert torch.equal(logits(model), expected)
    model.set_adapter("default")
    assert torch.equal(logits(model), expected)


@needs_recent_peft
def test_an_injected_adapter_adds_no_tensor(tmp_path):
    model, _ = injected(tmp_path)

    assert set(model.state_dict()) == set(resnet().state_dict())


@needs_recent_peft
def test_an_injected_adapter_trains_its_blocks_only_and_frozen_means_frozen(tmp_path):
    model, _ = injected(tmp_path, is_trainable=True)
    before = snapshot(model)

    train(model)

    after = snapshot(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("resnet.encoder.stages.1", "classifier")) for name in changed)


@needs_recent_peft
def test_a_saved_but_frozen_head_stays_frozen_in_an_injected_adapter(tmp_path):
    saved(resnet, tmp_path, "stage1", saved_blocks=["head"])
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    model.load_adapter(tmp_path / "adapter", is_trainable=True)

    model.train()

    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all(name.startswith("resnet.encoder.stages.1") for name in trained)


@needs_recent_peft
def test_an_injected_adapter_is_saved_as_an_adapter_and_opened_again(tmp_path):
    if not hasattr(peft.tuners.tuners_utils.BaseTuner, "_get_adapter_state_dict"):
        pytest.skip("PEFT asks the tuner since 0.21")
    model, _ = injected(tmp_path, is_trainable=True)
    train(model)

    model.save_pretrained(tmp_path / "again")

    again = BioTuneModel.from_pretrained(resnet(), tmp_path / "again")
    assert torch.equal(logits(again), logits(model))


@needs_recent_peft
def test_add_adapter_of_a_transformers_model_makes_one_to_train():
    model = resnet()
    model.add_adapter(BioTuneConfig(lr_multipliers={"head": 1.0}))
    before = snapshot(model)

    train(model)

    changed = {name for name, value in snapshot(model).items() if not value.equal(before[name])}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}


@needs_recent_peft
def test_a_second_injected_adapter_is_refused_with_the_alternative(tmp_path):
    model, expected = injected(tmp_path)

    message = "use BioTuneModel.from_pretrained(base, ...) and load_adapter(..., adapter_name=...)"
    with pytest.raises(ConfigError, match=re.escape(message)):
        model.load_adapter(tmp_path / "adapter", "second")
    assert torch.equal(logits(model), expected)


@needs_recent_peft
def test_an_injected_adapter_can_not_be_deleted_and_says_what_to_do(tmp_path):
    model, expected = injected(tmp_path)

    with pytest.raises(ConfigError, match=r"call disable_adapters\(\)"):
        model.delete_adapter("default")
    assert torch.equal(logits(model), expected)


@needs_recent_peft
def test_blocks_of_another_model_are_refused(tmp_path):
    saved(resnet, tmp_path, "head")
    other = bert()
    before = snapshot(other)

    with pytest.raises(ConfigError, match="has no module or parameter of that name"):
        other.load_adapter(tmp_path / "adapter")
    assert same(snapshot(other), before)
