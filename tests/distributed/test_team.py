"""A search whose every training is spread over two processes, as `torchrun` starts them."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import team_worker
import torch

from hf_biotune.exceptions import ConfigError
from hf_biotune.search import FineTuner, default_training_arguments
from hf_biotune.search.team import Team, check_is_no_team

pytestmark = pytest.mark.slow

Reports = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """`reports(mode)`: what each of two processes saw of a search."""
    output = tmp_path_factory.mktemp("team")
    team_worker.search(output / "other")
    finished = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node=2", team_worker.__file__, str(output)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    seen = [json.loads((output / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    return lambda mode: [by_mode[mode] for by_mode in seen]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process sees of the same search."""
    return team_worker.seen(team_worker.search(tmp_path_factory.mktemp("alone")))


@pytest.mark.parametrize("mode", ["plain", "in memory", "norm", "broken", "narrow", "own metric"])
def test_all_processes_have_the_same_result(mode: str, reports: Reports) -> None:
    first, second = reports(mode)
    assert "error" not in first, first
    assert first == second


def test_two_processes_find_what_one_finds(reports: Reports, alone: dict[str, Any]) -> None:
    together = reports("plain")[0]
    assert len(set(alone["scores"])) > 3, "nothing to compare"
    assert together["multipliers"] == alone["multipliers"]
    assert together["states"] == alone["states"]
    assert together["scores"] == pytest.approx(alone["scores"], abs=1e-6)
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert together["winner"] == alone["winner"]
    torch.testing.assert_close(
        torch.tensor(together["logits"]), torch.tensor(alone["logits"]), rtol=1e-3, atol=1e-3
    )


def test_a_search_goes_on_after_its_leader_failed(reports: Reports) -> None:
    interrupted, *others = reports("resumed")[0]["scores"]
    assert math.isnan(interrupted)
    assert others == reports("plain")[0]["scores"]


def test_each_process_takes_its_share_from_the_cache(reports: Reports) -> None:
    cached, whole = reports("norm")[0], reports("norm, not cached")[0]
    assert cached["cached"] > 0.1
    assert whole["cached"] == 0.0
    assert cached["scores"] == whole["scores"]
    assert cached["losses"] == whole["losses"]


def test_what_fails_in_one_process_is_a_failure_of_the_individual(reports: Reports) -> None:
    reasons = set(reports("broken")[0]["reasons"])
    assert reasons == {
        "",
        "RuntimeError: process 1 of this training failed: RuntimeError: the stem is too hot",
    }


def test_want_of_memory_in_one_process_makes_batches_smaller_in_all(
    reports: Reports, alone: dict[str, Any]
) -> None:
    narrow = reports("narrow")[0]
    assert 2 in narrow["parts"]
    assert narrow["scores"] == pytest.approx(alone["scores"], abs=1e-6)


@pytest.mark.parametrize(
    ("mode", "leaders", "others"),
    [
        (
            "different",
            r"ConfigError: the processes of one training must be given the same, but process 1 "
            r"differs from process 0 in model \(there '\w+', here '\w+'\)",
            r"process 0 differs from process 1 in model",
        ),
        (
            "unsendable",
            r"ConfigError: metric 'Agreement' can't be sent to the other processes of this "
            r"training \(.*make it an object of a class that stands in a module",
            r"metric 'Agreement' can't be sent",
        ),
        (
            "two workers",
            r"ConfigError: WORLD_SIZE=2: torchrun or accelerate launch spreads each training over "
            r"2 processes, so it can't have workers=2",
            r"can't have workers=2",
        ),
        (
            "deaf",
            r"ValueError: what did you say\?",
            r"TrainingError: the search failed in the process that leads this one: ValueError: "
            r"what did you say",
        ),
    ],
)
def test_a_search_that_ends_badly_ends_in_all_processes(
    mode: str, leaders: str, others: str, reports: Reports
) -> None:
    first, second = reports(mode)
    assert re.search(leaders, first["error"]), first
    assert re.search(others, second["error"]), second


def test_a_study_of_one_process_is_not_gone_on_with_by_two(reports: Reports) -> None:
    first, second = reports("other")
    assert "processes of one training (there None, here 2)" in first["error"]
    assert "the search failed in the process that leads this one" in second["error"]


def test_what_trains_in_one_process_refuses_several(monkeypatch: pytest.MonkeyPatch) -> None:
    check_is_no_team("FineTuner")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"^FineTuner trains in one process, but torchrun or"):
        FineTuner(None, None, None, None, None)
    with pytest.raises(ConfigError, match=r"^A comparison trains in one process.*WORLD_SIZE=2"):
        check_is_no_team("A comparison")


def test_a_model_that_is_divided_among_processes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = default_training_arguments(use_cpu=True)
    assert Team.of(args).size == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="it can't divide the model"):
        Team.of(args)


def test_processes_that_do_not_know_of_each_other_do_not_search(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    args = default_training_arguments()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"knows of no other: without GPUs.*use_cpu=True"):
        Team.of(args)


def test_shares_of_a_batch_are_even_and_complete() -> None:
    positions = torch.arange(11)
    shares = [Team(number, 3).share(positions) for number in range(3)]
    assert [len(share) for share in shares] == [4, 4, 3]
    assert torch.equal(torch.cat(shares), positions)
