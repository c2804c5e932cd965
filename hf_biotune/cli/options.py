"""The options that commands share, each with its help and default in one place."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Preset(str, Enum):
    """Which scheme a search follows."""

    default = "default"
    paper = "paper"


class Retrain(str, Enum):
    """What the winner is trained on once more."""

    none = "none"
    train = "train"
    train_and_validation = "train+validation"


_DATA, _TRAINING, _SEARCH, _FINAL = "Data", "Training", "Search", "Final models"

Model = Annotated[
    str,
    typer.Option(help="Hub id or local directory of the model.", show_default=False),
]
Dataset = Annotated[
    str,
    typer.Option(
        help="Hub id or local directory (image folder, parquet, csv of paths or texts).",
        show_default=False,
    ),
]
DatasetConfig = Annotated[
    str | None,
    typer.Option(
        help="Of a Hub data set with several configurations. Default: none.", rich_help_panel=_DATA
    ),
]
OutputDir = Annotated[Path, typer.Option(help="Everything is written there; a search resumes.")]
ImageColumn = Annotated[
    str | None, typer.Option(help="Column of images. Default: found.", rich_help_panel=_DATA)
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column of labels. Default: found.", rich_help_panel=_DATA)
]
ImageSize = Annotated[
    int | None,
    typer.Option(help="Side in pixels. Default: the model's own.", min=8, rich_help_panel=_DATA),
]
TrainFraction = Annotated[
    float,
    typer.Option(help="Share of the training data to use, in (0, 1].", rich_help_panel=_DATA),
]
TextColumn = Annotated[
    str | None, typer.Option(help="Column of texts. Default: found.", rich_help_panel=_DATA)
]
MaxLength = Annotated[
    int | None,
    typer.Option(min=8, help="Tokens of a text. Default: the model's own.", rich_help_panel=_DATA),
]
SkipBadImages = Annotated[
    bool,
    typer.Option(
        "--skip-bad-images/--no-skip-bad-images",
        help="Leave out images that can't be read.",
        rich_help_panel=_DATA,
    ),
]
LearningRate = Annotated[
    float, typer.Option(help="Base rate, scaled per block.", rich_help_panel=_TRAINING)
]
FoundRate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        help="Base rate, scaled per block. Default: that of the search, or 1e-3 if it is unknown.",
        rich_help_panel=_TRAINING,
    ),
]
Epochs = Annotated[int, typer.Option(min=1, rich_help_panel=_TRAINING, help="At most, each.")]
BatchSize = Annotated[int, typer.Option(min=1, rich_help_panel=_TRAINING, help="Samples a step.")]
Metric = Annotated[
    str,
    typer.Option(help="macro_accuracy, accuracy, f1 or loss.", rich_help_panel=_TRAINING),
]
ContestMetric = Annotated[
    str,
    typer.Option(help="macro_accuracy, accuracy or f1.", rich_help_panel=_TRAINING),
]
ReportTo = Annotated[
    str,
    typer.Option(
        help="none, tensorboard, trackio or wandb: gets metrics of generations and trainings.",
        rich_help_panel=_TRAINING,
    ),
]
Cpu = Annotated[
    bool, typer.Option("--cpu/--no-cpu", help="Don't use a GPU.", rich_help_panel=_TRAINING)
]
Budget = Annotated[
    str | None,
    typer.Option(
        help="12 (trainings), 30m, 2h, or 3x (full fine-tunings). Default: 20; the paper preset "
        "ends by itself.",
        rich_help_panel=_SEARCH,
    ),
]
PresetOption = Annotated[
    Preset, typer.Option("--preset", help="Scheme of the search.", rich_help_panel=_SEARCH)
]
PopulationSize = Annotated[
    int | None,
    typer.Option(
        help="Individuals in a generation. Default: what fits the budget.", rich_help_panel=_SEARCH
    ),
]
Elites = Annotated[
    int | None,
    typer.Option(help="Best ones that are refined. Default: 3 in 10.", rich_help_panel=_SEARCH),
]
Sampler = Annotated[
    str,
    typer.Option(
        help="Who chooses what to train: biotune, or random, tpe, cmaes, gp, nsgaii to compare.",
        rich_help_panel=_SEARCH,
    ),
]
Objectives = Annotated[
    list[str],
    typer.Option(
        "--objective",
        help="A metric first, then trainable_parameters, seconds or checkpoint_size: a front of "
        "compromises. Repeatable.",
        rich_help_panel=_SEARCH,
    ),
]
ExtraGenes = Annotated[
    list[str],
    typer.Option(
        "--extra-gene",
        help="Evolves too: norm_statistics, base_lr, weight_decay or l2sp. Repeatable. Default: "
        "none.",
        rich_help_panel=_SEARCH,
    ),
]
Blocks = Annotated[
    str,
    typer.Option(
        help="auto, paper, layers, or patterns separated by commas.", rich_help_panel=_SEARCH
    ),
]
NormStatistics = Annotated[
    str | None,
    typer.Option(
        help="BatchNorm statistics of trained blocks: epoch, train, frozen, or auto (it "
        "evolves). Default: the preset's.",
        rich_help_panel=_SEARCH,
    ),
]
PrefixCache = Annotated[
    bool,
    typer.Option(
        help="Compute activations of frozen first blocks once; same results.",
        rich_help_panel=_SEARCH,
    ),
]
PrefixCacheMemory = Annotated[
    float | None,
    typer.Option(
        min=0, help="For that, in GiB. Default: a quarter of what is free.", rich_help_panel=_SEARCH
    ),
]
Storage = Annotated[
    str | None,
    typer.Option(
        help="memory, or journal:///, sqlite:///, postgresql:// or grpc:// with an address. "
        "Default: a journal in the output directory.",
        rich_help_panel=_SEARCH,
    ),
]
StudyName = Annotated[
    str,
    typer.Option(
        help="In that storage, where several searches may be.",
        rich_help_panel=_SEARCH,
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=1,
        help="Processes of this machine: one a GPU, or shares of the CPU.",
        rich_help_panel=_SEARCH,
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        help="Who runs the workers: processes, or ray for a Ray cluster.",
        rich_help_panel=_SEARCH,
    ),
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of evolution and data splits.")]
RetrainOption = Annotated[
    Retrain,
    typer.Option(
        "--retrain",
        help="What to train the winner on once more; none: take it as the search left it.",
        rich_help_panel=_FINAL,
    ),
]
Ensemble = Annotated[
    int,
    typer.Option(
        min=0,
        max=100,
        help="Save so many of the best as one model, too; no further training.",
        rich_help_panel=_FINAL,
    ),
]
_CONTEST = "Comparison"
ComparedModel = Annotated[
    str | None,
    typer.Option("--model", help="Hub id or local directory of the model. Default: the recipe's."),
]
ComparedDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Hub id or local directory (image folder, parquet, csv of paths or texts). Default: "
        "the recipe's.",
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Name of a recipe, or a YAML file. Default: none.",
        rich_help_panel=_CONTEST,
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        help="Names separated by commas, or all. Default: the paper's, random search, BioTune.",
        rich_help_panel=_CONTEST,
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        help="Of the final trainings on each split, separated by commas. Default: 1,2,3.",
        rich_help_panel=_CONTEST,
    ),
]
Splits = Annotated[
    int | None,
    typer.Option(
        min=1, help="How often the data is divided anew. Default: 3.", rich_help_panel=_CONTEST
    ),
]
ContestBudget = Annotated[
    str,
    typer.Option(
        "--budget",
        help="Of each method that searches: 12 (trainings), 30m or 2h.",
        rich_help_panel=_CONTEST,
    ),
]
ContestWorkers = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        help="Processes; the same command in another terminal joins, too.",
        rich_help_panel=_CONTEST,
    ),
]
ComparedRate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        help="Base of the rates that methods try. Default: 1e-3, or the recipe's.",
        rich_help_panel=_TRAINING,
    ),
]
ComparedEpochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        min=1,
        help="At most, each. Default: 15, or the recipe's.",
        rich_help_panel=_TRAINING,
    ),
]
ComparedBatch = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Samples a step. Default: 32, or the recipe's.",
        rich_help_panel=_TRAINING,
    ),
]
ComparedFraction = Annotated[
    float | None,
    typer.Option(
        "--train-fraction",
        help="Share of the training data to use, in (0, 1]. Default: 1.",
        rich_help_panel=_DATA,
    ),
]
ComparedBlocks = Annotated[
    str | None,
    typer.Option(
        "--blocks",
        help="auto, paper, layers, or patterns separated by commas. Default: auto.",
        rich_help_panel=_SEARCH,
    ),
]
