"""`BioTuneModel`: frozen means frozen, and PEFT's verbs mean what they mean in PEFT."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_model_status
from torch import nn
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    WhisperConfig,
    WhisperForAudioClassification,
)
from wrapped import (
    LABELS,
    LAST_TWO,
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
    tuned,
    vit,
)

from hf_biotune import (
    BioTuneConfig,
    BioTuneModel,
    get_biotune_model,
    parameter_groups,
    partition,
)
from hf_biotune.exceptions import ConfigError

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


@pytest.mark.parametrize(
    ("norm_statistics", "moves"), [("epoch", True), ("train", True), ("frozen", False)]
)
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


def test_a_checkpoint_is_not_loaded_into_blocks_that_are_tuned_already(tmp_path):
    get_biotune_model(resnet(), BioTuneConfig(lr_multipliers={"head": 1.0})).save_pretrained(
        tmp_path
    )
    base = resnet()
    first = BioTuneModel.from_pretrained(base, tmp_path)
    for load in (BioTuneModel.from_pretrained, PeftModel.from_pretrained):
        with pytest.raises(ConfigError, match=r"tuned already.*load_adapter.*unload\(\)"):
            load(base, tmp_path)
    first.unload()
    BioTuneModel.from_pretrained(base, tmp_path)


def test_a_container_whose_blocks_are_all_frozen_draws_no_dropout():
    torch.manual_seed(0)
    size = {"d_model": 16, "vocab_size": 40, "max_position_embeddings": 32, "num_labels": 3}
    layers = {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    heads = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    wide = {f"{part}_ffn_dim": 16 for part in ("encoder", "decoder")}
    bart = BartForSequenceClassification(
        BartConfig(**size, **layers, **heads, **wide, dropout=0.5, encoder_layerdrop=0.5)
    )
    model = quiet_wrap(bart, BioTuneConfig(lr_multipliers={"decoder_layer1": 1.0, "head": 1.0}))
    model.train()
    tokens = torch.tensor([[5, 6, 7, 2]])
    encoder, decoder = bart.model.encoder, bart.model.decoder
    assert not encoder.training
    assert decoder.training  # one of its layers is trained
    outputs = [encoder(input_ids=tokens).last_hidden_state for _ in range(3)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_one_configuration_may_be_used_for_several_models():
    config = BioTuneConfig(lr_multipliers={"head": 1.0}, inference_mode=True)
    before = copy.deepcopy(config)
    for name in ("first", "second"):
        base = resnet()
        base.name_or_path = name
        model = get_biotune_model(base, config)
        assert model.active_peft_config.base_model_name_or_path == name
        # That of a saved adapter says that it is for inference.
        assert model.get_nb_trainable_parameters()[0] > 0
    assert config == before


def test_an_adapter_that_was_loaded_for_inference_says_why_it_can_not_be_trained(tmp_path):
    tuned().save_pretrained(tmp_path)
    loaded = BioTuneModel.from_pretrained(resnet(), tmp_path)
    with pytest.raises(ConfigError, match=r"nothing requires gradients.*is_trainable=True"):
        parameter_groups(loaded, lr=1e-3)


def test_what_an_architecture_means_to_stay_is_not_trained():
    def whisper():
        torch.manual_seed(0)
        return WhisperForAudioClassification(
            WhisperConfig(
                **{"d_model": 16, "num_mel_bins": 4, "max_source_positions": 8, "num_labels": 3},
                **{"encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16},
                **{"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 16},
            )
        )

    base = whisper()
    fixed = "encoder.embed_positions.weight"
    assert not base.get_parameter(fixed).requires_grad
    for _ in range(2):  # it is not forgotten when the blocks are given back
        names = partition(base).names
        model = get_biotune_model(base, BioTuneConfig(lr_multipliers=dict.fromkeys(names, 1.0)))
        assert [n for n, p in base.named_parameters() if not p.requires_grad] == [fixed]
        assert model.merge_and_unload() is base
    # What was frozen as a whole was frozen by habit, and is trained if it is asked for.
    base.requires_grad_(False)
    config = BioTuneConfig(lr_multipliers={names[0]: 1.0}, saved_blocks=[])
    assert get_biotune_model(base, config).get_nb_trainable_parameters()[0] > 0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor([[1.0, 1.0, 0.0]] * 4), "must add up to 1, .* several classes a sample"),
        (torch.tensor([1.5, 2.5, 0.5, 1.0]), r"numbers of classes, .* got torch.float32 of shape"),
    ],
)
def test_labels_that_are_no_classes_are_refused_where_the_loss_is_ours(labels, message):
    model = quiet_wrap(timm_resnet(), BioTuneConfig(lr_multipliers={"head": 1.0}))
    with pytest.raises(ConfigError, match=message):
        model(pixel_values=images(4), labels=labels)


def test_a_timm_model_takes_its_input_with_and_without_a_name_beside_labels():
    model = quiet_wrap(timm_resnet(), BioTuneConfig(lr_multipliers={"head": 1.0}))
    pixels, labels = images(4), torch.tensor([0, 1, 2, 0])
    soft = torch.nn.functional.one_hot(labels, LABELS).float()
    losses = [
        model(pixels, labels=labels)["loss"],
        model(x=pixels, labels=labels)["loss"],
        model(pixels, labels=soft)["loss"],
    ]
    assert losses[0] == losses[1]
    assert torch.allclose(losses[0], losses[2])


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


def test_a_fresh_classifier_behind_a_trained_pooler_is_told():
    base = bert()
    nn.init.normal_(base.bert.pooler.dense.bias)

    with pytest.warns(UserWarning, match="'head' is frozen but looks freshly initialised"):
        get_biotune_model(base, BioTuneConfig(lr_multipliers={"layer1": 1.0}))


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


def test_a_model_may_be_cast_while_the_adapter_is_disabled():
    model = tuned()
    expected = logits(model)
    with model.disable_adapter():
        model.double()
    found = model(batch(model, seed=5)["pixel_values"].double()).logits
    assert torch.allclose(found, expected.double(), atol=1e-5)
    assert {p.dtype for p in model.parameters()} == {torch.float64}


@pytest.mark.parametrize("make", [resnet, bert])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_base_model_may_be_asked_between_a_forward_and_its_backward_pass(make, mode):
    block = {resnet: "stage1", bert: "layer1"}[make]
    gradients = []
    for asks in (False, True):
        model = quiet_wrap(make(), BioTuneConfig(lr_multipliers={block: 1.0, "head": 1.0}))
        train(model, steps=2)
        getattr(model, mode)()
        torch.manual_seed(3)
        output = model(**batch(model, 4))
        if asks:
            with torch.random.fork_rng(), torch.no_grad(), model.disable_adapter():
                model(**batch(model, 4))
        output["loss"].backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for plain, interrupted in zip(*gradients, strict=True):
        assert torch.equal(plain, interrupted)


def test_a_backward_pass_while_the_adapter_is_disabled_is_refused():
    model = tuned()
    model.train()
    output = model(**batch(model))
    with model.disable_adapter(), pytest.raises(RuntimeError, match="modified by an inplace"):
        output["loss"].backward()
    output = model(**batch(model))
    output["loss"].backward()


def test_another_adapter_before_a_backward_pass_is_refused():
    model = tuned()
    model.add_adapter("other", BioTuneConfig(lr_multipliers={"stage1": 1.0}))
    model.train()
    output = model(**batch(model))
    model.set_adapter("other")
    with pytest.raises(RuntimeError, match="modified by an inplace"):
        output["loss"].backward()


def test_what_is_swapped_in_inference_mode_can_be_trained_later():
    model = tuned()
    model.add_adapter("other", BioTuneConfig(lr_multipliers={"stage1": 1.0}))
    with torch.inference_mode():
        with model.disable_adapter():
            model(**batch(model))
        model.set_adapter("other")
        model(**batch(model))
    train(model)
    model.set_adapter("default")
    train(model)
    with torch.inference_mode():
        base = model.unload()
    assert torch.equal(logits(base), logits(resnet()))
    base.requires_grad_(True)
    base(**batch(base))["loss"].backward()


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
    model = tuned(make)
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


def test_a_fresh_head_without_a_bias_is_saved(tmp_path):
    def make():
        torch.manual_seed(1)
        config = GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20, pad_token_id=0)
        return GPT2ForSequenceClassification(config)

    with pytest.warns(UserWarning, match="'head' is frozen but looks freshly initialised"):
        model = get_biotune_model(make(), BioTuneConfig(lr_multipliers={"layer0": 1.0}))
    assert model.peft_config["default"].saved_blocks == ["head"]
    model.save_pretrained(tmp_path)
    other = make()
    torch.nn.init.normal_(other.score.weight)
    tokens = torch.tensor([[3, 4, 5]])
    loaded = BioTuneModel.from_pretrained(other, tmp_path)
    assert torch.equal(loaded(tokens).logits, model.eval()(tokens).logits)
