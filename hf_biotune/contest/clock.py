"""What a unit cost: seconds of work on disk, so that those of a killed process count too."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import torch

from ..baselines.setting import Cost, Setting, Tried
from ..search.listener import SearchListener, TrialReport
from .units import append_line, read_lines


class Clock(SearchListener):
    """Counts the seconds that this process works on one unit.

    On the CPU it counts CPU seconds of all threads, which work of other processes hardly changes;
    on a GPU it counts wall time. Each mark keeps what has passed since the one before, so that a
    killed process loses the seconds of the training that it loses.

    Args:
        path: a line for each mark.
        device: where the trainings are.
        stages: is told of stages.
    """

    def __init__(self, path: Path, device: torch.device, stages: SearchListener) -> None:
        self._path = path
        self._now = time.process_time if device.type == "cpu" else time.perf_counter
        self._stages = stages
        self._last = self._now()

    def mark(self) -> None:
        """Keep what has passed since the last mark."""
        now = self._now()
        append_line(self._path, round(now - self._last, 4))
        self._last = now

    @property
    def seconds(self) -> float:
        """Of all marks, of all processes that worked on the unit."""
        return float(sum(read_lines(self._path)))

    def on_stage(self, name: str) -> None:
        """Passed on."""
        self._stages.on_stage(name)

    def on_trial_end(self, report: TrialReport) -> None:
        """One more individual of a search is kept."""
        self.mark()

    def on_finalist(self, number: int, seed: int, score: float) -> None:
        """One more training of a finalist is kept."""
        self.mark()


class KeptAttempts(MutableMapping[str, Tried]):
    """The settings of a method that were tried on a split, on disk as soon as they are.

    Args:
        path: a line for each.
        clock: is marked after each.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._tried = {line["key"]: _tried_of(line) for line in read_lines(path)}

    def __getitem__(self, key: str) -> Tried:
        return self._tried[key]

    def __setitem__(self, key: str, tried: Tried) -> None:
        self._tried[key] = tried
        cost = vars(tried.cost)
        setting = tried.setting.to_dict()
        append_line(
            self._path, {"key": key, "setting": setting, "score": tried.score, "cost": cost}
        )
        self._clock.mark()

    def __delitem__(self, key: str) -> None:
        raise TypeError(f"what was tried stays, got a request to forget {key!r}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._tried)

    def __len__(self) -> int:
        return len(self._tried)


def _tried_of(line: dict[str, object]) -> Tried:
    setting, cost = line["setting"], line["cost"]
    assert isinstance(setting, dict)
    assert isinstance(cost, dict)
    score = line["score"]
    assert isinstance(score, float)
    return Tried(Setting.from_dict(setting), score, Cost(**cost))
