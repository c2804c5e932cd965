"""Let `Trainer.hyperparameter_search` find out which blocks to train, and how fast each.

    python examples/prepare_demo.py --output demo --only efficientnet-lite0 --only mnist-200
    python examples/trainer_hyperparameter_search.py

BioTune's evolution is an Optuna sampler, so it works wherever Optuna does. Three things make the
difference: the `model_init`, the `hp_space` and the `sampler`. It is for code that is built around
`Trainer` already; `hf-biotune search` finds more with the same number of trainings. The limits:

- A trial is worth its last evaluation with one seed, so a lucky individual may win.
- Trials run one after the other. With `--storage` the search resumes, and the same script, started
  several times, shares it.
- `trainer.model` is gone afterwards: the winner is trained once more, here with the same `Trainer`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import optuna
import torch
import typer
from image_classification import Collator, accuracy, load_splits
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    Trainer,
    TrainingArguments,
)

from hf_biotune import BioTuneModelInit, BioTuneSampler


def main(
    model: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/efficientnet-lite0",
    dataset: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/mnist-200",
    output_dir: Annotated[Path, typer.Option(help="Where the adapter goes.")] = Path("adapter"),
    trials: Annotated[int, typer.Option(min=1, help="Trainings.")] = 8,
    population_size: Annotated[int, typer.Option(min=3, help="Of a generation.")] = 5,
    storage: Annotated[str | None, typer.Option(help="Of Optuna, to resume and share.")] = None,
    max_steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of a training.")] = 12,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the images.")] = 48,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per step and device.")] = 32,
    learning_rate: Annotated[float, typer.Option(help="Base learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of evolution and of each training.")] = 0,
) -> None:
    """Let Trainer.hyperparameter_search find out which blocks to train, and how fast each."""
    splits = load_splits(dataset)
    make_model = partial(
        AutoModelForImageClassification.from_pretrained,
        model,
        num_labels=len(splits["train"].features["label"].names),
        ignore_mismatched_sizes=True,
    )
    init = BioTuneModelInit(make_model)
    trainer = Trainer(
        model_init=init,
        args=TrainingArguments(
            str(output_dir),
            max_steps=max_steps,
            per_device_train_batch_size=batch_size,
            per_device_eval_batch_size=batch_size,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            save_strategy="no",
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            disable_tqdm=True,
            report_to="none",
            seed=seed,
        ),
        data_collator=Collator(AutoImageProcessor.from_pretrained(model), image_size),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        compute_metrics=accuracy,
        **init.trainer_kwargs(),
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    best = trainer.hyperparameter_search(
        hp_space=init.hp_space,
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        n_trials=trials,
        direction="maximize",
        backend="optuna",
        sampler=BioTuneSampler(
            init.partition.names, population_size=population_size, n_elites=1, seed=seed
        ),
        pruner=optuna.pruners.NopPruner(),
        storage=storage,
        study_name="trainer",
        load_if_exists=True,
    )
    config = init.config_of(best.hyperparameters)
    print(f"best trial: {best.run_id}, validation accuracy {best.objective:.3f}")
    for name in init.partition.names:
        rate = config.lr_multipliers.get(name)
        print(f"  {name}: " + ("frozen" if rate is None else f"learning rate x {rate:.2f}"))

    # Trainer takes a plain dict of parameters only where Ray or wandb is installed.
    trainer.train(trial=optuna.trial.FixedTrial(best.hyperparameters))
    metrics = trainer.evaluate(splits["test"], metric_key_prefix="test")
    print(f"test accuracy: {metrics['test_accuracy']:.3f}")
    trainer.model.save_pretrained(output_dir)
    print(f"saved: {output_dir}")


if __name__ == "__main__":
    typer.run(main)
