from __future__ import annotations

import torch
from small import small_resnet

from hf_biotune import BioTuneConfig, get_biotune_model
from hf_biotune.search.forward import Forward
from hf_biotune.search.task import predict


def wrapped():
    torch.manual_seed(0)
    return get_biotune_model(small_resnet(), BioTuneConfig(lr_multipliers={"head": 1.0}))


def test_predictions_are_of_eval_mode_whatever_the_batch_size(digits_validation):
    model = wrapped().train()
    forward = Forward(model, "cpu")
    small, whole = (predict(forward, digits_validation.view(), size) for size in (7, 60))
    assert torch.allclose(small, whole, atol=1e-5)
    with torch.no_grad():
        inputs = digits_validation.batch(range(60))
        expected = model.eval()(inputs["pixel_values"]).logits
    assert torch.equal(whole, expected)


def test_predicting_leaves_every_module_in_its_mode(digits_validation):
    model = wrapped().train()
    modes = [module.training for module in model.modules()]
    predict(Forward(model, "cpu"), digits_validation.view(), 30)
    assert [module.training for module in model.modules()] == modes
    assert len(set(modes)) == 2  # frozen blocks are in eval mode, the head is not
