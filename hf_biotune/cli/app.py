"""The commands of `hf-biotune`. No logic: each gathers its options and calls the library."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .command import CommandGroup, CommandLine, command_line
from .output import output

app = CommandLine(
    name="hf-biotune",
    cls=CommandGroup,
    help="Find out, by evolution, which blocks of a model to fine-tune, and how fast.",
    epilog="Exit status: 0 done, 1 failed, 2 a mistake in the use, 130 interrupted.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
# Exit statuses; the last is what typer gives to Ctrl-C.
FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def _version(show: bool) -> None:
    if show:
        from hf_biotune import __version__

        output.line(__version__)
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

    from .documents import blocks_document
    from .run import block_spec, partition_table

    found = partition(architecture(model), block_spec(blocks))
    output.console.print(partition_table(found, model))
    output.document(blocks_document(found))


@app.command()
def doctor(
    output_dir: Annotated[Path, typer.Argument(help="Where a search would write.")] = Path(),
) -> None:
    """Print what this machine has, and what is wrong with it.

    Versions, devices, precision, space. The exit status is 1 if something is wrong.
    """
    from dataclasses import asdict

    from hf_biotune.doctor import diagnose

    from .run import print_diagnosis

    findings = diagnose(output_dir)
    print_diagnosis(output.console, findings)
    output.document({"findings": [asdict(finding) for finding in findings]})
    if any(finding.problem for finding in findings):
        raise typer.Exit(code=FAILED)


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
    norm_statistics: options.NormStatistics = None,
    extra_gene: options.ExtraGenes = [],  # noqa: B006 - typer makes a new list
    prefix_cache: options.PrefixCache = True,
    prefix_cache_memory: options.PrefixCacheMemory = None,
    objective: options.Objectives = [],  # noqa: B006
    storage: options.Storage = None,
    study_name: options.StudyName = "hf_biotune",
    workers: options.Workers = 1,
    backend: options.Backend = "processes",
    learning_rate: options.LearningRate = 1e-3,
    epochs: options.Epochs = 15,
    batch_size: options.BatchSize = 32,
    metric: options.Metric = "macro_accuracy",
    dataset_config: options.DatasetConfig = None,
    image_column: options.ImageColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_size: options.ImageSize = None,
    max_length: options.MaxLength = None,
    train_fraction: options.TrainFraction = 1.0,
    skip_bad_images: options.SkipBadImages = False,
    cpu: options.Cpu = False,
    report_to: options.ReportTo = "none",
    seed: options.Seed = 0,
) -> None:
    """Find the blocks and rates, and keep their weights.

    Writes best_config.json, history.csv, the report, and the adapters of the best.
    """
    from hf_biotune.search import biotune_search
    from hf_biotune.tune import write_search, write_search_report

    from .documents import winner_document
    from .progress import progress_of
    from .run import Run, check_holds_no_winner

    check_holds_no_winner(output_dir)
    run = Run.from_options(locals())
    with progress_of(output) as listener:
        result = biotune_search(
            run.model_init,
            run.data.train,
            run.data.validation,
            run.args,
            run.search,
            blocks=run.blocks,
            storage=storage,
            study_name=study_name,
            workers=workers,
            backend=backend,
            listener=listener,
        )
    write_search(result, output_dir, command_line())
    page = write_search_report(
        result, run.args, run.search, run.provenance(command_line()), run.data.train
    )
    run.print_winner(output.console, result)
    output.line(f"Configuration: {output_dir / 'best_config.json'}")
    output.line(f"Report:  {page}")
    output.document({**winner_document(result, output_dir), "report": page})


@app.command()
def train(
    model: options.Model,
    dataset: options.Dataset,
    adapter_config: Annotated[
        Path, typer.Option(help="best_config.json of a search.", show_default=False)
    ],
    output_dir: options.OutputDir = Path("trained"),
    learning_rate: options.FoundRate = None,
    epochs: options.Epochs = 15,
    batch_size: options.BatchSize = 32,
    metric: options.Metric = "macro_accuracy",
    dataset_config: options.DatasetConfig = None,
    image_column: options.ImageColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_size: options.ImageSize = None,
    max_length: options.MaxLength = None,
    train_fraction: options.TrainFraction = 1.0,
    skip_bad_images: options.SkipBadImages = False,
    cpu: options.Cpu = False,
    report_to: options.ReportTo = "none",
    seed: options.Seed = 0,
) -> None:
    """Fine-tune with a configuration and save the adapter."""
    from hf_biotune.search import FineTuner, StoppingRule, resolve_metric
    from hf_biotune.tune import read_config

    from .run import Run

    configuration = read_config(adapter_config)
    if learning_rate is None:
        learning_rate = configuration.base_learning_rate or 1e-3
    run = Run.from_options(locals())
    tuner = FineTuner(run.model_init, run.data, run.args, resolve_metric(metric), StoppingRule())
    result = tuner.fit(
        configuration,
        seed,
        on_epoch=None if output.quiet else lambda n, of: output.line(f"epoch {n}/{of}"),
    )
    result.model.save_pretrained(output_dir / "adapter")
    output.line(f"validation {metric}: {result.validation_score:.4f}")
    if result.test_score is not None:
        output.line(f"test {metric}: {result.test_score:.4f}")
    output.line(f"Adapter: {output_dir / 'adapter'}")
    output.document(
        {
            "metric": metric,
            "validation_score": result.validation_score,
            "test_score": result.test_score,
            "epochs": result.epochs,
            "best_epoch": result.best_epoch,
            "seconds": result.seconds,
            "adapter": output_dir / "adapter",
        }
    )


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
    norm_statistics: options.NormStatistics = None,
    extra_gene: options.ExtraGenes = [],  # noqa: B006 - typer makes a new list
    prefix_cache: options.PrefixCache = True,
    prefix_cache_memory: options.PrefixCacheMemory = None,
    objective: options.Objectives = [],  # noqa: B006
    storage: options.Storage = None,
    study_name: options.StudyName = "hf_biotune",
    workers: options.Workers = 1,
    backend: options.Backend = "processes",
    learning_rate: options.LearningRate = 1e-3,
    epochs: options.Epochs = 15,
    batch_size: options.BatchSize = 32,
    metric: options.Metric = "macro_accuracy",
    dataset_config: options.DatasetConfig = None,
    image_column: options.ImageColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_size: options.ImageSize = None,
    max_length: options.MaxLength = None,
    train_fraction: options.TrainFraction = 1.0,
    skip_bad_images: options.SkipBadImages = False,
    cpu: options.Cpu = False,
    report_to: options.ReportTo = "none",
    retrain: options.RetrainOption = options.Retrain.train,
    ensemble: options.Ensemble = 0,
    seed: options.Seed = 0,
) -> None:
    """Search, train the winner, compare it, write a report.

    The adapter, the model card and everything that `search` writes are in the output directory.
    """
    from hf_biotune.tune import tune as run_all

    from .documents import tune_document
    from .progress import progress_of
    from .run import Run

    run = Run.from_options(locals())
    with progress_of(output) as listener:
        result = run_all(
            run.model_init,
            run.data,
            run.args,
            run.search,
            blocks=run.blocks,
            storage=storage,
            study_name=study_name,
            workers=workers,
            backend=backend,
            retrain=retrain.value,
            ensemble=ensemble,
            provenance=run.provenance(command_line()),
            listener=listener,
        )
    run.print_winner(output.console, result.search)
    run.print_comparison(output.console, result.comparison)
    output.line(f"Adapter: {result.adapter}")
    if result.ensemble is not None:
        output.line(f"Ensemble: {result.ensemble}")
    output.line(f"Report:  {result.report}")
    output.document(tune_document(result, output_dir))


@app.command()
def report(
    output_dir: Annotated[Path, typer.Argument(help="What `tune` or `search` wrote.")],
    storage: options.Storage = None,
) -> None:
    """Render the report of a run again, or of one that goes on.

    Of a finished run, from its report.json; that needs neither the model nor the data. Of a search
    that has not ended, from its run.yaml and its study.
    """
    from hf_biotune.exceptions import ConfigError
    from hf_biotune.report import load_report_data, write_report
    from hf_biotune.report.stored import STORED_NAME

    if (output_dir / STORED_NAME).exists():
        if storage is not None:
            raise ConfigError(
                f"--storage is for the report of a search that has not ended, but {output_dir} "
                f"holds that of a finished one, which is made of {STORED_NAME}; leave it out"
            )
        data = load_report_data(output_dir)
    else:
        from .unfinished import data_of_run

        data = data_of_run(output_dir, storage)
    page = write_report(output_dir, data, keep=(output_dir / STORED_NAME).exists())
    output.line(f"Report: {page}")
    output.document({"report": page})


@app.command()
def compare(
    model: options.ComparedModel = None,
    dataset: options.ComparedDataset = None,
    output_dir: options.OutputDir = Path("comparison"),
    recipe: options.RecipeOption = None,
    methods: options.Methods = None,
    seeds: options.Seeds = None,
    splits: options.Splits = None,
    budget: options.ContestBudget = "20",
    workers: options.ContestWorkers = 1,
    metric: options.ContestMetric = "macro_accuracy",
    blocks: options.ComparedBlocks = None,
    learning_rate: options.ComparedRate = None,
    epochs: options.ComparedEpochs = None,
    batch_size: options.ComparedBatch = None,
    dataset_config: options.DatasetConfig = None,
    image_column: options.ImageColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_size: options.ImageSize = None,
    max_length: options.MaxLength = None,
    train_fraction: options.ComparedFraction = None,
    skip_bad_images: options.SkipBadImages = False,
    cpu: options.Cpu = False,
) -> None:
    """Compare methods on the same data, budget and seeds.

    Every training is kept at once: the same command goes on, and shares the work with others.
    """
    from hf_biotune.contest import compare as compare_methods
    from hf_biotune.recipes import recipe_of

    from .contest import plan_of, print_standings, reporter_of

    chosen = recipe_of(recipe, model, dataset)
    plan = plan_of(chosen, locals())
    standings = compare_methods(
        plan.arena,
        plan.methods,
        output_dir=output_dir,
        seeds=plan.seeds,
        splits=plan.splits,
        budget=plan.budget,
        metric=plan.metric,
        workers=workers,
        listener=reporter_of(output),
    )
    print_standings(output.console, standings)
    output.line(f"Tables and plots: {output_dir}")
    output.document(standings.to_dict())


@app.command()
def rank_backbones(
    models: Annotated[
        list[str], typer.Argument(help="Hub ids or local directories.", show_default=False)
    ],
    dataset: options.Dataset,
    dataset_config: options.DatasetConfig = None,
    image_column: options.ImageColumn = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_size: options.ImageSize = None,
    max_length: options.MaxLength = None,
    train_fraction: options.TrainFraction = 1.0,
    skip_bad_images: options.SkipBadImages = False,
    cpu: options.Cpu = False,
) -> None:
    """Rank pre-trained models for a data set without training."""
    from dataclasses import asdict

    from hf_biotune.contest import rank_backbones as rank

    from .contest import given_options, print_ranking

    ranking = rank(models, dataset, **given_options(locals(), ("models", "dataset")))
    print_ranking(output.console, ranking)
    output.document({"ranking": [asdict(score) for score in ranking]})


@app.command()
def push(
    output_dir: Annotated[Path, typer.Argument(help="What `tune` wrote.")],
    repo_id: Annotated[str, typer.Argument(help="user/name on the Hub; made if needed.")],
    private: Annotated[
        bool | None,
        typer.Option(
            "--private/--no-private",
            help="Whether a new repository is private. Default: as the owner's new ones are.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Upload a run to the Hub.

    Model card, report, figures, configuration, adapter.
    """
    from hf_biotune.hub import push_directory

    address = push_directory(output_dir, repo_id, private=private)
    output.line(f"Uploaded: {address}")
    output.document({"address": address})


