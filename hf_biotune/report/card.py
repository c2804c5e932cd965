"""The model card of a run: `README.md`, made from the same data as the report."""

from __future__ import annotations

import os
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..card import (
    CITATION,
    LIBRARY,
    code,
    escaped,
    fenced,
    is_repo_id,
    one_line,
    table,
    update_card,
)
from ..hub import FIGURES
from . import numbers, summary, tables
from .html import NORM_STATISTICS

if TYPE_CHECKING:
    from .data import ReportData

FIGURE_TITLES = {
    "blocks": "The blocks of the model, and which are trained",
    "importances": "How much each block matters for the score",
    "evolution": "Scores by generation",
    "individuals": "Which blocks each individual trained",
    "comparison": "Test scores by method",
    "pareto": "Validation score against trained parameters",
}
# A file of ours is `{PREFIX}{tensor name}`: it loads without us.
_WITHOUT_US = """from safetensors.torch import load_file

weights = load_file("{weights}")
tensors = {{name.removeprefix("base_model.model."): tensor for name, tensor in weights.items()}}
base.load_state_dict(tensors, strict=False)  # base: the same pre-trained model, without adapter"""


def write_model_card(
    directory: str | os.PathLike[str],
    data: ReportData,
    *,
    base_model: str | None = None,
    dataset: str | None = None,
    license: str | None = None,
    task: str = "image-classification",
    seed: int | None = None,
    adapter: str = "adapter",
) -> Path:
    """Write `README.md` from a run, or renew our part of the one that is there.

    It holds measured numbers only: a score of one seed has no interval, and what
    is not known is left out.

    Args:
        directory: that will be the repository; figures that lie in it are shown.
        data: of the run, as for [`write_report`]. No text in it is trusted: all is escaped.
        base_model: the base model's name on the Hub, for the card's header; what can't be one, such
            as a local directory, is left out of it.
        dataset: the data set's name on the Hub, likewise.
        license: of the adapter, as the Hub writes it (`"apache-2.0"`), if known.
        task: as the Hub calls it.
        seed: of the training whose weights are saved, if one of several is.
        adapter: where in the directory the adapter lies; `""` for the directory itself.

    Returns:
        The path of `README.md`.

    Example:
        ```python
        write_model_card("biotune", data, base_model="timm/resnet50.a1_in1k", seed=684)
        ```
    """
    directory = Path(directory)
    base_model = base_model if is_repo_id(base_model) else None
    dataset = dataset if is_repo_id(dataset) else None
    results = evaluation_results(data, dataset=dataset, task=task, seed=seed)
    header = ModelCardData(
        base_model=base_model,
        datasets=[dataset] if dataset else None,
        library_name=LIBRARY,
        license=license,
        pipeline_tag=task,
        # Without results there is no model-index, whose name this is.
        model_name=(one_line(data.title) or "BioTune adapter") if results else None,
        eval_results=results or None,
    )
    body = _render(data, directory, adapter, seed)
    return update_card(directory, body, header.to_dict())  # type: ignore[no-untyped-call]


def evaluation_results(
    data: ReportData,
    *,
    dataset: str | None = None,
    task: str = "image-classification",
    seed: int | None = None,
) -> list[EvalResult]:
    """The scores of BioTune in the Hub's form, each with the seeds that it comes from.

    Args:
        data, dataset, task, seed: see [`write_model_card`].

    Returns:
        Per split: the mean over seeds, and the score of the saved weights if `seed` is one of
        several. Nothing if there was no final comparison.
    """
    own = _own_row(data)
    if own is None:
        return []
    results = []
    for split in ("test", "validation"):
        scores = [float(score) for score in own[f"{split}_scores"]]
        by_seed = {
            int(s): score
            for s, score in zip(own["seeds"], scores, strict=False)
            if numbers.finite([score])
        }
        for name, value, seeds in _measured(by_seed, seed, numbers.metric_name(data.metric)):
            results.append(
                EvalResult(
                    task_type=task,
                    dataset_type=dataset or _slug(data.dataset_name),
                    dataset_name=one_line(data.dataset_name) or "unnamed",
                    dataset_split=split,
                    metric_type=_slug(data.metric),
                    metric_name=name,
                    metric_value=value,
                    metric_args={"seeds": seeds, "scores": [by_seed[s] for s in seeds]},
                )
            )
    return results


