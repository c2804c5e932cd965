"""The tables of `search_cost.py`: what presets cost and find, and what each lever is worth."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
ALONE = (
    "- layout",
    "- racing",
    "- halving",
    "- reuse",
    "- cache",
    "- surrogate",
    "- preference for cheap",
    "- seeded start",
)
SMALLER_BUDGETS = ("15 trainings", "10 trainings")
NONE = "n/a"
EPOCH = "epoch"
# The paper's trainings but for rounding, with the memory layout and optimizer kernel of ours.
CHEAPER_PAPER = "paper, our layout"
# That is what these are about, or they train no BatchNorm.
PYTORCH_STATISTICS = ("paper", CHEAPER_PAPER, "PyTorch's statistics", "linear probe")
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
    compared = {
        setting: found for setting, variants in by_setting.items() if (found := duel(variants))
    }
    parts = [headline(compared)] if compared else []
    if table := smaller_budgets(by_setting):
        parts.append(table)
    for setting, variants in by_setting.items():
        parts += [f"#### {setting}", presets(variants)]
        if setting in compared:
            parts.append(against_paper(compared[setting]))
        if told := cached(variants["default"]):
            parts.append(told)
        if table := levers(variants):
            parts.append(table)
    return "\n\n".join(part.strip() for part in parts)


def presets(variants: Mapping[str, Splits]) -> str:
    """A row for each variant whose winner was tested."""
    rows = [("Variant", "Splits", "Trainings", "Epochs", "CPU s", "Test", "Best three as one")]
    for variant, splits in variants.items():
        tested = [_score(run) for run in splits.values() if _tested(run)]
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
                _of_some(ensembles, len(tested)),
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


@dataclass(frozen=True)
class Duel:
    """The paper's scheme and the default on the splits that have both.

    Args:
        paper: which variant of the paper's scheme it is.
        ours: runs of the default, or of another of our variants, by split.
        ratios: of the CPU seconds of searches, one for each split.
        relative: the same in seconds of reference trainings just before and after each search.
        gains: the default's mean test score minus that of the paper's scheme.
        given: how much cheaper an individual of the paper's scheme was made by what it was given of
            our savings, if that was measured; 1 if it was given none.
    """

    paper: str
    ours: Splits
    ratios: Sequence[float]
    relative: Sequence[float]
    gains: Sequence[float]
    given: float | None

    @property
    def is_bound(self) -> bool:
        """Whether the paper's scheme was given some of our savings."""
        return self.paper == CHEAPER_PAPER

    @property
    def ratio(self) -> str:
        """Of the CPU seconds, the mean over splits; and what it would be for the plain scheme."""
        mean = float(np.mean(self.ratios))
        if not self.is_bound:
            return f"{mean:.1f}"
        estimate = f", about {mean * self.given:.0f}" if self.given is not None else ""
        return f"at least {mean:.1f}{estimate}"


def duel(variants: Mapping[str, Splits], ours: str = "default") -> Duel | None:
    """The comparison of one setting, as far as it was run."""
    for name in ("paper", CHEAPER_PAPER):
        paper, runs = variants.get(name, {}), variants.get(ours, {})
        if common := sorted(paper.keys() & runs.keys()):
            break
    else:
        return None
    pairs = [(paper[split], runs[split]) for split in common]
    ratios = [theirs["cpu_seconds"] / ours["cpu_seconds"] for theirs, ours in pairs]
    return Duel(
        name,
        runs,
        ratios,
        [
            ratio * np.mean(ours["reference_seconds"]) / np.mean(theirs["reference_seconds"])
            for ratio, (theirs, ours) in zip(ratios, pairs, strict=True)
        ],
        [_score(ours) - _score(theirs) for theirs, ours in pairs],
        1.0 if name == "paper" else _worth_of_layout(variants),
    )


def _worth_of_layout(variants: Mapping[str, Splits]) -> float | None:
    """By how much our memory layout and optimizer kernel make the paper's individuals cheaper."""
    plain, ours = variants.get("paper, few", {}), variants.get("+ layout", {})
    common = plain.keys() & ours.keys()
    if not common:
        return None
    ratios = [
        _cost_of_individual(plain[split]) / _cost_of_individual(ours[split]) for split in common
    ]
    return float(np.mean(ratios))


def headline(compared: Mapping[str, Duel]) -> str:
    """A row for each setting: how much cheaper the default is, and whether it is as good."""
    rows = [("Setting", "Splits", "Paper / default, CPU s", "Test score, default - paper")]
    for setting, found in compared.items():
        rows.append(
            (
                setting,
                str(len(found.ratios)),
                found.ratio,
                _difference(found.gains),
            )
        )
    gains = [gain for found in compared.values() for gain in found.gains]
    if len(compared) > 1:
        rows.append(("all splits", str(len(gains)), "", _difference(gains)))
    text = markdown_table(rows)
    if any(found.is_bound for found in compared.values()):
        text += (
            "\nWhere it says *at least*, the paper's scheme was run with the memory layout and the "
            "optimizer kernel of the default, since it would have taken too long without them: the "
            "same trainings but for rounding, at less cost (see the row *+ layout* of the levers)."
        )
    if any(found.is_bound and found.given is not None for found in compared.values()):
        text += (
            " What follows *about* is an estimate for the plain scheme: the bound times what its "
            "first individuals cost without them over what they cost with them."
        )
    return text


