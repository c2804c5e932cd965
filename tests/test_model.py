"""`BioTuneModel`: frozen means frozen, and PEFT's verbs mean what they mean in PEFT."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import re

import pytest
import torch
import wrapped
from peft import LoraConfig, PeftModel, get_layer_status, get_model_status
from torch import nn
from wrapped import (
    CHECKPOINTING,
    batch,
    bert,
    images,
    logits,
    quiet_wrap,
    resnet,
    same,
    sequential,
    snapshot,
    timm_resnet,
    torchvision_resnet,
    train,
    vit,
)

from hf_biotune import BioTuneConfig, BioTuneModel, get_biotune_model
from hf_biotune.exceptions import ConfigError


def tuned(make=resnet, blocks=("stage1", "head"), **kwargs) -> BioTuneModel:
    """A wrapped model after three training steps."""
    config = BioTuneConfig(lr_multipliers=dict.fromkeys(blocks, 1.0), **kwargs)
    model = quiet_wrap(make(), config)
    train(model)
    return model


LAST_TWO = {
    resnet: ("stage1", "head"),
    vit: ("layer2", "head"),
    bert: ("layer1", "head"),
    timm_resnet: ("layer4", "head"),
    torchvision_resnet: ("layer4", "head"),
    sequential: ("layer3", "head"),
}
ALL = pytest.mark.parametrize("make", LAST_TWO, ids=lambda make: make.__name__)


# -- frozen means frozen ----------------------------------------------------------------------


@ALL
def test_ten_steps_leave_frozen_weights_and_statistics_bit_identical(make):
    base = make()
    before = snapshot(base)
    model = quiet_wrap(base, BioTuneConfig(lr_multipliers=dict.fromkeys(LAST_TWO[make], 1.0)))

    train(model, steps=10, lr=0.01, momentum=0.9, weight_decay=0.1)

    after, held = snapshot(base), set(model.base_model.tensor_names())
    assert all(torch.equal(before[name], after[name]) for name in before if name not in held)
    weights = [name for name, p in base.named_parameters() if p.requires_grad and p.ndim > 1]
    assert weights
    assert not any(torch.equal(before[name], after[name]) for name in weights)


@ALL
def test_frozen_modules_stay_in_eval_mode_whatever_train_says(make):
    model = quiet_wrap(make(), BioTuneConfig(lr_multipliers={"head": 1.0}))

    model.train()

    blocks = model.base_model.partitions["default"]
    modes = {
        name: module.training
        for name, module in model.get_base_model().named_modules()
        if name and blocks.block_of_module(name)
    }
    assert {name for name, training in modes.items() if training} == {
        name for name in modes if blocks.block_of_module(name) == "head"
    }


@pytest.mark.parametrize("make", [vit, timm_resnet])
def test_frozen_dropout_and_drop_path_drop_nothing(make):
    model = quiet_wrap(make(), BioTuneConfig(lr_multipliers={"head": 1.0}))
    model.train()

    first, second = (model(images()) for _ in range(2))

    assert torch.equal(getattr(first, "logits", first), getattr(second, "logits", second))


@pytest.mark.parametrize(("norm_statistics", "moves"), [("train", True), ("frozen", False)])
def test_norm_statistics_decides_about_trained_blocks_only(norm_statistics, moves):
    config = BioTuneConfig(lr_multipliers={"stage1": 1.0}, norm_statistics=norm_statistics)
    model = quiet_wrap(resnet(), config)
    before = snapshot(model.get_base_model())

    train(model)

    after = snapshot(model.get_base_model())
    moved = {name for name in before if "running" in name and not before[name].equal(after[name])}
    assert bool(moved) is moves
    assert all("stages.1" in name for name in moved)


def test_frozen_parameters_get_neither_gradient_nor_optimizer_state():
    model = tuned()
    model(**batch(model)).loss.backward()

    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}

    assert with_gradient == {
        f"base_model.model.{name}"
        for block in ("stage1", "head")
        for name in model.base_model.partitions["default"][block].parameters
    }


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("multipliers", "message"),
    [
        ({}, "lr_multipliers is empty, so nothing would be trained"),
        ({"haed": 1.0}, "no block is named 'haed'; this model's blocks are: stem, stage0, stage1"),
    ],
)
def test_blocks_that_the_model_does_not_have_are_refused_with_those_it_has(multipliers, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        get_biotune_model(resnet(), BioTuneConfig(lr_multipliers=multipliers))


def test_a_model_that_is_wrapped_already_is_refused():
    model = tuned()

    with pytest.raises(ConfigError, match="holds an adapter already"):
        get_biotune_model(model, BioTuneConfig(lr_multipliers={"head": 1.0}))
    with pytest.raises(ConfigError, match="holds an adapter already"):
        get_biotune_model(model.get_base_model(), BioTuneConfig(lr_multipliers={"head": 1.0}))


def test_a_configuration_of_another_method_is_refused():
    with pytest.raises(ConfigError, match="config must be a BioTuneConfig, got LoraConfig"):
        get_biotune_model(resnet(), LoraConfig())


def test_a_quantised_base_model_is_refused():
    flagged = resnet()
    flagged.is_quantized = True
    integers = sequential()
    integers.packed = nn.Parameter(torch.zeros(2, dtype=torch.uint8), requires_grad=False)

    for base in (flagged, integers):
        with pytest.raises(ConfigError, match="quantised base model can't be trained in place"):
            get_biotune_model(base, BioTuneConfig(lr_multipliers={"head": 1.0}))


@pytest.mark.parametrize("make", [resnet, torchvision_resnet, timm_resnet, bert, vit])
def test_a_fresh_head_that_is_left_frozen_is_warned_about_and_saved(make, tmp_path):
    block = LAST_TWO[make][0]
    with pytest.warns(UserWarning, match="'head' is frozen but looks freshly initialised"):
        model = get_biotune_model(make(), BioTuneConfig(lr_multipliers={block: 1.0}))
    train(model)
    model.save_pretrained(tmp_path)

    other = make()
    for parameter in list(other.parameters())[-2:]:  # another random head, as loading makes one
        nn.init.normal_(parameter)
    loaded = BioTuneModel.from_pretrained(other, tmp_path)

    assert model.peft_config["default"].saved_blocks == ["head"]
    assert torch.equal(logits(loaded), logits(model))


@pytest.mark.parametrize("make", [resnet, torchvision_resnet, timm_resnet, vit])
def test_a_frozen_head_that_was_trained_before_is_neither_warned_about_nor_saved(make):
    trained = get_biotune_model(make(), BioTuneConfig(lr_multipliers={"head": 1.0}))
    train(trained, steps=10, lr=2.0)

    block = LAST_TWO[make][0]
    model = get_biotune_model(
        trained.merge_and_unload(), BioTuneConfig(lr_multipliers={block: 1.0})
    )

    assert model.peft_config["default"].saved_blocks == []


# -- counting and status -----------------------------------------------------------------------


def test_trainable_parameters_are_counted_and_printed(capsys):
    model = tuned()
    blocks = model.base_model.partitions["default"]
    trained = blocks["stage1"].n_parameters + blocks["head"].n_parameters

    assert model.get_nb_trainable_parameters() == (trained, blocks.n_parameters)
    model.print_trainable_parameters()
    assert f"trainable params: {trained:,d} || all params: {blocks.n_parameters:,d}" in (
        capsys.readouterr().out
    )


def test_layer_status_has_a_line_for_each_trained_block():
    status = {layer.name: layer for layer in tuned().get_layer_status()}

    assert set(status) == {"markers.stage1", "markers.head"}
    head = status["markers.head"]
    assert head.module_type == "BlockMarker"
    assert (head.enabled, head.active_adapters, head.merged_adapters) == (True, ["default"], [])
    assert (head.requires_grad, head.available_adapters) == ({"default": True}, ["default"])
    assert head.devices == {"default": ["cpu"]}


def test_model_status_is_regular_enabled_or_not():
    model = tuned()
    status = get_model_status(model)

    assert status.adapter_model_type == "BlockTuner"
    assert status.base_model_type == "ResNetForImageClassification"
    assert status.peft_types == {"default": "BIOTUNE"}
    assert (status.enabled, status.requires_grad) == (True, {"default": True})
    assert (status.trainable_params, status.total_params) == model.get_nb_trainable_parameters()
    with model.disable_adapter():
        inside = model.get_model_status()
    assert (inside.enabled, inside.requires_grad) == (False, {"default": False})


def test_markers_add_nothing_to_the_state_dict():
    base = resnet()
    names = set(base.state_dict())
    model = quiet_wrap(base, BioTuneConfig(lr_multipliers={"head": 1.0}))

    assert set(model.state_dict()) == {f"base_model.model.{name}" for name in names}
    assert set(base.state_dict()) == names


def test_active_adapters_and_the_base_model_are_what_they_say():
    base = resnet()
    model = get_biotune_model(base, BioTuneConfig(lr_multipliers={"head": 1.0}), "mine")

    assert model.active_adapters == ["mine"]
    assert model.active_adapter == "mine"
    assert model.get_base_model() is base
    assert model.config is base.config
    assert isinstance(model, PeftModel)


# -- disabling, merging, unloading --------------------------------------------------------------


@ALL
def test_disabled_outputs_are_the_base_models_bit_for_bit_and_the_tuned_ones_come_back(make):
    base, original = make(), make()
    before = snapshot(base)
    model = quiet_wrap(base, BioTuneConfig(lr_multipliers=dict.fromkeys(LAST_TWO[make], 1.0)))
    train(model)
    tuned_weights, tuned_logits = snapshot(base), logits(model)

    with model.disable_adapter():
        assert torch.equal(logits(model), logits(original))
        assert same(snapshot(base), before)
        assert model.get_nb_trainable_parameters()[0] == 0

    assert same(snapshot(base), tuned_weights)
    assert torch.equal(logits(model), tuned_logits)
    assert not torch.equal(tuned_logits, logits(original))
    assert model.get_nb_trainable_parameters()[0] > 0


def test_disabling_nests():
    model = tuned()
    expected, base = logits(model), logits(resnet())

    with model.disable_adapter():
        with model.disable_adapter():
            assert torch.equal(logits(model), base)
        assert torch.equal(logits(model), base)

    assert torch.equal(logits(model), expected)


def test_an_error_while_disabled_puts_the_tuned_weights_back():
    model = tuned()
    expected = logits(model)

    with pytest.raises(RuntimeError, match="inside"), model.disable_adapter():
        raise RuntimeError("inside")

    assert torch.equal(logits(model), expected)


def test_training_mode_while_disabled_moves_no_statistics():
    model = tuned()
    expected = snapshot(model.get_base_model())

    with model.disable_adapter():
        model.train()
        model(**batch(model))

    assert same(snapshot(model.get_base_model()), expected)


@ALL
def test_merging_gives_the_plain_model_with_the_tuned_weights(make):
    model = tuned(make, LAST_TWO[make])
    base, expected = model.get_base_model(), logits(model)

    merged = model.merge_and_unload(safe_merge=True)

    assert merged is base
    assert not hasattr(merged, "peft_config")
    assert torch.equal(logits(merged), expected)
    get_biotune_model(merged, BioTuneConfig(lr_multipliers={"head": 1.0}))  # may be wrapped anew


@ALL
def test_unloading_gives_the_base_weights_back_bit_for_bit(make):
    base = make()
    before = snapshot(base)
    model = quiet_wrap(base, BioTuneConfig(lr_multipliers=dict.fromkeys(LAST_TWO[make], 1.0)))
    train(model)

    assert same(snapshot(model.unload()), before)
    assert not hasattr(base, "peft_config")


def test_unloading_while_disabled_gives_the_base_weights_too():
    model = tuned()

    with model.disable_adapter():
        base = model.unload()

    assert not hasattr(base, "peft_config")


def test_merging_while_disabled_gives_the_tuned_weights():
    model = tuned()
    expected = logits(model)
    model.base_model.disable_adapter_layers()

    assert torch.equal(logits(model.merge_and_unload()), expected)


def test_safe_merge_refuses_nan():
    model = tuned()
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(float("nan"))

    with pytest.raises(ConfigError, match=r"safe_merge: .* of adapter 'default' holds NaN"):
        model.merge_and_unload(safe_merge=True)


def test_without_the_base_weights_what_needs_them_says_so():
    config = BioTuneConfig(lr_multipliers={"head": 1.0})
    model = get_biotune_model(resnet(), config, keep_base_weights=False)

    with pytest.raises(ConfigError, match="keep_base_weights=False"), model.disable_adapter():
        pass
    with pytest.raises(ConfigError, match="keep_base_weights=False"):
        model.unload()
    with pytest.raises(ConfigError, match="keep_base_weights=False"):
        model.add_adapter("b", BioTuneConfig(lr_multipliers={"stem": 1.0}))
    model.merge_and_unload()


def test_merge_adapter_does_nothing_and_unmerge_adapter_explains():
    model = tuned()
    expected = snapshot(model.get_base_model())

    model.merge_adapter()

    assert same(snapshot(model.get_base_model()), expected)
    with pytest.raises(ConfigError, match=r"can't be unmerged; use disable_adapter\(\)"):
        model.unmerge_adapter()


# -- gradients -----------------------------------------------------------------------------------


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


# -- copies, dtypes, compilers -----------------------------------------------------------------


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
    model = tuned(make, LAST_TWO[make])
    expected = logits(model)
    compiled = torch.compile(model, backend=backend)

    assert torch.allclose(logits(compiled), expected, atol=1e-6)
    compiled.train()
    output = compiled(**batch(model))
    (output["loss"] if isinstance(output, dict) else output.loss).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    torch._dynamo.reset()


# -- several adapters --------------------------------------------------------------------------


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
    assert set(tuner._stored) == {"default"}
    assert {block_of(blocks, name) for name in tuner._stored["default"]} == {"stage1", "head"}


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
    model = tuned(bert, ("layer1", "head"))
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
