"""The commands of `hf-biotune`. No logic: each gathers its options and calls the library."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import options

app = typer.Typer(
    name="hf-biotune",
    help="Find out, by evolution, which blocks of a pre-trained model to fine-tune, and how fast.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
console = Console()
error_console = Console(stderr=True)
# The exit status that typer gives to Ctrl-C.
INTERRUPTED = 130


def _version(show: bool) -> None:
    if show:
        from hf_biotune import __version__

        console.print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def blocks(
    model: Annotated[
        str,
        typer.Argument(help="Hub id, local directory, timm:NAME or torchvision:NAME."),
    ],
    blocks: options.Blocks = "auto",
) -> None:
    """Print the blocks of a model and what they hold."""
    from hf_biotune.blocks import partition
    from hf_biotune.search.models import architecture

    from .run import block_spec, partition_table

    found = partition(architecture(model), block_spec(blocks))
    console.print(partition_table(found, model))


@app.command()
def doctor(
    output_dir: Annotated[Path, typer.Argument(help="Where a search would write.")] = Path(),
) -> None:
    """Print versions, devices, precision and space, and what is wrong; 1 if something is."""
    from hf_biotune.doctor import diagnose

    from .run import print_diagnosis

    findings = diagnose(output_dir)
    print_diagnosis(console, findings)
    if any(finding.problem for finding in findings):
        raise typer.Exit(code=1)


@app.command()
def search(
    model: options.Model,
    dataset: options.Dataset,
    output_dir: options.OutputDir = Path("biotune"),
    budget: options.Budget = None,
    preset: options.PresetOption = options.Preset.default,
    population_size: options.PopulationSize = None,
    elites: options.Elites = None,
    sampler: options.Sampler = "biotune",
    blocks: options.Blocks = "auto",
    norm_statistics: options.NormStatistics = "train",
    extra_gene: options.ExtraGenes = [],  # noqa: B006 - typer makes a new list
    storage: options.Storage = None,
    learning_rate: options.LearningRate = 1e-3,
    epochs: options.Epochs = 15,
    batch_size: options.BatchSize = 32,
    metric: options.Metric = "macro_accuracy",
    image_column: options.ImageColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_size: options.ImageSize = None,
    max_length: options.MaxLength = None,
    train_fraction: options.TrainFraction = 1.0,
    skip_bad_images: options.SkipBadImages = False,
    cpu: options.Cpu = False,
    seed: options.Seed = 0,
) -> None:
    """Find the blocks and rates; write best_config.json and history.csv."""
    from hf_biotune.search import biotune_search
    from hf_biotune.tune import write_search

    from .progress import progress_of
    from .run import Run

    run = Run.from_options(locals())
    with progress_of(console) as listener:
        result = biotune_search(
            run.model_init,
            run.data.train,
            run.data.validation,
            run.args,
            run.search,
            blocks=run.blocks,
            storage=storage,
            listener=listener,
        )
    write_search(result, output_dir, _command_line())
    run.print_winner(console, result)
    console.print(f"Configuration: {output_dir / 'best_config.json'}", soft_wrap=True)


@app.command()
def train(
    model: options.Model,
    dataset: options.Dataset,
    config: Annotated[Path, typer.Option(help="best_config.json of a search.", show_default=False)],
    output_dir: options.OutputDir = Path("biotune"),
    learning_rate: options.LearningRate = 1e-3,
    epochs: options.Epochs = 15,
    batch_size: options.BatchSize = 32,
    metric: options.Metric = "macro_accuracy",
    image_column: options.ImageColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_size: options.ImageSize = None,
    max_length: options.MaxLength = None,
    train_fraction: options.TrainFraction = 1.0,
    skip_bad_images: options.SkipBadImages = False,
    cpu: options.Cpu = False,
    seed: options.Seed = 0,
) -> None:
    """Fine-tune with a configuration and save the adapter."""
    from hf_biotune.search import FineTuner, StoppingRule, resolve_metric
    from hf_biotune.tune import read_config

    from .run import Run

    configuration = read_config(config)
    run = Run.from_options(locals())
    tuner = FineTuner(run.model_init, run.data, run.args, resolve_metric(metric), StoppingRule())
    result = tuner.fit(
        configuration,
        seed,
        on_epoch=lambda epoch, epochs: console.print(f"epoch {epoch}/{epochs}"),
    )
    result.model.save_pretrained(output_dir / "adapter")
    console.print(f"validation {metric}: {result.validation_score:.4f}")
    if result.test_score is not None:
        console.print(f"test {metric}: {result.test_score:.4f}")
    console.print(f"Adapter: {output_dir / 'adapter'}", soft_wrap=True)


@app.command()
def tune(
    model: options.Model,
    dataset: options.Dataset,
    output_dir: options.OutputDir = Path("biotune"),
    budget: options.Budget = None,
    preset: options.PresetOption = options.Preset.default,
    population_size: options.PopulationSize = None,
    elites: options.Elites = None,
    sampler: options.Sampler = "biotune",
    blocks: options.Blocks = "auto",
    norm_statistics: options.NormStatistics = "train",
    extra_gene: options.ExtraGenes = [],  # noqa: B006 - typer makes a new list
    storage: options.Storage = None,
    learning_rate: options.LearningRate = 1e-3,
    epochs: options.Epochs = 15,
    batch_size: options.BatchSize = 32,
    metric: options.Metric = "macro_accuracy",
    image_column: options.ImageColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_size: options.ImageSize = None,
    max_length: options.MaxLength = None,
    train_fraction: options.TrainFraction = 1.0,
    skip_bad_images: options.SkipBadImages = False,
    cpu: options.Cpu = False,
    retrain: options.RetrainOption = options.Retrain.train,
    ensemble: options.Ensemble = 0,
    seed: options.Seed = 0,
) -> None:
    """Search, fine-tune the winner, compare it with the usual ways, write a report."""
    from hf_biotune.tune import tune as run_all

    from .progress import progress_of
    from .run import Run

    run = Run.from_options(locals())
    with progress_of(console) as listener:
        result = run_all(
            run.model_init,
            run.data,
            run.args,
            run.search,
            blocks=run.blocks,
            storage=storage,
            retrain=retrain.value,
            ensemble=ensemble,
            provenance=run.provenance(_command_line()),
            listener=listener,
        )
    run.print_winner(console, result.search)
    run.print_comparison(console, result.comparison)
    console.print(f"Adapter: {result.adapter}", soft_wrap=True)
    if result.ensemble is not None:
        console.print(f"Ensemble: {result.ensemble}", soft_wrap=True)
    console.print(f"Report:  {result.report}", soft_wrap=True)


@app.command()
def push(
    output_dir: Annotated[Path, typer.Argument(help="What `tune` wrote.")],
    repo_id: Annotated[str, typer.Argument(help="user/name on the Hub; made if needed.")],
    private: Annotated[bool, typer.Option("--private", help="Make a private repository.")] = False,
) -> None:
    """Upload a run to the Hub: model card, report, plots, configuration, adapter."""
    from hf_biotune.hub import push_directory

    address = push_directory(output_dir, repo_id, private=private or None)
    console.print(f"Uploaded: {address}", soft_wrap=True)


def _command_line() -> str:
    return shlex.join(["hf-biotune", *sys.argv[1:]])


def main() -> None:
    """Run the command line; a user's mistake is one line, not a traceback."""
    from hf_biotune.exceptions import BioTuneError

    try:
        app()
    except BioTuneError as error:
        error_console.print("[bold red]error:[/]", str(error), soft_wrap=True, highlight=False)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            error_console.print(
                "stopped; every finished individual is kept. Go on with the same command:\n  "
                + _command_line(),
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
        raise
