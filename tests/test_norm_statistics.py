"""BatchNorm statistics that are averages of an epoch: by hand, in the wrapper, under `Trainer`."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from wrapped import batch, resnet, same, snapshot, train

from hf_biotune import BioTuneConfig, BioTuneModel, get_biotune_model
from hf_biotune.checkpoint import WEIGHTS_NAME
from hf_biotune.exceptions import CheckpointError
from hf_biotune.norm_statistics import EpochStatistics, averages_of, restart_averages

STEM, STAGE1 = "resnet.embedder.embedder", "resnet.encoder.stages.1.layers.0.shortcut"


def followed(momentum: float | None = 0.1) -> tuple[nn.BatchNorm1d, EpochStatistics]:
    module = nn.BatchNorm1d(2, momentum=momentum)
    statistics = EpochStatistics()
    statistics.follow([module])
    return module, statistics


def batches(*sizes: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 2, generator=generator) + 3.0 for size in sizes]


def wrapped(mode: str = "epoch", **multipliers: float):
    config = BioTuneConfig(
        lr_multipliers=multipliers or {"stage1": 1.0, "head": 1.0}, norm_statistics=mode
    )
    return get_biotune_model(resnet().train(), config)


def momenta(model: nn.Module) -> set[float]:
    return {m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)}


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_pre_hooks) for module in model.modules())


@given(st.lists(st.integers(2, 9), min_size=1, max_size=8))
def test_an_epoch_of_up_to_ten_batches_is_averaged_by_samples(sizes):
    module, _ = followed()
    for data in (drawn := batches(*sizes)):
        module(data)
    weights = torch.tensor(sizes, dtype=torch.float32) / sum(sizes)
    means = torch.stack([data.mean(0) for data in drawn])
    variances = torch.stack([data.var(0) for data in drawn])
    torch.testing.assert_close(module.running_mean, weights @ means)
    torch.testing.assert_close(module.running_var, weights @ variances)


def test_after_ten_batches_it_moves_as_pytorch_does():
    module, _ = followed()
    plain = nn.BatchNorm1d(2)
    for data in (drawn := batches(*[4] * 25))[:10]:
        module(data)
    plain.load_state_dict(module.state_dict())
    for data in drawn[10:]:
        module(data)
        plain(data)
    assert same(snapshot(module), snapshot(plain))


def test_a_small_last_batch_moves_a_long_epoch_by_its_share():
    module, _ = followed()
    for data in batches(*[8] * 30):
        module(data)
    before = module.running_mean.clone()
    (last,) = batches(2)
    module(last)
    torch.testing.assert_close(module.running_mean, before + 0.1 * 2 / 8 * (last.mean(0) - before))


@pytest.mark.parametrize("end", ["evaluation", "restart"])
def test_the_first_batch_after_an_epoch_takes_the_place_of_the_statistics(end):
    module, statistics = followed()
    first, second = batches(8, 8)
    module(first)
    if end == "restart":
        statistics.restart()
    else:
        module.eval()(first)
        module.train()
    module(second)
    torch.testing.assert_close(module.running_mean, second.mean(0))


def test_an_evaluation_moves_nothing():
    module, _ = followed()
    (data,) = batches(8)
    module(data)
    before = snapshot(module)
    module.eval()(data + 1.0)
    assert same(snapshot(module), before)


def test_a_norm_without_statistics_stays_as_it_is():
    module = nn.BatchNorm1d(2, track_running_stats=False)
    EpochStatistics().follow([module])
    assert hooks(module) == 0


def test_averages_over_everything_stay_what_they_are():
    module, statistics = followed(momentum=None)
    drawn = batches(8, 8, 4)
    for data in drawn:
        module(data)
        statistics.restart()
    # Each batch counts as much, whatever its size.
    torch.testing.assert_close(module.running_mean, torch.stack([d.mean(0) for d in drawn]).mean(0))


def test_between_steps_the_momentum_is_the_modules_own():
    module, statistics = followed(0.3)
    for _ in range(3):
        module(batches(8)[0])
        assert module.momentum == 0.3
    with pytest.raises(ValueError, match="expected 2D or 3D input"):
        module(torch.randn(2, 2, 2, 2))
    assert module.momentum == 0.3
    statistics.leave()
    assert hooks(module) == 0


def test_another_momentum_is_taken_as_it_comes():
    module, _ = followed()
    drawn = batches(*[4] * 40)
    for data in drawn[:-1]:
        module(data)
    module.momentum = 0.5
    before = module.running_mean.clone()
    module(drawn[-1])
    torch.testing.assert_close(module.running_mean, (before + drawn[-1].mean(0)) / 2)


def test_when_epochs_are_told_an_evaluation_ends_none():
    module, statistics = followed()
    statistics.is_told = True
    first, second = batches(8, 8)
    module(first)
    module.eval()(first)
    statistics.on_evaluation()
    module.train()(second)
    torch.testing.assert_close(module.running_mean, torch.cat([first, second]).mean(0))


def test_a_compiled_model_has_its_own_momentum():
    module, _ = followed()
    (data,) = batches(8)
    torch.compile(module, backend="eager")(data)
    torch.testing.assert_close(module.running_mean, 0.1 * data.mean(0))


# -- in the wrapper -----------------------------------------------------------------------------


def test_trained_blocks_have_the_averages_of_what_they_saw_and_frozen_ones_what_they_had():
    model = wrapped()
    frozen = snapshot(model.get_submodule(f"base_model.model.{STEM}"))
    seen: list[torch.Tensor] = []
    norm = model.get_submodule(f"base_model.model.{STAGE1}.normalization")
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    train(model, steps=3)
    means = torch.stack([data.mean((0, 2, 3)) for data in seen])
    torch.testing.assert_close(norm.running_mean, means.mean(0))
    assert same(snapshot(model.get_submodule(f"base_model.model.{STEM}")), frozen)


def test_train_is_what_pytorch_does():
    model, plain = wrapped("train", stem=1.0, stage0=1.0, stage1=1.0, head=1.0), resnet()
    train(model)
    train(plain)
    assert same(snapshot(model.merge_and_unload()), snapshot(plain))


def test_weights_do_not_depend_on_it():
    models = [wrapped(mode) for mode in ("epoch", "train")]
    for model in models:
        train(model)
    first, second = [dict(model.named_parameters()) for model in models]
    assert same(first, second)


def test_the_base_model_is_given_back_as_it_was():
    model = wrapped()
    model(**batch(model, 8, seed=0))
    assert hooks(model) > 0
    base = model.merge_and_unload()
    assert momenta(base) == {0.1}
    assert hooks(base) == 0


def test_passes_with_the_adapter_disabled_do_not_count():
    models = [wrapped(), wrapped()]
    for model in models:
        model(**batch(model, 8, seed=1))
    with models[0].disable_adapter():
        models[0].train()(**batch(models[0], 8, seed=2))
    for model in models:
        model.train()(**batch(model, 8, seed=3))
    assert same(*(model.biotune_state_dict() for model in models))


def test_each_adapter_has_its_own_mode():
    model = wrapped()
    model.add_adapter("other", BioTuneConfig(lr_multipliers={"head": 1.0}))
    n_stage1 = hooks(model)
    assert n_stage1 > 0
    model.set_adapter("other")
    assert hooks(model) == 0
    model.set_adapter("default")
    assert hooks(model) == n_stage1


def test_a_model_for_inference_has_no_hooks(tmp_path):
    model = wrapped()
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(resnet(), tmp_path)
    assert hooks(loaded) == 0
    loaded.set_adapter("default")
    assert hooks(loaded) > 0
    loaded.set_adapter("default", inference_mode=True)
    assert hooks(loaded) == 0
    assert hooks(type(model).from_pretrained(resnet(), tmp_path, is_trainable=True)) > 0


def test_a_load_that_fails_leaves_no_hooks(tmp_path):
    wrapped().save_pretrained(tmp_path)
    (tmp_path / WEIGHTS_NAME).write_bytes(b"nonsense")
    base = resnet()
    with pytest.raises(CheckpointError):
        BioTuneModel.from_pretrained(base, tmp_path, is_trainable=True)
    assert hooks(base) == 0


def test_a_copy_counts_on_its_own():
    model = wrapped()
    model(**batch(model, 8, seed=0))
    other = copy.deepcopy(model)
    train(model)
    train(other)
    assert same(snapshot(model), snapshot(other))
    other.merge_and_unload()
    assert hooks(model) > 0


def test_eval_begins_anew_though_nothing_was_evaluated():
    models = [wrapped(), wrapped()]
    for model in models:
        train(model)  # ends with `model.eval()`
    models[0].base_model.statistics.restart()
    for model in models:
        train(model)
    assert same(snapshot(models[0]), snapshot(models[1]))


def test_any_model_can_begin_an_epoch():
    models = [wrapped(), wrapped()]
    for model in models:
        model(**batch(model, 8, seed=1))
    restart_averages(models[0])
    models[1].base_model.statistics.restart()
    for model in models:
        train(model)
    assert same(snapshot(models[0]), snapshot(models[1]))


def test_modules_that_a_conversion_puts_in_place_are_followed():
    model = get_biotune_model(resnet(), BioTuneConfig(lr_multipliers={"stage1": 1.0, "head": 1.0}))
    before = len(averages_of(model))
    assert before
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.train()
    assert len(averages_of(model)) == before
    assert all(isinstance(a.module, nn.SyncBatchNorm) for a in averages_of(model))