def _measured(
    by_seed: dict[int, float], seed: int | None, metric: str
) -> list[tuple[str, float, list[int]]]:
    """Name, value and seeds of each number worth stating."""
    if not by_seed:
        return []
    metric = one_line(metric)
    if len(by_seed) == 1:
        (only,) = by_seed
        return [(f"{metric}, seed {only}", by_seed[only], [only])]
    name = f"{metric}, mean of {len(by_seed)} seeds"
    measured = [(name, statistics.fmean(by_seed.values()), list(by_seed))]
    if seed in by_seed:
        measured.append((f"{metric}, seed {seed} (these weights)", by_seed[seed], [seed]))
    return measured


def _own_row(data: ReportData) -> dict[str, Any] | None:
    if data.comparison is None:
        return None
    rows = [
        row for row in data.comparison.to_dict("records") if row["method"] == summary.OWN_METHOD
    ]
    return {str(key): value for key, value in rows[0].items()} if rows else None


def _slug(text: str) -> str:
    """A text as the Hub's types are written."""
    return re.sub(r"[^a-z0-9]+", "-", one_line(text).lower()).strip("-") or "unknown"


def _render(data: ReportData, directory: Path, adapter: str, seed: int | None) -> str:
    environment = Environment(
        loader=PackageLoader("hf_biotune.report", "templates"),
        # Markdown is escaped value by value: HTML's rules would spoil code.
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    weights = "/".join(filter(None, (adapter, "adapter_model.safetensors")))
    headline = summary.headline(data)
    text = environment.get_template("card.md.j2").render(
        title=escaped(data.title),
        base_model=code(data.model_name),
        dataset=code(data.dataset_name),
        sentence=escaped(headline.sentence),
        note=escaped(headline.note),
        blocks=_blocks_table(data),
        norm_statistics=escaped(NORM_STATISTICS.get(data.norm_statistics, data.norm_statistics)),
        scores=_scores_table(data),
        comparison=_comparison_table(data),
        metric=escaped(numbers.metric_name(data.metric)),
        greater_is_better=data.greater_is_better,
        seed=seed,
        facts=table(("", ""), [(escaped(k), escaped(v)) for k, v in data.facts.items()]),
        has_facts=bool(data.facts),
        census=escaped(summary.census(data.history)) if len(data.history) else None,
        figures=[(name, FIGURE_TITLES[name]) for name in FIGURES if _exists(directory, name)],
        has_report=(directory / "report.html").is_file(),
        command=fenced(data.command, "bash") if data.command.strip() else None,
        python=fenced(data.python, "python"),
        adapter=adapter,
        without_us=fenced(_WITHOUT_US.format(weights=weights), "python"),
        citation=CITATION,
    )
    # The blank lines of parts that are left out.
    return re.sub(r"\n{3,}", "\n\n", text)


def _exists(directory: Path, figure: str) -> bool:
    return (directory / f"{figure}.png").is_file()


def _blocks_table(data: ReportData) -> str:
    rows = [
        (code(row.block), row.parameters, row.share, row.multiplier or "frozen", row.rate or "")
        for row in tables.winner_rows(data)
    ]
    total = tables.winner_total(data)
    rows.append((f"**{total.block}**", total.parameters, total.share, "", ""))
    head = ("Block", "Parameters", "Share", "Multiplier", "Learning rate")
    columns = head if tables.base_rate(data) is not None else head[:-1]
    return table(columns, [row[: len(columns)] for row in rows])


def _scores_table(data: ReportData) -> str | None:
    """Every seed's own score, of every method."""
    if data.comparison is None or not len(data.comparison):
        return None
    rows = [
        (escaped(row["method"]), str(int(seed)), _nth(row["validation_scores"], index),
         _nth(row["test_scores"], index))
        for row in data.comparison.to_dict("records")
        for index, seed in enumerate(row["seeds"])
    ]  # fmt: skip
    return table(("Method", "Seed", "Validation", "Test"), rows)


def _nth(scores: Sequence[float], index: int) -> str:
    return numbers.score(float(scores[index])) if index < len(scores) else numbers.NONE


def _comparison_table(data: ReportData) -> str | None:
    if data.comparison is None or not len(data.comparison):
        return None
    rows = [[escaped(cell) for cell in row] for row in tables.comparison_rows(data.comparison)]
    return table(tables.COMPARISON_COLUMNS, rows)