def main() -> None:
    """Run the command line; a user's mistake is one line, not a traceback."""
    from hf_biotune.exceptions import BioTuneError

    output.begin(json="--json" in sys.argv)
    try:
        app(prog_name=app.info.name)
    except BioTuneError as error:
        _fail(error, MISUSED)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            output.errors.print(
                f"stopped; {_what_is_kept()}:\n  {command_line()}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
        if stop.code:
            kinds: dict[object, str] = {MISUSED: "UsageError", INTERRUPTED: "KeyboardInterrupt"}
            kind = kinds.get(stop.code, "Exit")
            content = {"type": kind, "message": "see standard error", "exit_status": stop.code}
            output.document({"error": content})
        raise
    except Exception as error:
        # Whatever it was, it did not come from what the user typed; the way to the trace is named.
        _fail(error, FAILED)


def _what_is_kept() -> str:
    """What Ctrl-C leaves of the command that was typed."""
    kept = "every finished individual is kept. Go on with the same command"
    return {
        "train": "nothing of the training is kept. The same command begins anew",
        "tune": "every finished individual is kept, final trainings begin anew. Go on with the "
        "same command",
        "compare": "every finished training is kept. Go on with the same command",
        "rank-backbones": "nothing is kept. The same command begins anew",
        "push": "nothing has been uploaded. The same command begins anew",
    }.get(command_line().split()[1], kept)


def _fail(error: Exception, status: int) -> None:
    text = str(error) if status == MISUSED else f"{type(error).__name__}: {error}"
    wants_traceback = output.debug or "--debug" in sys.argv
    if wants_traceback:
        traceback.print_exception(error)
    elif status == FAILED:
        text += "\nThe same command with --debug shows where it happened."
    output.error(text)
    kind = type(error).__name__
    content = {"type": kind, "message": str(error), "exit_status": status}
    output.document({"error": content})
    raise SystemExit(status) from None
