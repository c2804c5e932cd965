"""Fine-tune chosen blocks of an image classifier with an unmodified Trainer.

    python examples/prepare_demo.py --output demo
    python examples/image_classification.py --block stage5=0.5 --block stage6=1 --block head=2

Only two lines are BioTune's: `get_biotune_model` and `**biotune_trainer_kwargs(model)`. Everything
that `TrainingArguments` can do, such as mixed precision, resuming and several GPUs, works as usual.
`hf-biotune search` finds out which blocks to train; here they are given by hand, by default the
last three.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from datasets import DatasetDict, load_dataset, load_from_disk
from torch import nn
from torchvision.transforms import v2
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)

from hf_biotune import (
    BioTuneConfig,
    biotune_trainer_kwargs,
    get_biotune_model,
    partition,
)


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


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Share of the images that are classified correctly."""
    correct = prediction.predictions.argmax(-1) == prediction.label_ids
    return {"accuracy": float(correct.mean())}


def training_arguments(
    output_dir: Path, epochs: float, max_steps: int, batch_size: int, lr: float, seed: int
) -> TrainingArguments:
    """Evaluate and save after every epoch, and keep the best."""
    return TrainingArguments(
        str(output_dir),
        num_train_epochs=epochs,
        max_steps=max_steps,
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        learning_rate=lr,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        logging_steps=5,
        # The collator needs the column "image", which is none of the model's inputs.
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        seed=seed,
    )


def main(
    model: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/efficientnet-lite0",
    dataset: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/mnist-200",
    output_dir: Annotated[Path, typer.Option(help="Where the adapter goes.")] = Path("adapter"),
    block: Annotated[
        list[str] | None, typer.Option(help="NAME=MULTIPLIER of a block to train; repeatable.")
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes through the data.")] = 6,
    max_steps: Annotated[int, typer.Option(help="Optimizer steps; -1: by epochs.")] = -1,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the images.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step and device.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Base learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of the new head and the order of images.")] = 0,
) -> None:
    """Fine-tune chosen blocks of an image classifier with an unmodified Trainer."""
    set_seed(seed)
    splits = load_splits(dataset)
    labels = splits["train"].features["label"].names
    base = AutoModelForImageClassification.from_pretrained(
        model, num_labels=len(labels), ignore_mismatched_sizes=True
    )
    tuned = get_biotune_model(base, BioTuneConfig(lr_multipliers=multipliers_of(block or [], base)))
    tuned.print_trainable_parameters()

    trainer = Trainer(
        tuned,
        training_arguments(output_dir, epochs, max_steps, batch_size, learning_rate, seed),
        data_collator=Collator(AutoImageProcessor.from_pretrained(model), image_size),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        compute_metrics=accuracy,
        **biotune_trainer_kwargs(tuned),
    )
    trainer.train()
    metrics = trainer.evaluate(splits["test"], metric_key_prefix="test")
    print(f"test accuracy: {metrics['test_accuracy']:.3f}")
    tuned.save_pretrained(output_dir)
    print(f"saved: {output_dir}")


if __name__ == "__main__":
    typer.run(main)
