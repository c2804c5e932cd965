"""An unmodified `transformers.Trainer` trains, saves, resumes and logs a `BioTuneModel`."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from wrapped import (
    CHECKPOINTING,
    LABELS,
    bert,
    images,
    logits,
    quiet_wrap,
    resnet,
    same,
    snapshot,
    timm_resnet,
    torchvision_resnet,
    vit,
)

from hf_biotune import BioTuneConfig, BioTuneModel, biotune_trainer_kwargs
from hf_biotune.exceptions import BioTuneError, CheckpointError, ConfigError

STEPS_PER_EPOCH = 4
MULTIPLIERS = {"stage1": 0.5, "head": 2.0}


class Samples(Dataset):
    """Sixteen random images with labels, or token sequences."""

    def __init__(self, text: bool = False) -> None:
        self.labels = torch.arange(16) % LABELS
        generator = torch.Generator().manual_seed(0)
        self.name = "input_ids" if text else "pixel_values"
        self.inputs = torch.randint(1, 50, (16, 8), generator=generator) if text else images(16)

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {self.name: self.inputs[index], "labels": self.labels[index]}


def trainer(
    directory: Path, make=resnet, multipliers=MULTIPLIERS, callbacks=(), config=None, **arguments
) -> Trainer:
    model = quiet_wrap(make(), BioTuneConfig(lr_multipliers=multipliers, **(config or {})))
    args = TrainingArguments(
        str(directory),
        **{
            "num_train_epochs": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-2,
            "weight_decay": 0.1,
            "save_strategy": "epoch",
            "logging_steps": 1,
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
            "dataloader_pin_memory": False,
            "label_names": ["labels"],
            "remove_unused_columns": False,  # of models that name their input `x`
            **arguments,
        },
    )
    samples = Samples(text=make is bert)
    return Trainer(
        model,
        args,
        train_dataset=samples,
        eval_dataset=samples,
        **biotune_trainer_kwargs(model, callbacks),
    )


class Rates(TrainerCallback):
    """The rate of each block before each step."""

    def __init__(self) -> None:
        self.at: list[dict[str, float]] = []

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs) -> None:
        self.at.append({group["block"]: group["lr"] for group in optimizer.param_groups})


def test_each_blocks_rate_follows_the_schedule_at_its_multiple(tmp_path):
    rates = Rates()
    run = trainer(
        tmp_path,
        callbacks=[rates],
        lr_scheduler_type="cosine",
        warmup_steps=2,
        save_strategy="no",
    )

    run.train()

    steps = 3 * STEPS_PER_EPOCH
    last = {group["block"]: group["lr"] for group in run.optimizer.param_groups}
    assert len(rates.at) == steps
    for block, multiplier in MULTIPLIERS.items():
        half = 0.5 * (1 + math.cos(math.pi * (steps // 2 - 2) / (steps - 2)))
        assert rates.at[0][block] == 0.0  # warm-up begins at zero
        assert rates.at[2][block] == pytest.approx(1e-2 * multiplier)
        assert rates.at[steps // 2][block] == pytest.approx(1e-2 * multiplier * half)
        assert last[block] == pytest.approx(0.0, abs=1e-12)


def test_training_arguments_are_honoured(tmp_path):
    run = trainer(tmp_path, optim="sgd", learning_rate=3e-2, weight_decay=0.2)

    run.create_optimizer()

    assert type(run.optimizer).__name__ == "SGD"
    assert [(g["block"], g["lr"], g["weight_decay"]) for g in run.optimizer.param_groups] == [
        ("stage1", 1.5e-2, 0.2),
        ("stage1", 1.5e-2, 0.0),
        ("head", 6e-2, 0.2),
        ("head", 6e-2, 0.0),
    ]


def test_optimizers_with_groups_of_their_own_are_refused(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    monkeypatch.setattr(
        Trainer, "get_optimizer_cls_and_kwargs", lambda *_: (torch.optim.SGD, {"params": []})
    )

    with pytest.raises(ConfigError, match="makes parameter groups of its own"):
        run.create_optimizer()


def test_each_epoch_saves_the_trained_blocks_only(tmp_path):
    run = trainer(tmp_path)
    run.train()

    checkpoints = sorted(tmp_path.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    assert [int(p.name.split("-")[1]) for p in checkpoints] == [4, 8, 12]
    names = {f"base_model.model.{name}" for name in run.model.base_model.tensor_names()}
    for checkpoint in checkpoints:
        assert set(load_file(checkpoint / "adapter_model.safetensors")) == names
        assert not (checkpoint / "model.safetensors").exists()
        assert not (checkpoint / "config.json").exists()
    loaded = BioTuneModel.from_pretrained(resnet(), checkpoints[-1])
    assert torch.equal(logits(loaded), logits(run.model))


def test_frozen_weights_and_statistics_are_bit_identical_after_training(tmp_path):
    before = snapshot(resnet())
    run = trainer(tmp_path, save_strategy="no")
    run.train()

    after, held = snapshot(run.model.get_base_model()), set(run.model.base_model.tensor_names())
    assert all(torch.equal(before[name], after[name]) for name in before if name not in held)
    assert not torch.equal(before["classifier.1.weight"], after["classifier.1.weight"])


def test_the_best_model_is_loaded_at_the_end(tmp_path):
    run = trainer(
        tmp_path,
        eval_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        learning_rate=0.5,
        optim="sgd",
    )
    run.train()

    losses = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    best = Path(run.state.best_model_checkpoint)
    assert run.state.best_metric == min(losses)
    assert torch.equal(logits(BioTuneModel.from_pretrained(resnet(), best)), logits(run.model))
    assert run.evaluate()["eval_loss"] == pytest.approx(min(losses))


@pytest.mark.parametrize("make", [resnet, vit, bert, timm_resnet])
def test_a_resumed_run_ends_as_the_uninterrupted_one_would(tmp_path, make):
    first = {resnet: "stage1", vit: "layer2", bert: "layer1", timm_resnet: "layer4"}[make]
    multipliers = {first: 0.5, "head": 2.0}
    whole = trainer(tmp_path, make, multipliers)
    whole.train()

    resumed = trainer(tmp_path, make, multipliers)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))

    assert same(snapshot(resumed.model), snapshot(whole.model))
    assert resumed.state.global_step == whole.state.global_step == 12


# The last one ends in an epoch that it does not finish, and goes on with the averages before it.
@pytest.mark.parametrize(
    ("max_steps", "checkpoint"), [(-1, 7), (-1, 8), (11, 7), (11, 9), (11, 10)]
)
def test_a_run_that_is_resumed_within_an_epoch_averages_all_of_it(tmp_path, max_steps, checkpoint):
    # Batches of 6, 6 and 4: the averages must know how much they hold.
    options = {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        "max_steps": max_steps,
        "num_train_epochs": 4,
    }
    whole = trainer(tmp_path, **options)
    whole.train()
    resumed = trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{checkpoint}"))
    assert same(snapshot(resumed.model), snapshot(whole.model))


def test_with_evaluations_by_steps_averages_go_on_from_epoch_to_epoch(tmp_path):
    momenta = []

    class Look(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            (first, *_) = model.base_model.statistics._averages
            momenta.append(max(0.1, 4 / first.seen))

    options = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3}
    whole = trainer(tmp_path, callbacks=[Look()], **options)
    whole.train()
    assert momenta == pytest.approx([1 / n for n in range(1, 10)] + [0.1] * 3)
    resumed = trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert same(snapshot(resumed.model), snapshot(whole.model))


def test_averages_begin_anew_however_many_batches_an_epoch_has(tmp_path):
    seen = []

    class Look(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **kwargs):
            averages = model.base_model.statistics._averages
            seen.append(averages[0].seen)

    class Growing(torch.utils.data.BatchSampler):
        """Four batches, then eight."""

        epoch = 0

        def __len__(self):
            return 4 * (1 + self.epoch)

        def __iter__(self):
            size = 4 // (1 + self.epoch)
            yield from torch.arange(16).split(size)
            Growing.epoch = 1

    run = trainer(tmp_path, callbacks=[Look()], max_steps=12, save_strategy="no")
    loader = torch.utils.data.DataLoader(
        run.train_dataset, batch_sampler=Growing(torch.arange(16), 4, False)
    )
    run.get_train_dataloader = lambda: loader
    run.train()
    assert seen[0] == 0
    assert seen[4] == 0


def test_resuming_with_other_multipliers_is_refused_with_both_named(tmp_path):
    trainer(tmp_path, num_train_epochs=1).train()

    changed = trainer(tmp_path, multipliers={"stage1": 0.5, "head": 3.0})
    with pytest.raises(ConfigError, match=re.escape("lr_multipliers['head']=2.0")) as error:
        changed.train(resume_from_checkpoint=True)

    assert "the model now has 3.0" in str(error.value)


def test_resuming_with_other_blocks_is_refused_with_both_named(tmp_path):
    trainer(tmp_path, num_train_epochs=1).train()

    changed = trainer(tmp_path, multipliers={"stage0": 0.5, "head": 2.0})
    with pytest.raises(CheckpointError, match=r"trains the blocks \['head', 'stage1'\]") as error:
        changed.train(resume_from_checkpoint=True)

    assert "the blocks ['head', 'stage0']" in str(error.value)
    assert isinstance(error.value, BioTuneError)


class Reporter(TrainerCallback):
    """Stands for TensorBoard, which is among Trainer's own callbacks."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        self.seen.append(dict(logs))


