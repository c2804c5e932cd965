"""A search whose every training is spread over two processes, each with its share of every batch.

    python examples/prepare_demo.py --output demo --only efficientnet-lite0 --only digits-100
    torchrun --nproc-per-node 2 examples/spread_training.py

For models and batches that are too much for one GPU at a time; without GPUs it is two processes on
the CPU. Where a training fits one GPU, the workers of `two_workers.py` are faster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from accelerate import PartialState

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.search import default_training_arguments, encode_splits, load_dataset_splits
from hf_biotune.search.models import image_classifier, load_image_processor


def main(
    model: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/efficientnet-lite0",
    dataset: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/digits-100",
    output_dir: Annotated[Path, typer.Option(help="Study and adapter.")] = Path("out-spread"),
    budget: Annotated[str, typer.Option(help="12 (trainings), 30m, 2h or 3x.")] = "8",
    epochs: Annotated[int, typer.Option(min=1, help="At most, of each training.")] = 6,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the images.")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step in each process.")] = 10,
) -> None:
    """Search with all processes on one training at a time."""
    data = encode_splits(
        load_dataset_splits(dataset),
        load_image_processor(model),
        name=Path(dataset).name,
        image_size=image_size,
    )
    args = default_training_arguments(
        str(output_dir),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        # Without it, Accelerate would not let processes on the CPU know of each other.
        use_cpu=not torch.cuda.is_available(),
    )
    result = biotune_search(
        image_classifier(model, data.label_names),
        data.train,
        data.validation,
        args,
        SearchConfig(budget=budget),
    )
    # Every process has the result; one of them shows and saves it.
    processes = PartialState()
    if processes.is_main_process:
        print(f"{len(result.history)} individuals by {processes.num_processes} processes")
        print(f"winner: {result.best_config.lr_multipliers}")
        print(f"validation accuracy: {result.best_score:.3f}")
        result.best_model.save_pretrained(output_dir / "adapter")
        print(f"saved: {output_dir / 'adapter'}")


if __name__ == "__main__":
    typer.run(main)
