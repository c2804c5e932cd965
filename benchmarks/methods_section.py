"""The part of `docs/results.md` about BioTune and other methods, from `comparison.py`'s files."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib import rc_context

from hf_biotune.contest.outputs import table_rows
from hf_biotune.contest.overall import (
    Duel,
    common_methods,
    duels,
    overall_duels,
    overall_ranking,
    record_of,
)
from hf_biotune.contest.standings import Standings
from hf_biotune.contest.statistics import split_means
from hf_biotune.report import numbers
from hf_biotune.report.plots import plot_critical_difference
from hf_biotune.report.tables import markdown_table

OURS = "biotune"
ENSEMBLE = "biotune-ensemble"
MUST_HOLD = ("full", "lora")
# Method, macro accuracy, rank, trained parameters, checkpoint, tuning, final training, memory.
COLUMNS = (0, 1, 6, 7, 8, 9, 10, 11)


def read(directory: Path) -> list[Standings]:
    """The comparisons that there are, by name of the file."""
    files = sorted(directory.glob("*.json"))
    return [Standings.from_dict(json.loads(file.read_text("utf-8"))) for file in files]


def section(comparisons: list[Standings], plot: str) -> str:
    """The part of the page.

    Args:
        comparisons: of every setting.
        plot: where the page finds that of mean ranks.
    """
    parts = [
        "## BioTune and other methods",
        coverage(comparisons),
        "### Mean ranks",
        ranks(comparisons, plot),
        "### Where BioTune wins, and where it does not",
        "Differences in macro accuracy (ours minus the other) "
        "with 95 % intervals, before any correction for the number of pairs; bold where the "
        "interval leaves out 0.",
        *(part for name in own_of(comparisons) for part in stand_of(name, comparisons)),
        "### What the validation samples promised",
        promises(comparisons),
        "### Scores and costs",
        "Peak memory on a CPU is that of the whole process, with libraries, data and caches; LoRA "
        "works on a copy of the model, and ensembles hold all their members.",
        *(f"#### {each.name}\n\n{scores(each)}" for each in comparisons),
    ]
    return "\n\n".join(parts)


def own_of(comparisons: list[Standings]) -> list[str]:
    """Our methods that are in every comparison."""
    return [name for name in (OURS, ENSEMBLE) if name in common_methods(comparisons)]


def stand_of(name: str, comparisons: list[Standings]) -> list[str]:
    """What is shown of one of our methods."""
    titles = titles_of(comparisons)
    of_settings, of_all = duels(comparisons, name), overall_duels(comparisons, name)
    return [claims(titles[name], of_settings, of_all, titles), target(name, comparisons)]


def titles_of(comparisons: list[Standings]) -> dict[str, str]:
    """Of every method, by its name."""
    return {record.name: record.title for each in comparisons for record in each.records}


def coverage(comparisons: list[Standings]) -> str:
    """What was compared, and what of it is finished."""
    moving = _moving_statistics(comparisons)
    lines = [
        "Made by `benchmarks/comparison.py`. All methods get the same data, epochs, patience, "
        "batches and splits. Each chooses its rate (of three) and, where there is one to choose, "
        f"its BatchNorm mode ({moving}, or frozen) by validation samples. Searches leave that mode "
        f"alone ({moving}) and choose blocks and rates; those of "
        "different splits and data sets draw different genotypes. The cost of tuning, and of a "
        "search, is in the tables. The ensembles of searches are all trainings of the best three "
        "individuals that were kept, up to nine models at no further training; that of full "
        "fine-tuning is five models. Intervals are 95 % of Student's t over the means of splits, "
        "or over seeds where there is one split. The splits of a setting are drawn from one pool "
        "and share samples, so that for new data of the same kind the intervals are too narrow.",
        "",
    ]
    for each in comparisons:
        plan = each.plan
        done = sum(len(record.runs) for record in each.records)
        wanted = sum(record.n_wanted for record in each.records if not record.why_not)
        size = f"{plan['image_size']} pixels" if plan["image_size"] else ""
        size = size or f"{plan['max_length']} tokens"
        lines.append(
            f"- {each.name}: {len(each.records)} methods, {_counted(plan['splits'], 'split')}, "
            f"{_counted(len(plan['seeds']), 'seed')} each; {size}, at most {plan['epochs']} "
            f"epochs, searches of {plan['budget']} trainings{_of_before(plan)}; {done} of {wanted} "
            f"final trainings done."
        )
    return "\n".join(lines)


def _of_before(plan: Mapping[str, Any]) -> str:
    return "" if plan.get("prefer_cheap") else " that did not yet prefer cheap ones"


def _moving_statistics(comparisons: list[Standings]) -> str:
    modes = {
        tuning["setting"]["norm_statistics"]
        for each in comparisons
        for tuning in record_of(each, OURS).tunings.values()
        if "setting" in tuning
    }
    return "PyTorch's moving statistics" if "train" in modes else "averages of the epoch"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def ranks(comparisons: list[Standings], plot: str) -> str:
    """The table of mean ranks, and what it can't tell apart."""
    found, titles = overall_ranking(comparisons), titles_of(comparisons)
    names = sorted(found.ranks, key=found.ranks.__getitem__)
    alone = overall_ranking(single_models(comparisons)).ranks
    table = [("Method", "Mean rank", "Among single models")]
    for name in names:
        place = f"{alone[name]:.2f}" if name in alone else numbers.NONE
        table.append((titles[name], f"{found.ranks[name]:.2f}", place))
    friedman = "" if math.isnan(found.friedman) else f" Friedman's test: p = {found.friedman:.2g}."
    return (
        f"{markdown_table(table)}\nOver {_counted(found.n_blocks, 'split')} of "
        f"{_counted(len(comparisons), 'setting')}; 1 is best. Ranks that differ by less than "
        f"{found.critical_difference:.2f} can't be told apart (Nemenyi, 0.05).{friedman} "
        f"Both take splits of one setting for independent data sets, which they are not quite.\n\n"
        f"![Critical difference]({plot})"
    )