def test_every_blocks_rate_is_logged(tmp_path, monkeypatch):
    reporter = Reporter()
    monkeypatch.setattr("transformers.trainer.DEFAULT_CALLBACKS", [type(run_flow()), reporter])
    run = trainer(tmp_path, save_strategy="no", lr_scheduler_type="constant", num_train_epochs=1)

    run.train()

    for entries in (run.state.log_history, reporter.seen):
        steps = [entry for entry in entries if "learning_rate" in entry]
        assert len(steps) == STEPS_PER_EPOCH
        assert {entry["lr/stage1"] for entry in steps} == {0.5e-2}
        assert {entry["lr/head"] for entry in steps} == {2e-2}


@pytest.mark.parametrize("scheduler", ["linear", "cosine"])
def test_logged_rates_are_those_that_the_step_was_made_with(tmp_path, scheduler):
    run = trainer(tmp_path, save_strategy="no", lr_scheduler_type=scheduler)
    run.train()

    for entry in run.state.log_history:
        if "learning_rate" in entry:
            assert entry["lr/stage1"] == pytest.approx(entry["learning_rate"])  # it is group 0
            assert entry["lr/head"] == pytest.approx(4 * entry["learning_rate"])


def run_flow() -> TrainerCallback:
    from transformers.trainer_callback import DefaultFlowCallback

    return DefaultFlowCallback()


