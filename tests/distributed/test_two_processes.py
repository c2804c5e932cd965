"""Two processes on the CPU train as one does: DDP and FSDP2, with Trainer and in a plain loop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import worker
from safetensors import safe_open
from safetensors.torch import load_file

from hf_biotune import BioTuneModel
from hf_biotune.checkpoint import WEIGHTS_NAME

pytestmark = pytest.mark.slow

Results = Callable[[str, str], Path]

RUNS = [("ddp", "vit"), ("ddp", "resnet"), ("fsdp2", "vit"), ("torch", "vit")]
every_run = pytest.mark.parametrize(("mode", "kind"), RUNS)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """`results(mode, kind)`: the directory that two processes wrote; each pair runs once."""
    directory = tmp_path_factory.mktemp("two")

    @cache
    def run(mode: str, kind: str) -> Path:
        output = directory / f"{mode}-{kind}"
        output.mkdir()
        finished = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
                *("--nproc-per-node=2", worker.__file__, mode, kind, str(output)),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert finished.returncode == 0, finished.stderr[-4000:]
        return output

    return run


def alone(mode: str, kind: str, output: Path) -> dict[str, torch.Tensor]:
    """The adapter that one process trains on the same global batches."""
    if mode == "torch":
        worker.train_with_torch(kind, output)
    else:
        worker.train_with_trainer(kind, output)
    return load_file(output / "adapter" / WEIGHTS_NAME)


def header(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


@every_run
def test_model_is_distributed_as_asked(mode: str, kind: str, results: Results) -> None:
    found = header(results(mode, kind) / "rank0")
    is_ddp = mode == "ddp"
    assert found["wrapper"] == ("DistributedDataParallel" if is_ddp else "FSDPBioTuneModel")
    assert (int(found["shards"]) == 0) == is_ddp


@every_run
def test_ranks_agree(mode: str, kind: str, results: Results) -> None:
    first, second = (load_file(results(mode, kind) / f"rank{rank}") for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@every_run
def test_saved_adapter_equals_that_of_one_process(
    mode: str,
    kind: str,
    results: Results,
    tmp_path: Path,
) -> None:
    together = load_file(results(mode, kind) / "adapter" / WEIGHTS_NAME)
    expected = alone(mode, kind, tmp_path)
    assert together.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(together[name], value, rtol=0, atol=1e-6)


@every_run
def test_training_moved_the_trained_blocks_only(mode: str, kind: str, results: Results) -> None:
    saved = set(load_file(results(mode, kind) / "adapter" / WEIGHTS_NAME))
    after = load_file(results(mode, kind) / "rank0")
    before = worker.wrapped(kind).state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved
    assert moved <= saved


@every_run
def test_saved_adapter_loads_in_one_process(mode: str, kind: str, results: Results) -> None:
    output = results(mode, kind)
    fresh = worker.wrapped(kind).unload()
    loaded = BioTuneModel.from_pretrained(fresh, output / "adapter")
    after = load_file(output / "rank0")
    assert all(torch.equal(value, after[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(("mode", "kind"), [("ddp", "vit"), ("ddp", "resnet")])
def test_checkpoints_of_two_processes_hold_the_adapter_only(
    mode: str, kind: str, results: Results
) -> None:
    checkpoint = results(mode, kind) / f"checkpoint-{worker.STEPS}"
    saved = load_file(checkpoint / WEIGHTS_NAME)
    final = load_file(results(mode, kind) / "adapter" / WEIGHTS_NAME)
    assert saved.keys() == final.keys()
    assert all(torch.equal(value, final[name]) for name, value in saved.items())


@pytest.mark.parametrize("form", ["FULL_STATE_DICT", "SHARDED_STATE_DICT"])
def test_resumed_sharded_training_equals_uninterrupted(form: str, results: Results) -> None:
    output = results(form, "vit")
    for rank in (0, 1):
        resumed, whole = load_file(output / f"rank{rank}"), load_file(output / f"whole{rank}")
        assert resumed.keys() == whole.keys()
        assert all(torch.equal(value, whole[name]) for name, value in resumed.items())
