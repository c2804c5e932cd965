"""The examples that search, on tiny models and data, in this process."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from small import digits_split, small_resnet
from texts import text_splits, write_bert
from transformers import ConvNextImageProcessor

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.slow


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny image classifier and digits on disk."""
    root = tmp_path_factory.mktemp("places")
    torch.manual_seed(0)
    small_resnet().save_pretrained(root / "model")
    ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=1.0).save_pretrained(root / "model")
    features = Features({"image": Image(), "label": ClassLabel(names=list("0123456789"))})
    splits = {}
    for name, first in (("train", 0), ("validation", 20)):
        digits = digits_split(3, first)
        columns = {
            "image": [pixels.permute(1, 2, 0).numpy() for pixels in digits.inputs["pixel_values"]],
            "label": digits.labels.tolist(),
        }
        splits[name] = Dataset.from_dict(columns, features=features)
    DatasetDict(splits).save_to_disk(root / "data")
    return {"model": str(root / "model"), "dataset": str(root / "data")}


TINY = {"budget": "3", "epochs": 1, "batch_size": 10}


def test_a_torchvision_model_is_searched_by_blocks_of_its_own(places, tmp_path, capsys):
    module = example("torchvision_partition")
    module.main(dataset=places["dataset"], output_dir=tmp_path, weights=None, image_size=16, **TINY)
    output = capsys.readouterr().out
    assert all(f"\n{block} " in f"\n{output}" for block in ("early", "middle", "late", "head"))
    assert re.search(r"validation accuracy: [01]\.\d{3}", output)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_a_front_of_compromises_is_printed_for_a_metric_of_ones_own(places, tmp_path, capsys):
    module = example("metric_and_objectives")
    module.main(**places, output_dir=tmp_path, image_size=16, share=0.999, **TINY)
    output = capsys.readouterr().out
    assert "trained_share" in output
    assert "best with at most 100% trained: " in output
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_texts_are_searched_and_a_sentence_is_classified(tmp_path, capsys):
    write_bert(tmp_path / "bert")
    text_splits().save_to_disk(tmp_path / "texts")
    module = example("text_classification")
    module.main(
        model=str(tmp_path / "bert"),
        dataset=str(tmp_path / "texts"),
        output_dir=tmp_path / "out",
        max_length=16,
        **TINY,
    )
    output = capsys.readouterr().out
    assert re.search(r"is about (stats|signal|ndimage)", output)
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


def run_in_processes(places, output, *command):
    """What a script prints that needs processes of its own."""
    command += ("--model", places["model"], "--dataset", places["dataset"])
    command += ("--output-dir", str(output), "--image-size", "16", "--batch-size", "10")
    done = subprocess.run(
        [sys.executable, *command, "--budget", "6", "--epochs", "1"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (output / "adapter" / "adapter_model.safetensors").is_file()
    return done.stdout


@pytest.mark.parametrize("backend", ["processes", "ray"])
def test_two_workers_share_one_search(places, tmp_path, backend):
    if backend == "ray":
        pytest.importorskip("ray")
    script = str(EXAMPLES / "two_workers.py")
    printed = run_in_processes(places, tmp_path, script, "--workers", "2", "--backend", backend)
    assert re.search(r"\d+ individuals by 2 workers", printed)


def test_two_processes_share_each_training(places, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    printed = run_in_processes(places, tmp_path, *launcher, str(EXAMPLES / "spread_training.py"))
    assert len(re.findall(r"\d+ individuals by 2 processes", printed)) == 1
