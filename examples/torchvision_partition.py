"""A torchvision model with blocks of its own: patterns instead of what the structure suggests.

    python examples/prepare_demo.py --output demo --only digits-100
    python examples/torchvision_partition.py

ResNet-18 has six blocks by its structure. Here four are formed by patterns: names of modules, or
regular expressions that match whole names. The fewer there are, the sooner evolution knows them.
Without a connection the weights are random; `--weights DEFAULT` downloads those of ImageNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from torch import nn
from torchvision.models import resnet18

from hf_biotune import SearchConfig, biotune_search, partition
from hf_biotune.search import default_training_arguments, encode_splits, load_dataset_splits
from hf_biotune.search.transforms import ImageTransform

# ImageNet's, as all weights of torchvision expect.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BLOCKS = {
    "early": ["conv1", "bn1", "layer1"],
    "middle": r"layer[23]",
    "late": "layer4",
    "head": "fc",
}


def main(
    dataset: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/digits-100",
    output_dir: Annotated[Path, typer.Option(help="Study and adapter.")] = Path("out-torchvision"),
    weights: Annotated[str | None, typer.Option(help="Of torchvision, or none.")] = None,
    budget: Annotated[str, typer.Option(help="12 (trainings), 30m, 2h or 3x.")] = "6",
    epochs: Annotated[int, typer.Option(min=1, help="At most, of each training.")] = 10,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the images.")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 20,
) -> None:
    """Search the blocks of a torchvision model that are given by patterns."""
    transform = ImageTransform.from_values(image_size, MEAN, STD)
    data = encode_splits(load_dataset_splits(dataset), transform, name=Path(dataset).name)

    def model_init() -> nn.Module:
        model = resnet18(weights=weights)
        model.fc = nn.Linear(model.fc.in_features, len(data.label_names))
        return model

    print(partition(model_init(), BLOCKS))
    args = default_training_arguments(
        str(output_dir), num_train_epochs=epochs, per_device_train_batch_size=batch_size
    )
    # `always_train`: without pre-trained weights nobody would want a frozen head.
    search = SearchConfig(budget=budget, always_train=() if weights else ("head",))
    result = biotune_search(model_init, data.train, data.validation, args, search, blocks=BLOCKS)
    print(f"winner: {result.best_config.lr_multipliers}")
    print(f"validation accuracy: {result.best_score:.3f}")
    result.best_model.save_pretrained(output_dir / "adapter")
    print(f"saved: {output_dir / 'adapter'}")


if __name__ == "__main__":
    typer.run(main)