def test_logged_rates_are_in_the_saved_state(tmp_path):
    trainer(tmp_path, num_train_epochs=1).train()

    state = json.loads((tmp_path / "checkpoint-4" / "trainer_state.json").read_text())

    assert all("lr/head" in entry for entry in state["log_history"][:3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "block"), [(timm_resnet, "layer4"), (torchvision_resnet, "layer4")]
)
def test_models_that_know_no_labels_train_under_the_stock_trainer(tmp_path, make, block):
    run = trainer(
        tmp_path,
        make,
        {block: 1.0, "head": 1.0},
        num_train_epochs=8,
        eval_strategy="epoch",
        save_strategy="no",
        learning_rate=3e-3,
    )
    before = run.evaluate()["eval_loss"]

    run.train()

    assert run.evaluate()["eval_loss"] < before
    assert run.predict(Samples()).predictions.shape == (16, LABELS)


def test_the_fresh_frozen_head_is_in_every_checkpoint(tmp_path):
    run = trainer(tmp_path, multipliers={"stage1": 1.0}, num_train_epochs=1)
    run.train()

    other = resnet()
    torch.nn.init.normal_(other.classifier[1].weight)

    loaded = BioTuneModel.from_pretrained(other, tmp_path / "checkpoint-4")
    assert torch.equal(logits(loaded), logits(run.model))


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("make", [vit, bert])
def test_gradient_checkpointing_changes_no_weight(tmp_path, make, reentrant):
    block = "layer2" if make is vit else "layer1"
    arguments = {"num_train_epochs": 1, "save_strategy": "no"}
    plain = trainer(tmp_path, make, {block: 1.0, "head": 1.0}, **arguments)
    plain.train()
    checkpointed = trainer(
        tmp_path,
        make,
        {block: 1.0, "head": 1.0},
        **{CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": reentrant}},
        **arguments,
    )
    checkpointed.train()

    assert same(snapshot(checkpointed.model), snapshot(plain.model))


@pytest.mark.parametrize("evaluation", ["epoch", "no"])
def test_statistics_are_those_of_the_last_epoch(tmp_path, evaluation):
    seen: list[torch.Tensor] = []

    class Forgetting(TrainerCallback):
        def on_epoch_begin(self, args, state, control, **kwargs):
            seen.clear()

    running = trainer(tmp_path, eval_strategy=evaluation, callbacks=[Forgetting()])
    norm = running.model.get_submodule(
        "base_model.model.resnet.encoder.stages.1.layers.0.shortcut.normalization"
    )
    norm.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach()) if module.training else None
    )
    running.train()
    assert len(seen) == STEPS_PER_EPOCH
    torch.testing.assert_close(norm.running_mean, torch.cat(seen).mean((0, 2, 3)))


def test_a_training_that_ends_within_an_epoch_keeps_the_last_averages(tmp_path):
    seen: list[torch.Tensor] = []
    running = trainer(tmp_path, max_steps=STEPS_PER_EPOCH + 1, eval_strategy="steps", eval_steps=1)
    norm = running.model.get_submodule(
        "base_model.model.resnet.encoder.stages.1.layers.0.shortcut.normalization"
    )
    norm.register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach()) if module.training else None
    )
    running.train()
    assert len(seen) == STEPS_PER_EPOCH + 1
    torch.testing.assert_close(norm.running_mean, torch.cat(seen).mean((0, 2, 3)))
    assert not running.model.base_model.statistics.is_told
