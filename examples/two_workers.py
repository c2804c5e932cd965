"""One search by two workers on this machine, and by as many more as you start elsewhere.

    python examples/prepare_demo.py --output demo --only efficientnet-lite0 --only digits-100
    python examples/two_workers.py --workers 2
    python examples/two_workers.py --workers 2 --backend ray

The workers share the journal file in `--output-dir`; nobody waits for anybody. Kill one of them, or
all: what is finished is kept, and the same command goes on. With GPUs, each worker has its own.
With `--backend ray` (extra `ray`) they are tasks of the Ray cluster that this machine is part of,
or of a Ray that is started here; on a cluster, all of it must share the disk of `--output-dir`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.search import (
    SearchListener,
    TrialReport,
    default_training_arguments,
    encode_splits,
    load_dataset_splits,
)
from hf_biotune.search.models import image_classifier, load_image_processor


class Ticker(SearchListener):
    """One line for each individual that this process has trained."""

    def on_trial_end(self, report: TrialReport) -> None:
        """An individual has its score."""
        blocks = ", ".join(report.multipliers)
        print(f"{report.number:3} {report.role:12} {report.state:9} {report.score:.3f}  {blocks}")


def main(
    model: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/efficientnet-lite0",
    dataset: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/digits-100",
    output_dir: Annotated[Path, typer.Option(help="Study and adapter.")] = Path("out-workers"),
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the search.")] = 2,
    backend: Annotated[str, typer.Option(help="processes or ray.")] = "processes",
    budget: Annotated[str, typer.Option(help="12 (trainings), 30m, 2h or 3x.")] = "8",
    epochs: Annotated[int, typer.Option(min=1, help="At most, of each training.")] = 6,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the images.")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 20,
) -> None:
    """Search with several workers."""
    data = encode_splits(
        load_dataset_splits(dataset),
        load_image_processor(model),
        name=Path(dataset).name,
        image_size=image_size,
    )
    args = default_training_arguments(
        str(output_dir), num_train_epochs=epochs, per_device_train_batch_size=batch_size
    )
    result = biotune_search(
        image_classifier(model, data.label_names),
        data.train,
        data.validation,
        args,
        SearchConfig(budget=budget),
        workers=workers,
        backend=backend,
        listener=Ticker(),
    )
    print(f"{len(result.history)} individuals by {workers} workers")
    print(f"winner: {result.best_config.lr_multipliers}")
    print(f"validation accuracy: {result.best_score:.3f}")
    result.best_model.save_pretrained(output_dir / "adapter")
    print(f"saved: {output_dir / 'adapter'}")


# Workers import this file again, so nothing may run at import.
if __name__ == "__main__":
    typer.run(main)
