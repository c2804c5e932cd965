"""The examples run as a user runs them, on a tiny model and data set."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_biotune import BioTuneConfig, BioTuneModel

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZES = {"train": 24, "validation": 12, "test": 12}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a random ViT of 7 classes, `model`, and random images of 3, `data`."""
    directory = tmp_path_factory.mktemp("tiny")
    config = ViTConfig(
        image_size=16,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=7,
    )
    ViTForImageClassification(config).save_pretrained(directory / "model")
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(directory / "model")
    generator = np.random.default_rng(0)
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b", "c"])})
    splits = {}
    for name, size in SIZES.items():
        pixels = generator.integers(0, 256, (size, 16, 16, 3), dtype=np.uint8)
        columns = {"image": list(pixels), "label": [i % 3 for i in range(size)]}
        splits[name] = Dataset.from_dict(columns, features=features)
    DatasetDict(splits).save_to_disk(directory / "data")
    return directory


def run(tiny: Path, output: Path, *command: str) -> str:
    """What the example prints."""
    places = ("--model", str(tiny / "model"), "--dataset", str(tiny / "data"))
    finished = subprocess.run(
        [*command, *places, "--output-dir", str(output), "--image-size", "16", "--batch-size", "6"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def check_adapter(tiny: Path, adapter: Path, blocks: dict[str, float]) -> None:
    """It loads on the base model, holds the chosen blocks, and all of these have changed."""
    base = AutoModelForImageClassification.from_pretrained(
        tiny / "model", num_labels=3, ignore_mismatched_sizes=True
    )
    before = base.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    model = BioTuneModel.from_pretrained(base, adapter)
    assert model.active_peft_config.lr_multipliers == blocks
    names = [
        name.removeprefix("base_model.model.")
        for name in load_file(next(adapter.glob("*.safetensors")))
    ]
    after = model.get_base_model().state_dict()
    assert all((after[name] != before[name]).any() for name in names if "classifier" not in name)


@pytest.mark.parametrize("script", ["accelerate_no_trainer.py", "image_classification.py"])
def test_example_trains_the_last_three_blocks_by_default(
    script: str, tiny: Path, tmp_path: Path
) -> None:
    output = run(tiny, tmp_path, sys.executable, str(EXAMPLES / script), "--max-steps", "5")
    assert re.search(r"(validation|test) accuracy: [01]\.\d{3}", output)
    check_adapter(tiny, tmp_path, {"layer2": 0.5, "layer3": 1.0, "head": 2.0})


@pytest.mark.parametrize("script", ["accelerate_no_trainer.py", "image_classification.py"])
def test_example_trains_the_blocks_that_it_is_given(
    script: str, tiny: Path, tmp_path: Path
) -> None:
    blocks = ("--block", "layer1=3", "--block", "head=0.5")
    run(tiny, tmp_path, sys.executable, str(EXAMPLES / script), "--max-steps", "2", *blocks)
    check_adapter(tiny, tmp_path, {"layer1": 3.0, "head": 0.5})


@pytest.mark.slow
def test_plain_loop_runs_in_two_processes(tiny: Path, tmp_path: Path) -> None:
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    script = str(EXAMPLES / "accelerate_no_trainer.py")
    output = run(tiny, tmp_path, *launcher, script, "--max-steps", "3")
    assert output.count("validation accuracy") == 1
    check_adapter(tiny, tmp_path, {"layer2": 0.5, "layer3": 1.0, "head": 2.0})


def test_lora_and_biotune_stand_in_one_table(tiny: Path, tmp_path: Path) -> None:
    script = str(EXAMPLES / "lora_against_biotune.py")
    few = ("--epochs", "1", "--budget", "2", "--seeds", "1")
    lines = run(tiny, tmp_path, sys.executable, script, *few).splitlines()
    assert re.search(
        r"^LoRA: rate x \d+, statistics train, rank (8|32), alpha", "\n".join(lines), re.M
    )
    rows = [line for line in lines if re.match(r"(LoRA|BioTune) .* MiB", line)]
    assert [line.split()[0] for line in rows] == ["LoRA", "BioTune"]
    assert (tmp_path / "search-biotune" / "study.journal").is_file()


def test_the_search_of_trainer_finds_blocks_and_saves_the_winner(
    tiny: Path, tmp_path: Path
) -> None:
    script = str(EXAMPLES / "trainer_hyperparameter_search.py")
    sizes = ("--trials", "4", "--population-size", "3", "--max-steps", "2")
    output = run(tiny, tmp_path, sys.executable, script, *sizes)
    assert re.search(r"best trial: [0-3], validation accuracy [01]\.\d{3}", output)
    assert re.search(r"test accuracy: [01]\.\d{3}", output)
    rates = re.findall(r"^  (\w+): (?:frozen|learning rate x ([\d.]+))$", output, re.MULTILINE)
    assert [name for name, _ in rates] == ["stem", *(f"layer{n}" for n in range(4)), "head"]
    trained = {name: float(rate) for name, rate in rates if rate}
    config = BioTuneConfig.from_pretrained(tmp_path)
    assert {n: round(r, 2) for n, r in config.lr_multipliers.items()} == trained
