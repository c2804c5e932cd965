"""The tables of `search_cost.py`: what presets cost and find, and what each lever is worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

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
Run = Mapping[str, Any]


def print_report(runs: Sequence[Run]) -> None:
    """Print the tables of the runs that there are.

    Args:
        runs: as `search_cost.py` keeps them.
    """
    by_setting: dict[str, dict[str, dict[int, Run]]] = defaultdict(lambda: defaultdict(dict))
    for run in runs:
        by_setting[run["setting"]][run["variant"]][run["split"]] = run
    for setting, variants in by_setting.items():
        print(f"\n{setting}")
        _print_presets(variants)
        if "paper" in variants and "default" in variants:
            _print_comparison(variants["paper"], variants["default"])
        _print_levers(variants)


def _print_presets(variants: Mapping[str, Mapping[int, Run]]) -> None:
    print(f"  {'variant':<18} splits trainings  epochs    CPU s    test")
    for variant, splits in variants.items():
        tested = [float(np.mean(run["test_scores"])) for run in splits.values() if _tested(run)]
        if tested:
            print(
                f"  {variant:<18} {len(splits):6d} {_mean(splits, 'trainings'):9.1f} "
                f"{_mean(splits, 'epochs'):7.0f} {_mean(splits, 'cpu_seconds'):8.1f} "
                f"{np.mean(tested):7.4f} {_interval(tested)}"
            )


def _print_comparison(paper: Mapping[int, Run], default: Mapping[int, Run]) -> None:
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
    print(f"  CPU seconds, ratio on {len(common)} splits: {np.mean(ratios):.1f} ({_list(ratios)})")
    print(f"  in reference trainings: {np.mean(relative):.1f} ({_list(relative)})")
    print(f"  default - paper, test score: {np.mean(gains):+.4f} {_interval(gains)}")


def _print_levers(variants: Mapping[str, Mapping[int, Run]]) -> None:
    """Seconds per individual, in reference trainings, so that a busy machine changes nothing."""
    costs = {
        name: float(np.mean([_cost_of_individual(run) for run in variants[name].values()]))
        for name in (*CUMULATIVE, *ALONE)
        if name in variants
    }
    if "paper, few" in costs:
        print("  one individual, in full fine-tunings without any lever")
    before = None
    for name in CUMULATIVE:
        if name in costs:
            step = "" if before is None else f"  x {before / costs[name]:.2f}"
            print(f"  {name:<18} {costs[name]:7.3f}{step}")
            before = costs[name]
    for name in ALONE:
        if name in costs and "default, few" in costs:
            print(f"  {name:<18} {costs[name]:7.3f}  x {costs[name] / costs['default, few']:.2f}")


def _cost_of_individual(run: Run) -> float:
    individuals = sum(run["individuals"].values())
    return float(run["cpu_seconds"] / individuals / np.mean(run["reference_seconds"]))


def _tested(run: Run) -> bool:
    return len(run["test_scores"]) > 0


def _mean(splits: Mapping[int, Run], name: str) -> float:
    return float(np.mean([run[name] for run in splits.values()]))


def _interval(values: Sequence[float]) -> str:
    """The 95 % interval of the mean over splits, by Student's t."""
    if len(values) < 2:
        return "(one split)"
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f"[{np.mean(values) - half:.4f}, {np.mean(values) + half:.4f}]"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
