"""A small base model, a valid adapter of it, and a guard that notices what must never happen."""

from __future__ import annotations

import copy
import pickle
import resource
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hf_biotune import BioTuneConfig, BioTuneModel, get_biotune_model
from hf_biotune.exceptions import CheckpointError, ConfigError, GenotypeError, PartitionError

DOCUMENTED = (CheckpointError, ConfigError, GenotypeError, PartitionError)
FORBIDDEN_EVENTS = {
    "exec",
    "compile",
    "pickle.find_class",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.Popen",
    "socket.connect",
    "socket.getaddrinfo",
}
_seen: list[str] | None = None


def _watch(event: str, arguments: Any) -> None:
    if _seen is not None and event in FORBIDDEN_EVENTS:
        _seen.append(f"{event}: {arguments!r}"[:200])


# An audit hook can't be taken away again; outside of a test it does nothing.
sys.addaudithook(_watch)


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def make_base() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
    return nn.ModuleDict({"stem": stem, "body": nn.Linear(8, 4), "head": nn.Linear(4, 2)})


@dataclass
class Stranger:
    """Loads what a stranger sent, and checks that it did nothing but raise.

    Args:
        directory: of the checkpoint, valid at first.
        base: the base model, as it must stay.
    """

    directory: Path
    base: nn.Module
    outcomes: Counter[str] = field(default_factory=Counter)
    memory: int = 0  # KiB by which one load has raised the peak, at most

    def __post_init__(self) -> None:
        self._state = {n: t.clone() for n, t in self.base.state_dict().items()}

    def write(self, filename: str, data: bytes) -> None:
        (self.directory / filename).write_bytes(data)

    def load(self, **kwargs: Any) -> None:
        base = copy.deepcopy(self.base)
        if self.attempt(lambda: BioTuneModel.from_pretrained(base, self.directory, **kwargs)):
            return
        state = base.state_dict()
        assert list(state) == list(self._state)
        for name, tensor in state.items():
            assert torch.equal(tensor, self._state[name]), name
        assert all(parameter.requires_grad for parameter in base.parameters())
        assert all(module.training for module in base.modules())
        assert "peft_config" not in base.__dict__

    def attempt(self, action: Callable[[], Any]) -> bool:
        """Whether the action succeeds; if it fails, it must be with a documented error."""
        global _seen
        before, _seen = _peak_memory(), []
        try:
            action()
            outcome, message = "accepted", "accepted"
        except DOCUMENTED as error:
            outcome, message = type(error).__name__, str(error)
        finally:
            seen, _seen = _seen, None
        self.memory = max(self.memory, _peak_memory() - before)
        self.outcomes[outcome] += 1
        assert seen == []
        assert len(message) < 2_000
        return outcome == "accepted"

    @property
    def refused(self) -> int:
        return self.outcomes.total() - self.outcomes["accepted"]


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stranger:
    """A valid checkpoint to change; no pickle may be opened and no code run while it is loaded."""
    config = BioTuneConfig(
        lr_multipliers={"body": 2.5, "stem": 0.4},
        saved_blocks=[],
        genotype={"importances": [0.3, 0.7, 0.1], "freezing_threshold": 0.2},
    )
    get_biotune_model(make_base(), config).save_pretrained(tmp_path)
    loaded = Stranger(tmp_path, make_base())
    loaded.load()  # imports what is imported late
    loaded.outcomes.clear()

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a pickle is opened")

    for owner, name in ((torch, "load"), (pickle, "load"), (pickle, "loads")):
        monkeypatch.setattr(owner, name, refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    return loaded