def smaller_budgets(by_setting: Mapping[str, Mapping[str, Splits]]) -> str:
    """What a search for less than the default's budget costs and finds; `""` if none was run."""
    rows = []
    for budget in SMALLER_BUDGETS:
        gains, losses = [], []
        for setting, variants in by_setting.items():
            found = duel(variants, budget)
            if found is None:
                continue
            default = variants["default"]
            lost = [
                _score(run) - _score(default[split])
                for split, run in found.ours.items()
                if split in default
            ]
            gains += found.gains
            losses += lost
            rows.append((setting, budget, found.ratio, _difference(found.gains), _difference(lost)))
        if gains:
            rows.append(("all splits", budget, "", _difference(gains), _difference(losses)))
    if not rows:
        return ""
    head = ("Setting", "Budget", "Paper / it, CPU s", "Test, it - paper", "Test, it - default")
    return (
        f"With a smaller budget than the default's 20 trainings:\n\n{markdown_table([head, *rows])}"
    )


def against_paper(found: Duel) -> str:
    """The ratio of costs and the difference of scores, split by split."""
    n = len(found.ratios)
    scheme = "The paper's scheme"
    if found.is_bound:
        scheme += ", with our memory layout and optimizer kernel,"
    bound = "at least " if found.is_bound else ""
    return (
        f"{scheme} costs {bound}**{np.mean(found.ratios):.1f} times** the default's CPU "
        f"seconds on {n} {'splits' if n > 1 else 'split'} ({_list(found.ratios)}); in units of a "
        f"reference training beside each, {np.mean(found.relative):.1f} times "
        f"({_list(found.relative)}). Test score of the default minus that of the paper's scheme: "
        f"{_difference(found.gains)}.{_old(found.ours)}"
    )


def cached(default: Splits) -> str:
    """What the prefix cache did, and whether the order of individuals matters to it."""
    runs = [run for run in default.values() if run.get("cache")]
    if not runs:
        return ""
    numbers = [number for run in runs for number in run["frozen_first"]]
    served, through = (sum(run["cache"][name] for run in runs) for name in ("hits", "misses"))
    saved = sum(run["cache"]["seconds_saved"] for run in runs)
    seconds = sum(run["cpu_seconds"] for run in runs)
    boundaries = sum(len(set(run["frozen_first"]) - {0}) for run in runs)
    memory = max(run["cache"]["memory_bytes"] for run in runs) / 2**20
    text = (
        f"The default's prefix cache: {sum(n > 0 for n in numbers)} of {len(numbers)} individuals "
        f"freeze the first block, {np.mean(numbers):.1f} first blocks on average. "
        f"{served / (served + through):.0%} of all samples came from the cache, which saved "
        f"{saved:.0f} s beside the {seconds:.0f} CPU s that were spent, and held at most "
        f"{memory:.0f} MiB."
    )
    if not any(run["cache"]["file_bytes"] for run in runs):
        text += (
            f" All {boundaries} boundaries stayed in memory, so that each was computed once: to "
            f"train individuals in the order of their boundaries would save nothing more."
        )
    return text


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
    # Without a surrogate there is nothing to prefer.
    guided = [name for name in costs if name in ("default, few", *ALONE)]
    runs = [run for name in guided for run in variants[name].values()]
    old = (
        " The default's runs are of before `prefer_cheap`." if any(map(_is_of_before, runs)) else ""
    )
    return (
        "What an individual costs, in CPU seconds of a plain full fine-tuning, in the first "
        "generation and a little more. First one lever more from row to row, from the paper's "
        "scheme to the default; then the default without one of them. A lever that changes which "
        f"individuals are tried, as the seeded start does, changes what they cost.{old}\n\n"
        f"{markdown_table(rows)}{_numbers_of_individuals(variants)}"
    )


def _is_of_before(run: Run) -> bool:
    """Whether a run was measured before searches preferred cheap trainings."""
    return "frozen_first" not in run


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


def _of_some(values: Sequence[float], n_splits: int) -> str:
    """A mean, and of how many splits it is if these are not all."""
    if not values:
        return NONE
    part = f" ({len(values)} of {n_splits} splits)" if len(values) < n_splits else ""
    return f"{np.mean(values):.4f}{_interval(values)}{part}"


def _score(run: Run) -> float:
    """The mean test score of the winner's final trainings."""
    return float(np.mean(run["test_scores"]))


def _difference(values: Sequence[float]) -> str:
    return f"{np.mean(values):+.4f}{_interval(values)}"


def _interval(values: Sequence[float]) -> str:
    """The 95 % interval of the mean over splits, by Student's t."""
    if len(values) < 2:
        return ""
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return f" ± {half:.4f}"


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
