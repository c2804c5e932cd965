"""Copies, pickles, lower precision and compilers: a wrapped model is a model like any other."""

from __future__ import annotations

import copy
import multiprocessing
import pickle

import pytest
import torch
import wrapped
from wrapped import (
    batch,
    logits,
    resnet,
    same,
    snapshot,
    timm_resnet,
    train,
    tuned,
    vit,
)

from hf_biotune import BioTuneModel


def test_a_deep_copy_is_independent_and_its_markers_are_its_own():
    model = tuned()
    expected = snapshot(model.get_base_model())

    other = copy.deepcopy(model)
    train(other)

    assert same(snapshot(model.get_base_model()), expected)
    assert other.base_model.markers["head"]._tuner is other.base_model
    assert other.get_base_model().peft_config is other.peft_config
    with other.disable_adapter():
        assert same(snapshot(model.get_base_model()), expected)
        assert torch.equal(logits(other), logits(resnet()))


def test_a_pickled_model_is_whole():
    model = tuned()

    other = pickle.loads(pickle.dumps(model))

    assert torch.equal(logits(other), logits(model))
    assert other.peft_config == model.peft_config
    with other.disable_adapter():
        assert torch.equal(logits(other), logits(resnet()))


def _logits_in_a_process(model: BioTuneModel) -> torch.Tensor:
    torch.set_num_threads(1)
    return wrapped.logits(model)


@pytest.mark.slow
def test_a_model_goes_into_a_spawned_process():
    model = tuned()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert torch.equal(pool.apply(_logits_in_a_process, (model,)), logits(model))


@pytest.mark.parametrize("cast", ["half", "bfloat16"])
def test_lower_precision_keeps_swapping_exact(cast):
    model = getattr(tuned(), cast)()
    base = getattr(resnet(), cast)()
    expected = snapshot(model.get_base_model())

    with model.disable_adapter():
        assert same(snapshot(model.get_base_model()), snapshot(base))

    assert same(snapshot(model.get_base_model()), expected)
    assert {p.dtype for p in model.parameters()} == {
        getattr(torch, cast.replace("half", "float16"))
    }


def test_a_bfloat16_adapter_is_saved_and_loaded_in_its_own_precision(tmp_path):
    model = tuned().bfloat16()
    model.save_pretrained(tmp_path)

    loaded = BioTuneModel.from_pretrained(resnet().bfloat16(), tmp_path)

    assert same(snapshot(loaded), snapshot(model))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("make", [resnet, vit, timm_resnet])
def test_a_compiled_model_gives_the_same_logits_and_trains(make, backend):
    model = tuned(make)
    expected = logits(model)
    compiled = torch.compile(model, backend=backend)

    assert torch.allclose(logits(compiled), expected, atol=1e-6)
    compiled.train()
    output = compiled(**batch(model))
    (output["loss"] if isinstance(output, dict) else output.loss).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    torch._dynamo.reset()
