"""What each process of a distributed test runs: `worker.py MODE KIND OUTPUT`.

Writes the adapter to `OUTPUT/adapter` and every tensor as rank r has it to `OUTPUT/rank<r>`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType, PartialState
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_biotune import (
    BioTuneConfig,
    BioTuneModel,
    biotune_trainer_kwargs,
    get_biotune_model,
    parameter_groups,
)

SAMPLES, GLOBAL_BATCH, STEPS, LEARNING_RATE = 16, 8, 4, 0.1
FSDP = {
    "version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "transformer_layer_cls_to_wrap": ["ViTLayer"],
}


def wrapped(kind: str) -> BioTuneModel:
    """A small model without dropout; BatchNorm statistics would depend on the local batch."""
    torch.manual_seed(0)
    if kind == "resnet":
        config = ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_labels=3
        )
        base: nn.Module = ResNetForImageClassification(config)
        # It takes `num_items_in_batch` and ignores it, so that Trainer alone would multiply its
        # gradients by the number of processes.
        base.accepts_loss_kwargs = False
        rates = {"layer2": 0.5, "layer4": 2.0, "head": 1.0}
    else:
        config = ViTConfig(
            image_size=16,
            patch_size=8,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=32,
            num_labels=3,
        )
        base = ViTForImageClassification(config)
        rates = {"layer0": 0.5, "layer2": 2.0, "head": 1.0}
    return get_biotune_model(base, BioTuneConfig(lr_multipliers=rates, norm_statistics="frozen"))


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(SAMPLES, 3, 16, 16, generator=generator)
    return images, torch.arange(SAMPLES) % 3


def train_with_trainer(
    kind: str,
    output: Path,
    sharded: str | None = None,
    optim: str = "sgd",
    resume: Path | None = None,
) -> Trainer:
    """Four steps of a stock Trainer; a checkpoint after the second and the last.

    Args:
        kind: of the model.
        output: where checkpoints and the adapter go.
        sharded: for FSDP2 the form of its checkpoints, `FULL_STATE_DICT` or `SHARDED_STATE_DICT`.
        optim: as in `TrainingArguments`.
        resume: a checkpoint to go on from.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    extra: dict[str, Any] = {}
    if sharded:
        extra = {"fsdp": True, "fsdp_config": {**FSDP, "state_dict_type": sharded}}
    arguments = TrainingArguments(
        str(output),
        per_device_train_batch_size=GLOBAL_BATCH // world,
        max_steps=STEPS,
        learning_rate=LEARNING_RATE,
        optim=optim,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        use_cpu=True,
        ddp_find_unused_parameters=False,
        save_steps=2,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **extra,
    )
    if sharded:
        # Accelerate 1.15 shards on GPUs and the like only; on CPUs it runs DDP without a word.
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    model = wrapped(kind)
    rows = [{"pixel_values": x, "labels": y} for x, y in zip(*samples(), strict=True)]
    trainer = Trainer(model, arguments, train_dataset=rows, **biotune_trainer_kwargs(model))
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    trainer.save_model(str(output / "adapter"))
    return trainer


def train_with_torch(kind: str, output: Path) -> BioTuneModel:
    """Four steps on all samples in a plain loop; sharded by torch itself if there are processes."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    model = wrapped(kind)
    if world > 1:
        torch.distributed.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (world,))
        for module in model.modules():
            if type(module).__name__ == "ViTLayer":
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(parameter_groups(model, lr=LEARNING_RATE))
    images, labels = (tensor.chunk(world)[rank] for tensor in samples())
    model.train()
    for _ in range(STEPS):
        model(pixel_values=images, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    model.save_pretrained(output / "adapter", state_dict=state, is_main_process=rank == 0)
    return model


def tensors_of(model: BioTuneModel) -> dict[str, torch.Tensor]:
    """Every tensor of the model, gathered if it is sharded."""
    state = model.state_dict()
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).clone()
        for name, value in state.items()
    }


def resume_sharded(kind: str, output: Path, form: str) -> Trainer:
    """Train in one go, writing what each rank has then, and once more from the checkpoint."""
    # Adam: torch can't load the state of an optimizer that has none.
    settings = {"sharded": form, "optim": "adamw_torch"}
    trainer = train_with_trainer(kind, output / "whole", **settings)
    save_file(tensors_of(trainer.model), output / f"whole{torch.distributed.get_rank()}")
    torch.distributed.barrier()
    return train_with_trainer(kind, output, resume=output / "whole" / "checkpoint-2", **settings)


def main(mode: str, kind: str, output: Path) -> None:
    """Train, save the adapter, and save what this rank has."""
    torch.set_num_threads(1)
    if mode == "torch":
        model = train_with_torch(kind, output)
        wrapper = type(model).__name__
    else:
        if mode.endswith("STATE_DICT"):
            trainer = resume_sharded(kind, output, mode)
        else:
            sharded = "FULL_STATE_DICT" if mode == "fsdp2" else None
            trainer = train_with_trainer(kind, output, sharded)
        model, wrapper = trainer.model, type(trainer.model_wrapped).__name__
    rank = torch.distributed.get_rank()
    shards = sum(isinstance(parameter, DTensor) for parameter in model.parameters())
    save_file(
        tensors_of(model), output / f"rank{rank}", {"wrapper": wrapper, "shards": str(shards)}
    )
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
