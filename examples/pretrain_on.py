"""Fine-tune all of a model on one data set and save it whole, as the start for another data set.

python examples/prepare_demo.py --output demo
python examples/pretrain_on.py demo/efficientnet-lite0 demo/mnist-200 demo/efficientnet-lite0-mnist
hf-biotune compare --recipe mnist-to-digits
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_biotune import partition
from hf_biotune.baselines import baseline_config
from hf_biotune.contest.arena import Arena, LoadedArena
from hf_biotune.search import FineTuner, StoppingRule, resolve_metric
from hf_biotune.search.models import load_image_processor


def main(
    model: Annotated[str, typer.Argument(help="Hub id or local directory of an image model.")],
    dataset: Annotated[str, typer.Argument(help="Hub id or local path.")],
    output: Annotated[Path, typer.Argument(help="Directory for the fine-tuned model.")],
    image_size: Annotated[int | None, typer.Option(min=8, help="Side in pixels.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="At most.")] = 15,
    learning_rate: Annotated[float, typer.Option(help="Of all blocks.")] = 1e-3,
    seed: Annotated[int, typer.Option(min=0, help="Of the head and the data order.")] = 0,
) -> None:
    """Fine-tune a whole model and save it with its image processor."""
    arena = Arena(model, dataset, image_size=image_size, epochs=epochs, learning_rate=learning_rate)
    loaded = LoadedArena(arena)
    data = loaded.split(0)
    model_init = loaded.model_init(data)
    tuner = FineTuner(
        model_init,
        data,
        arena.arguments(None),
        resolve_metric("macro_accuracy"),
        StoppingRule(arena.patience),
    )
    result = tuner.fit(baseline_config("full fine-tuning", partition(model_init())), seed)
    result.model.merge_and_unload().save_pretrained(output)
    load_image_processor(model).save_pretrained(output)
    typer.echo(f"validation macro accuracy {result.validation_score:.4f}; saved in {output}")


if __name__ == "__main__":
    typer.run(main)
