"""Does evolution pay? Every method on four small settings: same data, budget, epochs and seeds.

    python examples/prepare_demo.py --output demo
    OMP_NUM_THREADS=1 python benchmarks/comparison.py --workers 2
    python benchmarks/write_results.py

One training is 5 to 15 CPU seconds, so that the whole fits two cores: images have 32 pixels, texts
16 tokens (and half of the training data), trainings 8 epochs, searches 20 trainings. All settings
get their first split, then all the next one. Each finished training is kept in `--directory`; the
same command goes on with the rest, also in a second terminal. What there is after each split is
written to `--results`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import optuna
from environment import machine, versions

from hf_biotune.contest import DEFAULT_METHODS, Arena, ContestListener, Standings, compare
from hf_biotune.contest.outputs import without_nan
from hf_biotune.contest.units import Unit, write_whole

IMAGE = {"model": "efficientnet-lite0", "image_size": 32}
# Language models want lower rates than networks for images: methods try 1e-4, 3e-4 and 1e-3.
TEXT = {"model": "minilm", "max_length": 16, "train_fraction": 0.5, "learning_rate": 3e-4}
SETTINGS = {
    "digits-100": IMAGE,
    "mnist-200": IMAGE,
    "elpv-256": IMAGE,
    "scipy-200": TEXT,
}
# An ensemble of the best of a search against those of chance and of full fine-tuning.
ENSEMBLES = ("full-ensemble", "random-ensemble", "biotune-ensemble")
EPOCHS = 8
BUDGET = 20
RESULTS = Path(__file__).parent / "results" / "comparison"


class Lines(ContestListener):
    """A line for each unit of work."""

    def on_unit_begin(self, unit: Unit, n_done: int, n_units: int) -> None:
        print(f"[{n_done} of {n_units}] {unit}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--directory", type=Path, default=Path("build") / "comparison")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--methods", nargs="+", default=[*DEFAULT_METHODS, *ENSEMBLES])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for n_splits in range(1, arguments.splits + 1):
        for name in arguments.settings:
            print(f"{name}, {n_splits} split(s)", flush=True)
            options = dict(SETTINGS[name])
            model = arguments.demo / str(options.pop("model"))
            standings = compare(
                Arena(
                    str(model),
                    str(arguments.demo / name),
                    epochs=EPOCHS,
                    cpu=True,
                    **options,  # type: ignore[arg-type]
                ),
                arguments.methods,
                output_dir=arguments.directory / name,
                seeds=arguments.seeds,
                splits=n_splits,
                budget=BUDGET,
                workers=arguments.workers,
                listener=Lines(),
            )
            save(standings, name, arguments.results)


def save(standings: Standings, name: str, directory: Path) -> None:
    """Write what there is of a setting, with what it was measured with."""
    content = {
        "setting": name,
        "versions": versions("hf-biotune", "torch", "transformers", "peft", "optuna", "timm"),
        "machine": machine(),
        **standings.to_dict(),
    }
    text = json.dumps(without_nan(content), indent=1, allow_nan=False)
    write_whole(directory / f"{name}.json", text)


if __name__ == "__main__":
    main()
