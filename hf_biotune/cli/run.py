"""From options to what the library takes, and from results to what a terminal shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from datasets import DatasetDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn
from transformers import TrainingArguments
from transformers.utils import logging

from hf_biotune.blocks import BlockSpec, Partition
from hf_biotune.doctor import Finding
from hf_biotune.exceptions import ConfigError
from hf_biotune.findings import Provenance
from hf_biotune.search import (
    DataSplits,
    SearchConfig,
    SearchResult,
    default_training_arguments,
)
from hf_biotune.search.encode import encode_splits
from hf_biotune.search.models import (
    IMAGE_TASK,
    TEXT_TASK,
    image_classifier,
    load_image_processor,
    load_tokenizer,
    task_of,
    text_classifier,
    text_limit,
)
from hf_biotune.search.output_directory import ADAPTER_NAME, check_search_directory
from hf_biotune.search.sources import load_dataset_splits
from hf_biotune.search.study import check_learning_rate
from hf_biotune.search.team import check_is_no_team
from hf_biotune.search.texts import encode_text_splits
from hf_biotune.search.tracking import check_trackers

from .options import Preset
from .output import output


def block_spec(text: str) -> BlockSpec:
    """`auto`, `paper`, `layers`, or patterns separated by commas."""
    if text in ("auto", "paper", "layers"):
        return text
    return [pattern.strip() for pattern in text.split(",")]


@dataclass(frozen=True)
class Run:
    """One run of the command line, ready to hand to the library."""

    options: Mapping[str, Any]
    task: str
    model_init: Callable[[], nn.Module]
    data: DataSplits
    args: TrainingArguments
    search: SearchConfig
    blocks: BlockSpec

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Run:
        """Check the options, cheapest first, then load the data.

        Args:
            options: the parameters of a command, by name.
        """
        check_is_no_team("hf-biotune")
        if output.verbose:
            logging.set_verbosity_info()
            optuna.logging.set_verbosity(optuna.logging.INFO)
        else:
            logging.set_verbosity_error()
            optuna.logging.set_verbosity(optuna.logging.WARNING)
        search = _search_config(options)
        check_search_directory(options["output_dir"])
        check_learning_rate(options["learning_rate"])
        check_trackers(options.get("report_to", "none"))
        task = task_of(options["model"])
        splits = load_dataset_splits(
            options["dataset"],
            config_name=options["dataset_config"],
            image_column=options["image_column"],
            text_column=options["text_column"],
            label_column=options["label_column"],
            train_fraction=options["train_fraction"],
            seed=options["seed"],
        )
        encode = _encoded_texts if task == TEXT_TASK else _encoded_images
        model_init, data = encode(options, splits)
        output.keep_options()
        return cls(
            options=dict(options),
            task=task,
            model_init=model_init,
            data=data,
            args=default_training_arguments(
                str(options["output_dir"]),
                learning_rate=options["learning_rate"],
                num_train_epochs=options["epochs"],
                per_device_train_batch_size=options["batch_size"],
                use_cpu=options["cpu"],
                report_to=options.get("report_to", "none"),
            ),
            search=search,
            blocks=block_spec(options.get("blocks", "auto")),
        )

    def provenance(self, command: str) -> Provenance:
        """Where this run came from."""
        model = self.options["model"]
        return Provenance(Path(model).name, self.data.name, command, model, self.task)

    def print_winner(self, console: Console, result: SearchResult) -> None:
        """The winner's blocks, and what finding it cost."""
        table = partition_table(
            result.partition, f"winner: individual {result.best_trial}", result.best_config
        )
        console.print(table)
        console.print(f"planned: {result.budget_report.plan}", highlight=False)
        console.print(f"done: {result.budget_report}", highlight=False)
        cache = result.cache_statistics
        # Of this process: one that finds the search finished has done nothing.
        if cache is not None and cache.total:
            console.print(f"cache: {cache}", highlight=False)
        console.print(f"validation {self.search.metric} {result.best_score:.4f}")
        if self.search.objectives:
            knee, total = result.knee, result.partition.n_parameters
            console.print(
                f"front: {len(result.pareto_front)} individuals; knee: individual {knee.trial}, "
                f"{knee.score:.4f}, trains {knee.trainable_parameters / total:.1%}"
            )

    def print_comparison(self, console: Console, comparison: pd.DataFrame) -> None:
        """Every method's score, size and cost."""
        table = Table(title=f"{self.data.name}: test {self.search.metric}")
        for name in ("method", "mean", "of each seed", "trained", "seconds", "search"):
            table.add_column(name, justify="left" if name == "method" else "right")
        for row in comparison.to_dict("records"):
            scores = row["test_scores"] or row["validation_scores"]
            table.add_row(
                row["method"],
                f"{sum(scores) / len(scores):.4f}" if scores else "-",
                " ".join(f"{score:.4f}" for score in scores),
                f"{row['trained_share']:.1%}",
                "kept" if row["weights"] == "kept" else f"{row['seconds']:.1f}",
                f"{row['search_seconds']:.0f} s" if row["search_seconds"] else "-",
            )
        console.print(table)
        if not comparison["test_scores"].iloc[0]:
            console.print("There is no test split: these are validation scores.")


