"""What a report tells of a finished search: facts, origin, and how to load the winner."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import dataclass

import pandas as pd
from transformers import TrainingArguments

from .exceptions import ConfigError
from .extra_genes import settings_of
from .report import ReportData
from .search import EncodedSplit, SearchConfig, SearchResult, resolve_metric
from .search.execution import precision_of
from .search.models import AUTO_CLASSES, IMAGE_TASK

# Of more, a model card does not list the names.
MOST_NAMED_CLASSES = 20
_COMPARED = "at the same base learning rate, which is not tuned for any of them"
PIXELS, TOKENS = "pixel_values", "input_ids"


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


def report_data_of(
    result: SearchResult,
    comparison: pd.DataFrame | None,
    facts: dict[str, str],
    search: SearchConfig,
    provenance: Provenance,
    samples: EncodedSplit,
) -> ReportData:
    """What the report of a search shows.

    Args:
        result: of the search.
        comparison: of final models; `None` without any.
        facts: see [`facts_of`].
        search: its settings.
        provenance: where it came from.
        samples: of the training, whose classes and sizes whoever loads the model must know.
    """
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
        facts=facts,
        command=provenance.command,
        python=loading_snippet(provenance, samples, is_trained=comparison is not None),
        finalists=result.finalists_frame,
        importances=_importances(result),
        lineage=result.lineage(),
        front=result.pareto_front,
    )


def _importances(result: SearchResult) -> pd.Series[float] | None:
    """`None` if the search was too small to tell."""
    try:
        return result.block_importances()
    except ConfigError:
        return None


def facts_of(
    result: SearchResult, args: TrainingArguments, search: SearchConfig, *, has_finals: bool = True
) -> dict[str, str]:
    """What a search was and spent, by name.

    Args:
        result: of the search.
        args: of its trainings.
        search: its settings.
        has_finals: whether final models were trained too.
    """
    states = result.history["state"].value_counts().to_dict()
    individuals = ", ".join(f"{count} {state}" for state, count in states.items())
    finalists = "; ".join(
        f"individual {f.trial}: {f.fitness.score:.4f} (n = {len(f.fitness.runs)})"
        for f in result.finalists
    )
    packages = ("hf-biotune", "torch", "transformers", "peft", "optuna", "timm")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    cache = result.cache_statistics
    return {
        "budget": "none" if search.budget is None else str(search.budget),
        "spent": f"{result.trainings:.1f} full trainings, {result.seconds:.0f} s",
        "individuals": individuals,
        "finalists, mean validation score": finalists,
        "winner": f"individual {result.best_trial}",
        "base learning rate": f"{args.learning_rate:g}",
        **_extra_facts(result),
        **({"compared methods": _COMPARED} if has_finals else {}),
        "epochs": f"at most {args.num_train_epochs:g}",
        "batch size": str(args.per_device_train_batch_size * args.gradient_accumulation_steps),
        "schedule": str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)),
        "training seeds": ", ".join(map(str, search.seeds)),
        "seed of the evolution": str(search.seed),
        "device": str(args.device),
        **({"prefix cache": str(cache)} if cache is not None and cache.share else {}),
        "computed": str(result.execution)
        + (f"; final trainings {precision_of(args)}" if has_finals else ""),
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


def loading_snippet(
    provenance: Provenance, samples: EncodedSplit, *, is_trained: bool = True
) -> str:
    """How to load the adapter in `adapter`, and what makes inputs of the size it was trained with.

    Args:
        provenance: the base model, and its task.
        samples: of the training.
        is_trained: whether there is an adapter, rather than the configuration of one.
    """
    name = provenance.model_id or provenance.model
    auto = AUTO_CLASSES[provenance.task].__name__
    is_image = provenance.task == IMAGE_TASK
    preparer = "AutoImageProcessor" if is_image else "AutoTokenizer"
    classes = f"num_labels={samples.n_classes}"
    lines = [f"from transformers import {', '.join(sorted((auto, preparer)))}"]
    if is_trained:
        lines.append("from hf_biotune import BioTuneModel")
        load = 'BioTuneModel.from_pretrained(base, "adapter").merge_and_unload()'
    else:
        lines += [
            "from hf_biotune import get_biotune_model",
            "from hf_biotune.tune import read_config",
        ]
        load = 'get_biotune_model(base, read_config("best_config.json"))  # not trained yet'
    if is_image:
        lines.append("from hf_biotune.search.transforms import resize_processor")
    if samples.n_classes <= MOST_NAMED_CLASSES:
        lines.append(f"\nclasses = {list(samples.label_names)!r}")
        classes = "id2label=dict(enumerate(classes))"
    lines += [
        f"\nbase = {auto}.from_pretrained(",
        f"    {name!r}, {classes}, ignore_mismatched_sizes=True",
        ")",
        f"model = {load}",
    ]
    shape = samples.inputs[PIXELS].shape if PIXELS in samples.inputs else ()
    if is_image and len(shape) == 4 and shape[2] == shape[3]:
        lines += [
            f"# Trained with images of {shape[3]} pixels.",
            f"processor = AutoImageProcessor.from_pretrained({name!r})",
            f"processor = resize_processor(processor, {shape[3]})",
        ]
    elif TOKENS in samples.inputs:
        width = samples.inputs[TOKENS].shape[1]
        lines += [
            f"# Trained with texts of at most {width} tokens.",
            f"tokenizer = AutoTokenizer.from_pretrained({name!r}, model_max_length={width})",
        ]
    return "\n".join(lines)
