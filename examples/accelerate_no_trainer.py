"""Fine-tune chosen blocks of an image classifier in a plain Accelerate loop, without Trainer.

    python examples/prepare_demo.py --output demo
    python examples/accelerate_no_trainer.py --block stage5=0.5 --block stage6=1 --block head=2
    torchrun --nproc-per-node 2 examples/accelerate_no_trainer.py

Only three lines are BioTune's: `get_biotune_model`, `parameter_groups` and `save_pretrained`. The
rest is any Accelerate script: it runs on one or several CPUs and GPUs, in mixed precision too
(`ACCELERATE_MIXED_PRECISION=bf16`). `hf-biotune search` finds out which blocks to train; here they
are given by hand, by default the last three.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from datasets import DatasetDict, load_dataset, load_from_disk
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from transformers import AutoImageProcessor, AutoModelForImageClassification, get_scheduler

from hf_biotune import BioTuneConfig, get_biotune_model, parameter_groups, partition


class Collator:
    """Turns rows of the data set into a batch.

    Args:
        processor: the model's own image processor, for its mean and standard deviation.
        image_size: side of the square that images are resized to.
    """

    def __init__(self, processor: Any, image_size: int) -> None:
        # timm's processor keeps them elsewhere.
        timm_config = getattr(processor, "data_config", None) or {}
        mean = timm_config.get("mean") or processor.image_mean
        std = timm_config.get("std") or processor.image_std
        self.transform = v2.Compose(
            [
                v2.RGB(),
                v2.Resize((image_size, image_size)),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(mean, std),
            ]
        )

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """`pixel_values` (batch, 3, side, side) and `labels` (batch,)."""
        return {
            "pixel_values": torch.stack([self.transform(row["image"]) for row in rows]),
            "labels": torch.tensor([row["label"] for row in rows]),
        }


def load_splits(dataset: str) -> DatasetDict:
    """The data set in a directory of `save_to_disk`, or by its name on the Hub."""
    return load_from_disk(dataset) if Path(dataset).is_dir() else load_dataset(dataset)


def multipliers_of(blocks: list[str], model: nn.Module) -> dict[str, float]:
    """`["head=2"]` -> `{"head": 2.0}`; the last three blocks at 0.5, 1 and 2 if there are none."""
    if not blocks:
        return dict(zip(partition(model).names[-3:], (0.5, 1.0, 2.0), strict=True))
    pairs = (block.split("=") for block in blocks)
    return {name: float(multiplier) for name, multiplier in pairs}


@torch.no_grad()
def accuracy_of(model: nn.Module, batches: DataLoader, accelerator: Accelerator) -> float:
    """Share of the images, over all processes, that are classified correctly."""
    model.eval()
    correct = []
    for batch in batches:
        predicted = model(pixel_values=batch["pixel_values"]).logits.argmax(-1)
        predicted, labels = accelerator.gather_for_metrics((predicted, batch["labels"]))
        correct.append(predicted == labels)
    return torch.cat(correct).float().mean().item()


def train(
    model: nn.Module,
    batches: DataLoader,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    accelerator: Accelerator,
    max_steps: int,
) -> None:
    """Take `max_steps` optimizer steps, going through the data as often as needed."""
    step = 0
    while step < max_steps:
        # Frozen blocks stay in eval mode all the same.
        model.train()
        for batch in batches:
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % 10 == 0 or step == max_steps:
                accelerator.print(f"step {step}: loss {loss.item():.3f}")
            if step == max_steps:
                break


def main(
    model: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/efficientnet-lite0",
    dataset: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/mnist-200",
    output_dir: Annotated[Path, typer.Option(help="Where the adapter goes.")] = Path("adapter"),
    block: Annotated[
        list[str] | None, typer.Option(help="NAME=MULTIPLIER of a block to train; repeatable.")
    ] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Optimizer steps.")] = 40,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the images.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step and process.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Base learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of the new head and the order of images.")] = 0,
) -> None:
    """Fine-tune chosen blocks of an image classifier in a plain Accelerate loop."""
    # Asked for explicitly, because several processes would else train on their own.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    set_seed(seed)
    splits = load_splits(dataset)
    labels = splits["train"].features["label"].names
    base = AutoModelForImageClassification.from_pretrained(
        model, num_labels=len(labels), ignore_mismatched_sizes=True
    )
    tuned = get_biotune_model(base, BioTuneConfig(lr_multipliers=multipliers_of(block or [], base)))
    if accelerator.is_main_process:
        tuned.print_trainable_parameters()

    collator = Collator(AutoImageProcessor.from_pretrained(model), image_size)
    settings = {"batch_size": batch_size, "collate_fn": collator}
    train_batches = DataLoader(splits["train"], shuffle=True, **settings)
    validation_batches = DataLoader(splits["validation"], **settings)
    optimizer = torch.optim.AdamW(parameter_groups(tuned, lr=learning_rate, weight_decay=0.01))
    schedule = get_scheduler(
        "cosine",
        optimizer,
        num_warmup_steps=0,
        # A prepared schedule steps once for each process.
        num_training_steps=max_steps * accelerator.num_processes,
    )
    prepared, optimizer, train_batches, validation_batches, schedule = accelerator.prepare(
        tuned, optimizer, train_batches, validation_batches, schedule
    )

    train(prepared, train_batches, optimizer, schedule, accelerator, max_steps)
    accuracy = accuracy_of(prepared, validation_batches, accelerator)
    accelerator.print(f"validation accuracy: {accuracy:.3f}")
    accelerator.unwrap_model(prepared).save_pretrained(
        output_dir,
        is_main_process=accelerator.is_main_process,
        state_dict=accelerator.get_state_dict(prepared),
    )
    accelerator.print(f"saved: {output_dir}")
    accelerator.end_training()


if __name__ == "__main__":
    typer.run(main)