def _encoded_images(
    options: Mapping[str, Any], splits: DatasetDict
) -> tuple[Callable[[], nn.Module], DataSplits]:
    _refuse(options, "text_column", "max_length", task=IMAGE_TASK)
    data = encode_splits(
        splits,
        load_image_processor(options["model"]),
        name=Path(options["dataset"]).name,
        image_column=options["image_column"],
        label_column=options["label_column"],
        image_size=options["image_size"],
        skip_bad_images=options["skip_bad_images"],
    )
    return image_classifier(options["model"], data.label_names), data


def _encoded_texts(
    options: Mapping[str, Any], splits: DatasetDict
) -> tuple[Callable[[], nn.Module], DataSplits]:
    _refuse(options, "image_column", "image_size", "skip_bad_images", task=TEXT_TASK)
    tokenizer = load_tokenizer(options["model"])
    pad_token_id = tokenizer.pad_token_id
    data = encode_text_splits(
        splits,
        tokenizer,
        name=Path(options["dataset"]).name,
        text_column=options["text_column"],
        label_column=options["label_column"],
        max_length=options["max_length"],
        model_limit=text_limit(options["model"], pad_token_id=pad_token_id),
    )
    return text_classifier(options["model"], data.label_names, pad_token_id=pad_token_id), data


def _refuse(options: Mapping[str, Any], *names: str, task: str) -> None:
    """An option that would be ignored is a mistake."""
    for name in names:
        if options[name]:
            raise ConfigError(
                f"--{name.replace('_', '-')} has no meaning for {options['model']!r}, which is for "
                f"{task.replace('-', ' ')}; leave it out"
            )


def partition_table(partition: Partition, title: str, config: Any = None) -> Table:
    """Blocks with their parameters, and rates if there is a configuration."""
    table = Table(title=title)
    table.add_column("block")
    table.add_column("parameters", justify="right")
    table.add_column("share", justify="right")
    if config is None:
        table.add_column("modules")
    else:
        table.add_column("learning rate", justify="right")
    for block in partition:
        if config is None:
            last = ", ".join(block.modules)
        else:
            multiplier = config.lr_multipliers.get(block.name)
            last = "[dim]frozen[/]" if multiplier is None else f"x {multiplier:.3g}"
        share = block.n_parameters / partition.n_parameters
        table.add_row(block.name, f"{block.n_parameters:,}", f"{share:.1%}", last)
    return table


def _search_config(options: Mapping[str, Any]) -> SearchConfig:
    if "preset" not in options:
        return SearchConfig()
    values: dict[str, Any] = {
        "sampler": options["sampler"],
        "metric": options["metric"],
        "extra_genes": tuple(options["extra_gene"]),
        "objectives": tuple(options["objective"]),
        "seed": options["seed"],
        # Its members are kept by the search.
        "keep_best": max(SearchConfig.keep_best, options.get("ensemble", 0)),
    }
    # What isn't given is left to the preset.
    given = {
        "budget": "budget",
        "population_size": "population_size",
        "n_elites": "elites",
        "prefix_cache_memory": "prefix_cache_memory",
        "norm_statistics": "norm_statistics",
    }
    values |= {name: options[key] for name, key in given.items() if options[key] is not None}
    if not options["prefix_cache"]:
        values["prefix_cache"] = False
    if options["preset"] is Preset.paper:
        return SearchConfig.paper(**values)
    return SearchConfig(**values)


def check_holds_no_winner(output_dir: Path) -> None:
    """Check that a search alone leaves no winner of `tune` beside the configuration of its own.

    Raises:
        ConfigError: `tune` or `train` has written there.
    """
    if (output_dir / ADAPTER_NAME).is_dir():
        raise ConfigError(
            f"{str(output_dir)!r} holds what `hf-biotune tune` (or train) has made: the adapter of "
            f"a winner, which need not be that of another search; go on with `hf-biotune tune`, or "
            f"give another output directory"
        )


def print_diagnosis(console: Console, findings: Sequence[Finding]) -> None:
    """What `doctor` found, problems last."""
    table = Table()
    for name in ("topic", "name", "value"):
        table.add_column(name)
    topic = ""
    for finding in findings:
        mark = "[bold red]![/] " if finding.problem else ""
        shown = "" if finding.topic == topic else finding.topic
        table.add_row(shown, finding.name, mark + escape(finding.value))
        topic = finding.topic
    console.print(table)
    problems = [finding for finding in findings if finding.problem]
    for finding in problems:
        text = f"[bold red]problem:[/] {escape(finding.name)}: {escape(finding.problem)}"
        console.print(text, soft_wrap=True)
    if not problems:
        console.print("Nothing is wrong.")
