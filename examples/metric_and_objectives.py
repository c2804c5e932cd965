"""A metric of your own, and a search that minimises what a model costs as well.

    python examples/prepare_demo.py --output demo --only efficientnet-lite0 --only digits-100
    python examples/metric_and_objectives.py

The metric is the share of samples whose class is among the two likeliest. The search looks for good
scores with few trained parameters, that is for small adapters: its result is a front of
compromises, from which you choose.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.search import (
    Metric,
    default_training_arguments,
    encode_splits,
    load_dataset_splits,
)
from hf_biotune.search.models import image_classifier, load_image_processor

COLUMNS = ["trial", "score", "seeds", "trained_share", "blocks", "knee"]


def among_two(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the samples whose class is among the two likeliest."""
    hits = logits.topk(2).indices == labels[:, None]
    return hits.any(dim=1).float().mean().item()


def main(
    model: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/efficientnet-lite0",
    dataset: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/digits-100",
    output_dir: Annotated[Path, typer.Option(help="Study and adapter.")] = Path("out-objectives"),
    budget: Annotated[str, typer.Option(help="12 (trainings), 30m, 2h or 3x.")] = "8",
    epochs: Annotated[int, typer.Option(min=1, help="At most, of each training.")] = 6,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the images.")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 20,
    share: Annotated[float, typer.Option(help="Of all parameters, to train at most.")] = 0.5,
) -> None:
    """Search for a metric of your own and for small adapters at once."""
    data = encode_splits(
        load_dataset_splits(dataset),
        load_image_processor(model),
        name=Path(dataset).name,
        image_size=image_size,
    )
    args = default_training_arguments(
        str(output_dir), num_train_epochs=epochs, per_device_train_batch_size=batch_size
    )
    metric = Metric("top-2 accuracy", True, among_two)
    search = SearchConfig(
        budget=budget, metric=metric, objectives=(metric.name, "trainable_parameters")
    )
    result = biotune_search(
        image_classifier(model, data.label_names), data.train, data.validation, args, search
    )
    print(result.pareto_front[COLUMNS].to_string(index=False))
    print(f"best score: {result.best_score:.3f}, trains {list(result.best_config.lr_multipliers)}")
    small = result.best_under(trainable_parameters=share)
    trained = small.trainable_parameters / result.partition.n_parameters
    print(f"best with at most {share:.0%} trained: {small.score:.3f} with {trained:.1%}")
    result.kept_model(small.trial).save_pretrained(output_dir / "adapter")
    print(f"saved: {output_dir / 'adapter'}")


if __name__ == "__main__":
    typer.run(main)
