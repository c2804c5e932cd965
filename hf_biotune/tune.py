"""`tune`: the whole job. Search, fine-tune the winner, compare it with what people do, report."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from torch import nn
from transformers import TrainingArguments

from .baselines import baseline_config
from .blocks import BlockSpec
from .config import BioTuneConfig
from .extra_genes import settings_of
from .report import ReportData, write_model_card, write_report
from .search import (
    DataSplits,
    FineTuner,
    FineTuneResult,
    SearchConfig,
    SearchListener,
    SearchResult,
    StoppingRule,
    biotune_search,
    resolve_metric,
)
from .search.execution import precision_of
from .search.models import AUTO_CLASSES, IMAGE_TASK

COMPARED = ("linear probe", "full fine-tuning")
OURS = "BioTune"


@dataclass(frozen=True)
class TuneResult:
    """What [`tune`] made.

    Args:
        search: what the search found.
        comparison: one row per method; see [`ReportData`].
        adapter: the directory of the winner's adapter.
        report: the path of `report.html`.
    """

    search: SearchResult
    comparison: pd.DataFrame = field(repr=False)
    adapter: Path
    report: Path


@dataclass(frozen=True)
class Provenance:
    """Where a run came from, for its report.

    Args:
        model: name of the pre-trained model, for titles.
        dataset: name of the data set.
        command: the line that runs it again.
        model_id: the Hub id or local directory that the model is loaded from.
        task: `"image-classification"` or `"text-classification"`.
    """

    model: str
    dataset: str
    command: str
    model_id: str | None = None
    task: str = IMAGE_TASK


def tune(
    model_init: Callable[[], nn.Module],
    data: DataSplits,
    args: TrainingArguments,
    search: SearchConfig | None = None,
    *,
    blocks: BlockSpec = "auto",
    storage: str | None = None,
    final_seeds: Sequence[int] | None = None,
    provenance: Provenance | None = None,
    listener: SearchListener | None = None,
) -> TuneResult:
    """Search, fine-tune the winner with `Trainer`, compare, save and report.

    Everything is written to `args.output_dir`: see [`write_search`] and [`write_report`].

    Args:
        model_init: makes the pre-trained model, as for `Trainer`.
        data: training, validation and test samples. The test samples are looked at once, when a
            final model is finished; without them the comparison is by validation score.
        args: of every training, search and final alike.
        search: default `SearchConfig()`.
        blocks: see [`partition`].
        storage: of the study; default: a journal file in `args.output_dir`.
        final_seeds: of the final trainings. Default: the seeds of the search.
        provenance: for the report.
        listener: is told what happens.
    """
    search, listener = search or SearchConfig(), listener or SearchListener()
    provenance = provenance or Provenance("the model", data.name, "")
    result = biotune_search(
        model_init,
        data.train,
        data.validation,
        args,
        search,
        blocks=blocks,
        storage=storage,
        listener=listener,
    )
    directory = Path(args.output_dir)
    write_search(result, directory, provenance.command)
    methods = {
        name: baseline_config(name, result.partition, norm_statistics=search.norm_statistics)
        for name in COMPARED
    } | {OURS: result.best_config}
    seeds = tuple(final_seeds or search.seeds)
    tuner = FineTuner(
        model_init,
        data,
        args,
        resolve_metric(search.metric, search.greater_is_better),
        StoppingRule(search.patience, search.patience_from),
        result.execution,
    )
    runs = _final_runs(methods, tuner, seeds, listener)
    comparison = compare_runs(runs, methods, result, args)
    comparison.to_json(directory / "comparison.json", orient="records", indent=2)
    best = _best_run(runs[OURS], search)
    best.model.active_peft_config.base_model_name_or_path = provenance.model_id
    adapter = directory / "adapter"
    best.model.save_pretrained(adapter)
    page = _report_data(result, comparison, args, search, provenance, data.train.n_classes)
    report = write_report(directory, page)
    write_model_card(
        directory, page, base_model=provenance.model_id, task=provenance.task, seed=best.seed
    )
    return TuneResult(result, comparison, adapter, report)


def write_search(result: SearchResult, directory: Path, command: str = "") -> None:
    """Write `best_config.json`, `history.csv`, and `reproduce.sh` if the command is known.

    Args:
        result: of a search.
        directory: made if needed.
        command: the line that runs it again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = result.best_config.to_dict()
    (directory / "best_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    result.history.to_csv(directory / "history.csv", index=False)
    if command:
        (directory / "reproduce.sh").write_text(f"#!/bin/sh\n{command}\n")


def read_config(path: str | Path) -> BioTuneConfig:
    """A configuration from `best_config.json`.

    Raises:
        ConfigError: there is no such file, or it holds no configuration.
    """
    return BioTuneConfig.from_peft_type(**BioTuneConfig.from_json_file(path))


def _final_runs(
    methods: dict[str, BioTuneConfig],
    tuner: FineTuner,
    seeds: Sequence[int],
    listener: SearchListener,
) -> dict[str, list[FineTuneResult]]:
    runs: dict[str, list[FineTuneResult]] = {name: [] for name in methods}
    for name, config in methods.items():
        for number, seed in enumerate(seeds, start=1):
            listener.on_stage(f"{name}: final training {number} of {len(seeds)}")
            runs[name].append(tuner.fit(config, seed))
    return runs


def compare_runs(
    runs: dict[str, list[FineTuneResult]],
    methods: dict[str, BioTuneConfig],
    result: SearchResult,
    args: TrainingArguments,
) -> pd.DataFrame:
    """One row per method, with the score of every seed.

    Args:
        runs: the final trainings of each method.
        methods: their configurations.
        result: of the search, whose cost stands in the row of BioTune.
        args: of the trainings.
    """
    rows = []
    for name, config in methods.items():
        trained = sum(result.partition[block].n_parameters for block in config.lr_multipliers)
        scores = [r.test_score for r in runs[name] if r.test_score is not None]
        validation = [r.validation_score for r in runs[name]]
        rows.append(
            {
                "method": name,
                "seeds": [r.seed for r in runs[name]],
                "test_scores": scores,
                "validation_scores": validation,
                "trained_parameters": trained,
                "trained_share": trained / result.partition.n_parameters,
                "seconds": sum(r.seconds for r in runs[name]) / len(runs[name]),
                "search_seconds": result.seconds if name == OURS else 0.0,
                "search_trainings": round(result.trainings, 2) if name == OURS else 0,
                "lr": args.learning_rate,
            }
        )
    return pd.DataFrame(rows)


def _best_run(runs: Sequence[FineTuneResult], search: SearchConfig) -> FineTuneResult:
    """The run of the seed with the best validation score; of equal ones the first."""
    metric = resolve_metric(search.metric, search.greater_is_better)
    best = runs[0]
    for run in runs[1:]:
        if metric.is_better(run.validation_score, best.validation_score):
            best = run
    return best


def _report_data(
    result: SearchResult,
    comparison: pd.DataFrame,
    args: TrainingArguments,
    search: SearchConfig,
    provenance: Provenance,
    n_classes: int,
) -> ReportData:
    metric = resolve_metric(search.metric, search.greater_is_better)
    return ReportData(
        title=f"BioTune on {provenance.dataset}",
        model_name=provenance.model,
        dataset_name=provenance.dataset,
        metric=metric.name,
        greater_is_better=metric.greater_is_better,
        partition=result.partition,
        history=result.history,
        best_multipliers=result.best_config.lr_multipliers,
        norm_statistics=result.best_config.norm_statistics,
        comparison=comparison,
        facts=_facts(result, args, search),
        command=provenance.command,
        python=_loading_snippet(provenance, n_classes),
    )


def _facts(result: SearchResult, args: TrainingArguments, search: SearchConfig) -> dict[str, str]:
    states = result.history["state"].value_counts().to_dict()
    individuals = ", ".join(f"{count} {state}" for state, count in states.items())
    finalists = "; ".join(
        f"individual {f.trial}: {f.fitness.score:.4f} (n = {len(f.fitness.runs)})"
        for f in result.finalists
    )
    packages = ("hf-biotune", "torch", "transformers", "peft", "optuna", "timm")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return {
        "budget": "none" if search.budget is None else str(search.budget),
        "spent": f"{result.trainings:.1f} full trainings, {result.seconds:.0f} s",
        "individuals": individuals,
        "finalists, mean validation score": finalists,
        "winner": f"individual {result.best_trial}",
        "base learning rate": f"{args.learning_rate:g}",
        **_extra_facts(result),
        "compared methods": "at the same base learning rate, which is not tuned for any of them",
        "epochs": f"at most {args.num_train_epochs:g}",
        "batch size": str(args.per_device_train_batch_size * args.gradient_accumulation_steps),
        "schedule": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
        "training seeds": ", ".join(map(str, search.seeds)),
        "seed of the evolution": str(search.seed),
        "device": str(args.device),
        "computed": f"{result.execution}; final trainings {precision_of(args)}",
        "versions": f"Python {platform.python_version()}, {versions}",
    }


def _extra_facts(result: SearchResult) -> dict[str, str]:
    """What the extra genes of the winner decode to."""
    settings = settings_of(result.best_genotype.extra_genes)
    if not settings:
        return {}
    texts = {
        "base_lr": "base learning rate x {:.3g} (in the multipliers)",
        "l2sp": "L2-SP {:.2g}",
        "norm_statistics": "norm statistics {}",
        "weight_decay": "weight decay {:.2g}",
    }
    return {"extra genes": "; ".join(texts[name].format(x) for name, x in settings.items())}


def _loading_snippet(provenance: Provenance, n_classes: int) -> str:
    name = provenance.model_id or provenance.model
    auto = AUTO_CLASSES[provenance.task].__name__
    return (
        f"from transformers import {auto}\n"
        "from hf_biotune import BioTuneModel\n\n"
        f"base = {auto}.from_pretrained(\n"
        f"    {name!r}, num_labels={n_classes}, ignore_mismatched_sizes=True\n)\n"
        'model = BioTuneModel.from_pretrained(base, "adapter").merge_and_unload()'
    )
