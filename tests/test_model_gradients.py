"""Which tensors get gradients, with and without gradient checkpointing."""

from __future__ import annotations

import pytest
from wrapped import (
    CHECKPOINTING,
    LAST_TWO,
    batch,
    bert,
    quiet_wrap,
    sequential,
    timm_resnet,
    tuned,
    vit,
)

from hf_biotune import BioTuneConfig, BioTuneModel
from hf_biotune.exceptions import ConfigError


def test_set_requires_grad_freezes_and_thaws_the_trained_blocks():
    model = tuned()
    trained = model.get_nb_trainable_parameters()[0]

    model.set_requires_grad("default", False)
    assert model.get_nb_trainable_parameters()[0] == 0
    model.set_requires_grad("default")
    assert model.get_nb_trainable_parameters()[0] == trained


def tensors_without_gradient(model: BioTuneModel) -> list[str]:
    model.train()
    model(**batch(model)).loss.backward()
    return [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("make", [vit, bert])
def test_gradient_checkpointing_gives_every_trained_tensor_a_gradient(make, reentrant):
    last = LAST_TWO[make]
    model = quiet_wrap(make(), BioTuneConfig(lr_multipliers=dict.fromkeys(last, 1.0)))

    model.gradient_checkpointing_enable({"use_reentrant": reentrant})

    assert tensors_without_gradient(model) == []


@pytest.mark.parametrize("make", [vit, bert])
def test_gradient_checkpointing_that_was_on_before_wrapping_is_seen(make):
    base = make()
    getattr(base, f"{CHECKPOINTING}_enable")({"use_reentrant": True})

    model = quiet_wrap(base, BioTuneConfig(lr_multipliers=dict.fromkeys(LAST_TWO[make], 1.0)))

    assert tensors_without_gradient(model) == []


def test_checkpointing_without_reentry_sends_no_gradient_into_the_frozen_prefix():
    model = quiet_wrap(bert(), BioTuneConfig(lr_multipliers={"head": 1.0}))
    model.gradient_checkpointing_enable()
    embedded = []
    embedding = model.get_base_model().get_input_embeddings()
    embedding.register_forward_hook(lambda module, inputs, output: embedded.append(output))

    assert tensors_without_gradient(model) == []
    assert not embedded[0].requires_grad


def test_input_gradients_that_a_user_enabled_stay_enabled():
    base = bert()
    base.enable_input_require_grads()
    embedded = []
    model = quiet_wrap(base, BioTuneConfig(lr_multipliers={"head": 1.0}))
    base.get_input_embeddings().register_forward_hook(lambda m, i, o: embedded.append(o))

    model(**batch(model))

    assert embedded[0].requires_grad
    model.enable_input_require_grads()  # reaches the base model through the wrapper


def test_a_model_without_gradient_checkpointing_says_so():
    model = quiet_wrap(sequential(), BioTuneConfig(lr_multipliers={"head": 1.0}))

    with pytest.raises(ConfigError, match="Sequential has no gradient checkpointing"):
        model.gradient_checkpointing_enable()


def test_timm_models_checkpoint_without_reentry_only():
    model = quiet_wrap(timm_resnet(), BioTuneConfig(lr_multipliers={"layer4": 1.0}))

    with pytest.raises(ConfigError, match="pass use_reentrant=False"):
        model.gradient_checkpointing_enable({"use_reentrant": True})
    model.gradient_checkpointing_enable()
    model.train()
    model(**batch(model))["loss"].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
