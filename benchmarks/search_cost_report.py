"""The tables of `search_cost.py`: what presets cost and find, and what each lever is worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from hf_biotune.report.tables import markdown_table

# One more lever each, from the paper's scheme to the default's; one less each, from the default's.
CUMULATIVE = (
    "paper, few",
    "+ layout",
    "+ one seed",
    "+ halving, racing",
    "+ reuse",
    "+ cache",
    "default, few",
)
ALONE = ("- layout", "- racing", "- halving", "- reuse", "- cache", "- surrogate", "- seeded start")
NONE = "n/a"
EPOCH = "epoch"
# That is what these are about, or they train no BatchNorm.
PYTORCH_STATISTICS = ("paper", "PyTorch's statistics", "linear probe")
Run = Mapping[str, Any]
Splits = Mapping[int, Run]


def search_cost_section(runs: Sequence[Run]) -> str:
    """What searches cost and find, and what each lever is worth, as Markdown.

    Args:
        runs: as `search_cost.py` keeps them.
    """
    by_setting: dict[str, dict[str, dict[int, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        by_setting[run["setting"]][run["variant"]][run["split"]] = run
    parts = []
    for setting, variants in by_setting.items():
        parts += [f"#### {setting}", presets(variants)]
        if variants["paper"].keys() & variants["default"].keys():
            parts.append(against_paper(variants["paper"], variants["default"]))
        if table := levers(variants):
            parts.append(table)
    return "\n\n".join(part.strip() for part in parts)


def presets(variants: Mapping[str, Splits]) -> str:
    """A row for each variant whose winner was tested."""
    rows = [("Variant", "Splits", "Trainings", "Epochs", "CPU s", "Test", "Best three as one")]
    for variant, splits in variants.items():
        tested = [float(np.mean(run["test_scores"])) for run in splits.values() if _tested(run)]
        if not tested:
            continue
        searched = any(run["epochs"] for run in splits.values())
        kept = (run.get("ensemble_score") for run in splits.values())
        ensembles = [score for score in kept if score is not None]
        rows.append(
            (
                _label(variant, splits),
                ", ".join(map(str, sorted(splits))),
                f"{_mean(splits, 'trainings'):.1f}" if searched else "none",
                f"{_mean(splits, 'epochs'):.0f}" if searched else "",
                f"{_mean(splits, 'cpu_seconds'):.0f}" if searched else "",
                f"{np.mean(tested):.4f}{_interval(tested)}",
                f"{np.mean(ensembles):.4f}{_interval(ensembles)}" if ensembles else NONE,
            )
        )
    return markdown_table(rows)


def _label(variant: str, splits: Splits) -> str:
    """A variant, and whether it was measured before averages of an epoch became the default."""
    if variant in PYTORCH_STATISTICS or _modes(splits) == {EPOCH}:
        return variant
    return f"{variant}, when PyTorch's BatchNorm statistics were the default"


def _modes(splits: Splits) -> set[str]:
    # Runs that do not tell are older than the choice.
    return {run.get("norm_statistics", "train") for run in splits.values()}


def against_paper(paper: Splits, default: Splits) -> str:
    """The ratio of costs and the difference of scores, on the splits that both have."""
    common = sorted(paper.keys() & default.keys())
    ratios = [paper[split]["cpu_seconds"] / default[split]["cpu_seconds"] for split in common]
    # Per second of a reference training that was measured just before and after.
    relative = [
        ratio * np.mean(default[s]["reference_seconds"]) / np.mean(paper[s]["reference_seconds"])
        for ratio, s in zip(ratios, common, strict=True)
    ]
    gains = [
        float(np.mean(default[split]["test_scores"]) - np.mean(paper[split]["test_scores"]))
        for split in common
    ]
    splits = f"{len(common)} splits" if len(common) > 1 else "1 split"
    return (
        f"The paper's scheme costs **{np.mean(ratios):.1f} times** the default's CPU seconds on "
        f"{splits} ({_list(ratios)}); in units of a reference training beside each, "
        f"{np.mean(relative):.1f} times ({_list(relative)}). Test score of the default minus that "
        f"of the paper's scheme: {np.mean(gains):+.4f}{_interval(gains)}.{_old(default)}"
    )


def _old(default: Splits) -> str:
    if _modes(default) == {EPOCH}:
        return ""
    return (
        " Both had PyTorch's BatchNorm statistics; with averages of the epoch, the default of "
        "today, neither cost nor score have been measured anew here."
    )


def levers(variants: Mapping[str, Splits]) -> str:
    """What an individual costs with each lever, in reference trainings; `""` if none was run."""
    costs = {
        name: float(np.mean([_cost_of_individual(run) for run in variants[name].values()]))
        for name in (*CUMULATIVE, *ALONE)
        if variants.get(name)
    }
    if "paper, few" not in costs:
        return ""
    rows = [("Lever", "An individual, in full fine-tunings", "Worth")]
    before = None
    for name in CUMULATIVE:
        if name in costs:
            worth = "" if before is None else f"{before / costs[name]:.2f} x"
            rows.append((name, f"{costs[name]:.3f}", worth))
            before = costs[name]
    for name in ALONE:
        if name in costs and "default, few" in costs:
            worth = f"{costs[name] / costs['default, few']:.2f} x"
            rows.append((f"default {name}", f"{costs[name]:.3f}", worth))
    return (
        "What an individual costs, in CPU seconds of a plain full fine-tuning, in the first "
        "generation and a little more. First one lever more from row to row, from the paper's "
        "scheme to the default; then the default without one of them. A lever that changes which "
        "individuals are tried, as the seeded start does, changes what they cost.\n\n"
        f"{markdown_table(rows)}{_numbers_of_individuals(variants)}"
    )


def _numbers_of_individuals(variants: Mapping[str, Splits]) -> str:
    """What the levers of the table do not say: how many individuals a whole search tries."""
    if not (variants.get("paper") and variants.get("default")):
        return ""
    numbers = [
        float(np.mean([sum(run["individuals"].values()) for run in variants[name].values()]))
        for name in ("paper", "default")
    ]
    return (
        f"\nThe rest is their number: {numbers[0]:.0f} in the paper's scheme, {numbers[1]:.0f} in "
        f"the default's."
    )


def _cost_of_individual(run: Run) -> float:
    """In reference trainings, so that a busy machine changes nothing."""
    individuals = sum(run["individuals"].values())
    return float(run["cpu_seconds"] / individuals / np.mean(run["reference_seconds"]))


def _tested(run: Run) -> bool:
    return len(run["test_scores"]) > 0


def _mean(splits: Splits, name: str) -> float:
    return float(np.mean([run[name] for run in splits.values()]))


def _interval(values: Sequence[float]) -> str:
    """The 95 % interval of the mean over splits, by Student's t."""
    if len(values) < 2:
        return ""
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f" ± {half:.4f}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