def single_models(comparisons: list[Standings]) -> list[Standings]:
    """The same without ensembles, which answer with several models."""
    return [
        replace(each, records=tuple(r for r in each.records if not r.name.endswith("-ensemble")))
        for each in comparisons
    ]


def claims(title: str, found: list[Duel], of_all: list[Duel], titles: dict[str, str]) -> str:
    """One of our methods against each other, setting by setting and over all splits."""
    settings = list(dict.fromkeys(duel.setting for duel in found))
    by_rival: dict[str, dict[str, Duel]] = defaultdict(dict)
    for duel in found:
        by_rival[duel.rival][duel.setting] = duel
    overall = {duel.rival: duel for duel in of_all}
    table = [(f"{title} against", *settings, "all splits")]
    for rival, of_settings in by_rival.items():
        cells = [_cell(of_settings.get(setting)) for setting in settings]
        table.append((titles[rival], *cells, _cell(overall.get(rival))))
    counts = dict.fromkeys(("better", "worse", "no difference shown"), 0)
    for duel in found:
        counts[duel.verdict] += 1
    summary = ", ".join(f"{count} times {verdict}" for verdict, count in counts.items())
    return f"{markdown_table(table)}\nIn all {len(found)} pairs of a setting: {summary}."


def _cell(duel: Duel | None) -> str:
    if duel is None:
        return numbers.NONE
    found = duel.difference
    text = numbers.difference(found.mean)
    if math.isfinite(found.half_width):
        text += f" ± {found.half_width:.3f}"
    return text if duel.verdict.startswith("no") else f"**{text}**"


def target(name: str, comparisons: list[Standings]) -> str:
    """Whether the target is met: the best mean rank, nowhere clearly below two rivals."""
    found, titles = overall_ranking(comparisons), titles_of(comparisons)
    title, best = titles[name], min(found.ranks, key=found.ranks.__getitem__)
    rank = f"{title} has the best mean rank"
    singles = overall_ranking(single_models(comparisons)).ranks
    if found.ranks[name] > found.ranks[best]:
        place = sorted(found.ranks.values()).index(found.ranks[name]) + 1
        rank = f"{title} has place {place} of {len(found.ranks)} by mean rank; the best is "
        rank += titles[best]
        if name in singles and singles[name] == min(singles.values()):
            rank += f". Among the {len(singles)} that are single models it has the best"
    found_duels = duels(comparisons, name)
    if not any(math.isfinite(duel.difference.half_width) for duel in found_duels):
        return (
            f"{rank}. With one final training a setting there are no intervals: of single settings "
            f"nothing is shown."
        )
    below = [duel for duel in found_duels if duel.rival in MUST_HOLD and duel.verdict == "worse"]
    if not below:
        rivals = " or ".join(titles[rival] for rival in MUST_HOLD)
        return f"{rank}. On no setting is it below {rivals} by more than the interval."
    where = "; ".join(f"{titles[d.rival]} on {d.setting}" for d in below)
    return f"{rank}. It is below a rival by more than the interval here: {where}."


def promises(comparisons: list[Standings]) -> str:
    """The score by which each method chose its setting, beside what the choice is worth."""
    titles = titles_of(comparisons)
    rows = []
    for name in common_methods(comparisons):
        pairs = [pair for each in comparisons for pair in _promised(each, name)]
        if pairs:
            promised, kept = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
            rows.append((promised - kept, titles[name], promised, kept))
    table = [("Method", "Validation", "Test", "Lost")]
    for lost, title, promised, kept in sorted(rows):
        table.append((title, f"{promised:.3f}", f"{kept:.3f}", numbers.difference(lost)))
    return (
        "The validation score of the setting that a method chose, and the test score of its final "
        "trainings, means over all splits of all settings. Whoever chooses among more by the same "
        "samples is promised more than he gets: searches choose among dozens of individuals, by "
        f"100 to 256 images or 200 texts.\n\n{markdown_table(table)}"
    )


def _promised(standings: Standings, name: str) -> list[tuple[float, float]]:
    record = record_of(standings, name)
    tested = split_means(record.scores(standings.metric))
    return [
        (float(record.tunings[split]["score"]), score)
        for split, score in tested.items()
        if "score" in record.tunings.get(split, {})
    ]


def scores(standings: Standings) -> str:
    """The table of one setting."""
    rows = [tuple(row[column] for column in COLUMNS) for row in table_rows(standings)]
    return markdown_table(rows)


def draw(comparisons: list[Standings], path: Path) -> None:
    """The plot of mean ranks over all settings."""
    found, titles = overall_ranking(comparisons), titles_of(comparisons)
    own = [titles[name] for name in common_methods(comparisons) if name.startswith(OURS)]
    figure = plot_critical_difference(
        {titles[name]: rank for name, rank in found.ranks.items()},
        found.critical_difference,
        [[titles[name] for name in clique] for clique in found.cliques],
        own=own,
        caption=f"{found.n_blocks} splits of {len(comparisons)} settings",
    )
    # Otherwise the names inside the file are random, and it changes each time it is drawn.
    with rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path, facecolor="#fefefe", metadata={"Date": None})
