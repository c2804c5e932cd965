"""Is it worth it? LoRA and BioTune on the same data, each with its settings chosen by validation.

    python examples/prepare_demo.py --output demo --only efficientnet-lite0 --only mnist-200
    python examples/lora_against_biotune.py

Both get the same splits, epochs, patience and seeds. LoRA's rank and rate are chosen from a small
grid, BioTune's blocks and rates by a search; what that costs is in the table. Then final models are
trained, the best epoch of each is taken by validation, and tested once. Two seeds on one small data
set show how it goes, not who wins: `hf-biotune compare` is for that.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import optuna
import typer

from hf_biotune.baselines import METHODS, MethodResult, Problem, get_method, run_method
from hf_biotune.search import (
    SearchConfig,
    SearchListener,
    default_training_arguments,
    encode_splits,
    load_dataset_splits,
)
from hf_biotune.search.execution import Execution
from hf_biotune.search.models import image_classifier, load_image_processor

HEADER = f"{'method':18} {'validation':>10} {'test':>6} {'trained':>10} {'checkpoint':>11} "
HEADER += f"{'trainings':>9} {'seconds':>8}"


class Progress(SearchListener):
    """Prints what is being trained."""

    def on_stage(self, name: str) -> None:
        """One line a stage."""
        print(f"  {name}", flush=True)


def row(result: MethodResult) -> str:
    """One line of the table: means over the final models, costs of tuning and finals together."""
    title = get_method(result.method).title
    if result.why_not:
        return f"{title:18} n/a: {result.why_not}"
    runs = result.runs
    validation = sum(run.validation_score for run in runs) / len(runs)
    test = sum(run.test_score or 0.0 for run in runs) / len(runs)
    return (
        f"{title:18} {validation:10.3f} {test:6.3f} {runs[0].trained_parameters:10,} "
        f"{runs[0].checkpoint_bytes / 2**20:7.2f} MiB {result.cost.trainings:9.1f} "
        f"{result.cost.seconds:8.0f}"
    )


def main(
    model: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/efficientnet-lite0",
    dataset: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/mnist-200",
    output_dir: Annotated[Path, typer.Option(help="Where searches are kept.")] = Path("against"),
    method: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(METHODS)}; repeatable.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of each training, at most.")] = 6,
    budget: Annotated[str, typer.Option(help="Of the search: trainings or time.")] = "8",
    seeds: Annotated[int, typer.Option(min=1, help="Final models of each method.")] = 2,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the images.")] = 48,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step.")] = 32,
) -> None:
    """LoRA and BioTune on the same data, each with its settings chosen by validation."""
    logging.basicConfig(level=logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    data = encode_splits(
        load_dataset_splits(dataset),
        load_image_processor(model),
        name=Path(dataset).name,
        image_size=image_size,
    )
    args = default_training_arguments(
        str(output_dir), num_train_epochs=epochs, per_device_train_batch_size=batch_size
    )
    problem = Problem(
        image_classifier(model, data.label_names),
        data,
        args,
        SearchConfig(budget=budget, n_finalists=2, extra_genes=("base_lr",)),
        # Convolutions are faster so on most devices.
        execution=Execution(memory_layout="channels_last"),
        directory=output_dir,
        listener=Progress(),
    )
    results = []
    for name in method or ["lora", "biotune"]:
        print(get_method(name).title, flush=True)
        results.append(run_method(get_method(name), problem, range(seeds)))
    print(HEADER)
    for result in results:
        print(row(result))
    for result in results:
        if result.tuned is not None:
            print(f"{get_method(result.method).title}: {result.tuned.setting}")


if __name__ == "__main__":
    typer.run(main)
