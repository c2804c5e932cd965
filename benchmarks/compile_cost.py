"""Does `torch.compile` pay within a search, where each individual trains other blocks?

    python benchmarks/compile_cost.py --demo demo

EfficientNet-Lite0 at 32 pixels, on one thread. Some individuals one after the other, as a search
tries them: each freezes other blocks, so that the compiled program of the one before does not fit
and another is compiled. Measured are the CPU seconds until the first step is done, and the median
of the steps after it, of the compiled model and of the same model as it is. What a step saves tells
after how many of them the compilation has paid.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path

# Each individual of a search on new data and blocks is compiled for the first time.
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
# So that the C++ compiler is a child whose CPU seconds can be read.
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import torch
from environment import save_results
from torch import nn

from hf_biotune import BioTuneConfig, get_biotune_model, partition
from hf_biotune.search.models import image_classifier

RESULTS = Path(__file__).parent / "results" / "compile_cost.json"
PACKAGES = ("hf-biotune", "torch", "transformers", "peft", "timm")
PIXELS, BATCH, CLASSES, STEPS = 32, 32, 10, 20
# Of one individual of `search_cost.py` on digits-100: 15 epochs of 4 batches.
STEPS_OF_A_TRAINING = 60
# First trained block of each individual.
FIRST_TRAINED = (0, 4, 2)


def steps(model: nn.Module, forward: nn.Module) -> tuple[float, float]:
    """CPU seconds of the first training step, and of one after it.

    Args:
        model: whose parameters are trained.
        forward: the model, or what it was compiled to.
    """
    torch.manual_seed(0)
    pixels = torch.randn(BATCH, 3, PIXELS, PIXELS).to(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % CLASSES
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    seconds = []
    for _ in range(STEPS):
        started = time.process_time() + children_seconds()
        loss = nn.functional.cross_entropy(forward(pixel_values=pixels).logits, labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() + children_seconds() - started)
    return seconds[0], statistics.median(seconds[1:])


def children_seconds() -> float:
    """CPU seconds of finished child processes: the C++ compiler is one."""
    times = os.times()
    return times.children_user + times.children_system


def measure(demo: Path, first_trained: int) -> dict[str, float | str]:
    """Both ways, of one choice of blocks."""
    model = image_classifier(str(demo / "efficientnet-lite0"), tuple(map(str, range(CLASSES))))()
    names = partition(model).names
    config = BioTuneConfig(
        lr_multipliers=dict.fromkeys(names[first_trained:], 1.0), saved_blocks=[]
    )
    wrapped = get_biotune_model(model, config)
    wrapped.to(memory_format=torch.channels_last)
    wrapped.train()
    first, eager = steps(wrapped, wrapped)
    first_compiled, compiled = steps(wrapped, torch.compile(wrapped))
    return {
        "first trained block": names[first_trained],
        "first step": round(first, 3),
        "step": round(eager, 5),
        "compilation": round(first_compiled - compiled, 2),
        "compiled step": round(compiled, 5),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for first_trained in FIRST_TRAINED:
        rows.append(measure(arguments.demo, first_trained))
        print(json.dumps(rows[-1]), flush=True)
    settings = {
        "pixels": PIXELS,
        "batch": BATCH,
        "threads": 1,
        "steps of a training": STEPS_OF_A_TRAINING,
    }
    save_results(arguments.output, {"settings": settings, "rows": rows}, PACKAGES)


if __name__ == "__main__":
    main()
