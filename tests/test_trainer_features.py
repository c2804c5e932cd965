"""What people switch on in `TrainingArguments` does with a wrapped model what it says."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from datasets import Dataset
from safetensors.torch import load_file
from small import small_resnet
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_biotune import BioTuneConfig, BioTuneModel, biotune_trainer_kwargs, get_biotune_model
from hf_biotune.checkpoint import KEY_PREFIX, WEIGHTS_NAME

pytestmark = pytest.mark.slow

SAMPLES = 16
MULTIPLIERS = {
    "bert": {"layer1": 2.0, "head": 1.0},
    "vit": {"layer1": 2.0, "head": 1.0},
    "timm": {"stage3": 2.0, "head": 1.0},
    "resnet": {"layer4": 2.0, "head": 1.0},
}
# Inductor's CPU back end, and what Dynamo does when it meets hooks of other libraries.
COMPILER_WARNINGS = (
    "ignore::DeprecationWarning:torch",
    "ignore::UserWarning:torch",
)


def wrapped(kind: str) -> BioTuneModel:
    """A small model without dropout, so that two ways to train it can be compared."""
    torch.manual_seed(0)
    if kind == "bert":
        config = BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=3,
        )
        model: nn.Module = BertForSequenceClassification(config)
    elif kind == "vit":
        config = ViTConfig(
            image_size=16,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=3,
        )
        model = ViTForImageClassification(config)
    elif kind == "timm":
        model = timm.create_model(
            "convnext_atto", depths=(1, 1, 1, 1), dims=(4, 8, 8, 16), num_classes=3
        )
    else:
        model = small_resnet()
    return get_biotune_model(model, BioTuneConfig(lr_multipliers=MULTIPLIERS[kind]))


def data(kind: str) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(SAMPLES) % 3
    if kind == "bert":
        tokens = torch.randint(5, 50, (SAMPLES, 12), generator=generator)
        return [{"input_ids": t, "labels": y} for t, y in zip(tokens, labels, strict=True)]
    # Not smaller: on 2x2 pixels torch 2.14 gives arbitrary bf16 gradients for strided convolutions.
    side = {"timm": 64, "resnet": 32}.get(kind, 16)
    images = torch.randn(SAMPLES, 3, side, side, generator=generator)
    return [{"pixel_values": x, "labels": y} for x, y in zip(images, labels, strict=True)]


def trainer_for(
    kind: str,
    directory: Path,
    callbacks: tuple[TrainerCallback, ...] = (),
    trainer_arguments: dict[str, Any] | None = None,
    **arguments: Any,
) -> Trainer:
    """A stock Trainer on the CPU; three steps of eight samples unless `arguments` say other."""
    settings = {
        "per_device_train_batch_size": 8,
        "max_steps": 3,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "label_names": ["labels"],
        "remove_unused_columns": False,
        **arguments,
    }
    model = wrapped(kind)
    return Trainer(
        model,
        TrainingArguments(str(directory), **settings),
        **{"train_dataset": data(kind), "eval_dataset": data(kind), **(trainer_arguments or {})},
        **biotune_trainer_kwargs(model, callbacks),
    )


def weights(model: BioTuneModel) -> dict[str, torch.Tensor]:
    return {n: t.detach().clone() for n, t in model.get_base_model().state_dict().items()}


def changed_blocks(model: BioTuneModel, before: dict[str, torch.Tensor]) -> set[str]:
    blocks = model.base_model.partitions["default"]
    return {
        blocks.block_of_parameter(name)
        for name, parameter in model.get_base_model().named_parameters()
        if not torch.equal(parameter, before[name])
    }


@pytest.mark.parametrize("kind", ["bert", "vit", "timm", "resnet"])
def test_bf16_trains_the_selected_blocks_in_single_precision(kind: str, tmp_path: Path) -> None:
    trainer = trainer_for(kind, tmp_path, bf16=True)
    before = weights(trainer.model)
    trainer.train()
    assert changed_blocks(trainer.model, before) == set(MULTIPLIERS[kind])
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


# Bert's classifier takes `num_items_in_batch` and ignores it, so that transformers 5.23 alone would
# multiply its gradients by the number of accumulated batches; `accepts_loss_kwargs` is the remedy.
@pytest.mark.parametrize("kind", ["bert", "vit", "timm"])
def test_accumulated_gradients_give_what_the_big_batch_gives(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for size, accumulation in ((8, 1), (2, 4)):
        monkeypatch.setattr(
            BertForSequenceClassification, "accepts_loss_kwargs", False, raising=False
        )
        trainer = trainer_for(
            kind,
            tmp_path,
            optim="sgd",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
        )
        trainer.train()
        results.append(weights(trainer.model))
    big, accumulated = results
    before = weights(wrapped(kind))
    assert any(not torch.equal(value, before[name]) for name, value in big.items())
    for name, value in big.items():
        torch.testing.assert_close(accumulated[name], value, rtol=0, atol=1e-5)


# Not "timm": Trainer smooths the labels of models with a transformers configuration only.
@pytest.mark.parametrize("kind", ["bert", "vit", "resnet"])
def test_label_smoothing_smooths_the_loss(kind: str, tmp_path: Path) -> None:
    trainer = trainer_for(
        kind, tmp_path, max_steps=1, label_smoothing_factor=0.2, per_device_eval_batch_size=SAMPLES
    )
    samples = data(kind)
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    with torch.no_grad():
        logits = trainer.model.eval()(**batch)["logits"]
    expected = cross_entropy(logits, batch["labels"], label_smoothing=0.2)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.item(), abs=1e-6)
    before = weights(trainer.model)
    trainer.train()
    assert changed_blocks(trainer.model, before) == set(MULTIPLIERS[kind])


def test_unlabelled_samples_can_be_predicted_with_a_model_of_positional_inputs(
    tmp_path: Path,
) -> None:
    trainer = trainer_for("timm", tmp_path)
    unlabelled = [{"pixel_values": sample["pixel_values"]} for sample in data("timm")]
    labelled = trainer.predict(data("timm")).predictions
    assert (trainer.predict(unlabelled).predictions == labelled).all()


def word_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    vocabulary = {"[PAD]": 0, "[UNK]": 1, **{f"w{i}": i for i in range(2, 50)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]")


def test_text_grouped_by_length_trains_on_batches_of_similar_length(tmp_path: Path) -> None:
    lengths = [2, 20] * 128
    rows = {
        "input_ids": [[5 + i % 40] * length for i, length in enumerate(lengths)],
        "labels": [i % 3 for i in range(256)],
    }
    paddings = []

    class PaddingCollator(DataCollatorWithPadding):
        def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
            batch = super().__call__(features)
            paddings.append(int((batch["input_ids"] == 0).sum()))
            return batch

    trainer = trainer_for(
        "bert",
        tmp_path,
        train_sampling_strategy="group_by_length",
        max_steps=-1,
        num_train_epochs=1,
        trainer_arguments={
            "train_dataset": Dataset.from_dict(rows),
            "data_collator": PaddingCollator(word_tokenizer()),
            "processing_class": word_tokenizer(),
        },
    )
    before = weights(trainer.model)
    trainer.train()
    assert changed_blocks(trainer.model, before) == {"layer1", "head"}
    # Sorted within 4 groups of 64 samples, each of which has at most one batch of both lengths, and
    # the longest sample is then swapped to the front; shuffled, nearly all 32 would mix them.
    assert len(paddings) == 32
    assert sum(padding > 0 for padding in paddings) <= 6


BEST_MODEL = {
    "eval_strategy": "steps",
    "save_strategy": "steps",
    "eval_steps": 1,
    "save_steps": 1,
    "metric_for_best_model": "eval_score",
    "greater_is_better": True,
    "load_best_model_at_end": True,
}


def scores(values: list[float]) -> Any:
    """A `compute_metrics` that gives the values one after another."""
    remaining = list(values)
    return lambda prediction: {"score": remaining.pop(0)}


@pytest.mark.parametrize("kind", ["bert", "timm", "resnet"])
def test_best_model_is_loaded_at_the_end(kind: str, tmp_path: Path) -> None:
    trainer = trainer_for(
        kind,
        tmp_path,
        trainer_arguments={"compute_metrics": scores([0.1, 0.9, 0.2])},
        **BEST_MODEL,
    )
    trainer.train()
    best = load_file(tmp_path / "checkpoint-2" / WEIGHTS_NAME)
    last = load_file(tmp_path / "checkpoint-3" / WEIGHTS_NAME)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    after = weights(trainer.model)
    for key, value in best.items():
        assert torch.equal(after[key.removeprefix(KEY_PREFIX)], value), key
    assert any(not torch.equal(value, last[key]) for key, value in best.items())


def test_early_stopping_stops_and_keeps_the_best(tmp_path: Path) -> None:
    trainer = trainer_for(
        "bert",
        tmp_path,
        callbacks=(EarlyStoppingCallback(early_stopping_patience=2),),
        trainer_arguments={"compute_metrics": scores([0.5, 0.4, 0.3, 0.9])},
        **{**BEST_MODEL, "max_steps": 10},
    )
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.state.best_model_checkpoint == str(tmp_path / "checkpoint-1")
    best = load_file(tmp_path / "checkpoint-1" / WEIGHTS_NAME)
    after = weights(trainer.model)
    assert all(torch.equal(after[k.removeprefix(KEY_PREFIX)], v) for k, v in best.items())


def _compiled_equals_eager(kind: str, directory: Path, backend: str) -> None:
    results = []
    for compiled in (False, True):
        extra = {"torch_compile": True, "torch_compile_backend": backend} if compiled else {}
        trainer = trainer_for(kind, directory, optim="sgd", **extra)
        trainer.train()
        results.append(weights(trainer.model))
        trainer.save_model(str(directory / str(compiled)))
    torch._dynamo.reset()
    eager, compiled = (load_file(directory / str(flag) / WEIGHTS_NAME) for flag in (False, True))
    assert eager.keys() == compiled.keys()
    before = weights(wrapped(kind))
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=0, atol=1e-5)
    assert any(not torch.equal(value, before[name]) for name, value in results[1].items())


@pytest.mark.slow
@pytest.mark.filterwarnings(*COMPILER_WARNINGS)
def test_compiled_training_equals_eager_training(tmp_path: Path) -> None:
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile on the CPU needs a C++ compiler, and there is none")
    _compiled_equals_eager("timm", tmp_path, "inductor")


@pytest.mark.filterwarnings(*COMPILER_WARNINGS)
def test_graph_capture_without_code_generation_equals_eager_training(tmp_path: Path) -> None:
    _compiled_equals_eager("vit", tmp_path, "aot_eager")
