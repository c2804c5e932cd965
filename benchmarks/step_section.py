"""The parts of `docs/results.md` about steps, compiling, statistics, warm starts and memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hf_biotune.report.tables import markdown_table

Report = Mapping[str, Any]
MIB = 2**20


def step_section(report: Report) -> str:
    """Of `step_cost.py`: the seconds of a training step by the first trained block.

    Args:
        report: the file's content.
    """
    ways = ("ours", "plain", "trainer", "cached", "ideal")
    rows = [("Model, first trained block", *ways)]
    for row in sorted(report["rows"], key=lambda row: (row["model"], row["frozen"])):
        seconds = (f"{1000 * row[way]:.1f}" if way in row else "" for way in ways)
        rows.append((f"{row['model']}, {row['first trained block']}", *seconds))
    summary = [("Model", *next(iter(report["summary"].values())))]
    for model, found in report["summary"].items():
        summary.append((model, *map(_ratio, found.items())))
    settings = report["settings"]
    return (
        f"CPU milliseconds of a step on one thread, images of {settings['pixels']} pixels, texts "
        f"of {settings['tokens']} tokens. *ours*: the loop of the search; *plain*: a PyTorch loop; "
        f"*cached*: ours, when the frozen first blocks are cached; *ideal*: a plain loop that "
        f"knows nothing but the rest of the model.\n\n{markdown_table(rows)}\n"
        f"{markdown_table(summary)}"
    )


def _ratio(item: tuple[str, float]) -> str:
    name, value = item
    return f"{value:+.1%}" if name.startswith("overhead") else f"{value:.2f}"


def compile_section(report: Report) -> str:
    """Of `compile_cost.py`: after how many steps a compilation has paid.

    Args:
        report: the file's content.
    """
    settings = report["settings"]
    header = ("First trained block", "Compilation, CPU s", "Step, ms", "Compiled step, ms")
    rows = [(*header, "Pays after, steps")]
    for row in report["rows"]:
        saved = row["step"] - row["compiled step"]
        rows.append(
            (
                row["first trained block"],
                f"{row['compilation']:.0f}",
                f"{1000 * row['step']:.0f}",
                f"{1000 * row['compiled step']:.0f}",
                f"{row['compilation'] / saved:,.0f}" if saved > 0 else "never",
            )
        )
    return (
        f"EfficientNet-Lite0, {settings['pixels']} pixels, batches of {settings['batch']}, one "
        f"thread. Each individual of a search trains other blocks and is compiled anew; one "
        f"training of digits-100 has {settings['steps of a training']} steps.\n\n"
        f"{markdown_table(rows)}"
    )


def warm_start_section(report: Report) -> str:
    """Of `warm_start.py`: whether a relative's weights keep the ranking.

    Args:
        report: the file's content.
    """
    settings = report["settings"]
    rows = [("What", "Value"), *((name, f"{v:g}") for name, v in report["summary"].items())]
    return (
        f"Children that differ from a trained parent in one or two blocks, scored after "
        f"{settings['few epochs']} epochs from its weights, and after as many of the "
        f"{settings['epochs']} epochs from scratch. The correlations are with the score of the "
        f"whole training from scratch.\n\n{markdown_table(rows)}"
    )


def statistics_section(report: Report) -> str:
    """Of `norm_statistics.py`: what the statistics of trained blocks are worth.

    Args:
        report: the file's content.
    """
    epochs = report["epochs"]
    early = -(-epochs // 3)
    rows = [("Setting, what is trained", "Statistics", f"After {early} epochs", f"After {epochs}")]
    by_name: dict[tuple[str, str, str], list[Sequence[float]]] = {}
    for row in report["rows"]:
        # Genotypes are numbered; their mean is enough.
        name = re.sub(r"^(random genotype) \d+$", r"\1", row["trained"])
        by_name.setdefault((row["setting"], name, row["mode"]), []).append(row["scores"])
    for (setting, name, mode), curves in by_name.items():
        what = f"{len(curves)} {name}s, mean" if len(curves) > 1 else name
        ends = (sum(c[n - 1] for c in curves) / len(curves) for n in (early, epochs))
        rows.append((f"{setting}, {what}", mode, *(f"{end:.3f}" for end in ends)))
    settings = dict.fromkeys(row["setting"] for row in report["rows"])
    gains = [("Setting", f"After {early} epochs", f"After {epochs}")]
    for setting in settings:
        gains.append((setting, *(_gain(report["rows"], setting, n) for n in (early, epochs))))
    return (
        f"Validation scores (macro accuracy) of the same trainings, one each, by what the "
        f"BatchNorm statistics of trained blocks do. The weights of `train` and `epoch` are the "
        f"same. `epoch` minus `train`, over all choices of blocks:\n\n{markdown_table(gains)}\n"
        f"{markdown_table(rows)}"
    )


def _gain(rows: Sequence[Mapping[str, Any]], setting: str, epochs: int) -> str:
    scores = {
        (row["trained"], row["mode"]): row["scores"][epochs - 1]
        for row in rows
        if row["setting"] == setting
    }
    gains = [
        score - scores[name, "train"] for (name, mode), score in scores.items() if mode == "epoch"
    ]
    higher, lower = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    mean = sum(gains) / len(gains)
    return f"{mean:+.3f} on average; {higher} higher, {lower} lower of {len(gains)}"


def memory_section(report: Report) -> str:
    """Of `memory.py`: bytes that fine-tuning holds.

    Args:
        report: the file's content.
    """
    kinds = ("parameters", "gradients", "optimizer", "snapshots", "device", "checkpoint")
    rows = [("Model, method", *kinds)]
    for model, methods in report["results"].items():
        for method, held in methods.items():
            rows.append((f"{model}, {method}", *(f"{held[kind] / MIB:.0f}" for kind in kinds)))
    blocks = "; ".join(f"{model}: {', '.join(names)}" for model, names in report["blocks"].items())
    return (
        f"MiB after one AdamW step, activations apart; *device* is what must be on the GPU. "
        f"Trained blocks: {blocks}.\n\n{markdown_table(rows)}"
    )


def page_section(report: Report) -> str:
    """Of `report_cost.py`: the page of a large study.

    Args:
        report: the file's content.
    """
    return (
        f"The report of {report['individuals']:,} individuals of {report['blocks']} blocks takes "
        f"{report['seconds']:.1f} s ({report['cpu_seconds']:.1f} CPU s), the first one of a "
        f"process {report['first_seconds']:.1f} s, and has {report['page_megabytes']:.1f} MB."
    )
