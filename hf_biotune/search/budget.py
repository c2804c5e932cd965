"""What a search may spend: trainings, time, or a multiple of one full fine-tuning."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..exceptions import ConfigError

# Seconds of an average training in units of a full fine-tuning's: what is frozen costs less.
RELATIVE_SECONDS = 0.7


@dataclass(frozen=True)
class Budget:
    """What a search may spend: one of the three, or no limit.

    Args:
        trainings: in units of one full training (all samples, all epochs); early-stopped, halved
            and fold-sized trainings count as the part that they are.
        minutes: of wall time, over all sessions of a resumed search.
        fine_tunings: in multiples of the time that one full fine-tuning takes, which the search
            measures: full fine-tuning is one of its first individuals.

    Raises:
        ConfigError: several are given, or one is not greater than 0.
    """

    trainings: float | None = None
    minutes: float | None = None
    fine_tunings: float | None = None

    def __post_init__(self) -> None:
        limits = [
            limit
            for limit in (self.trainings, self.minutes, self.fine_tunings)
            if limit is not None
        ]
        if len(limits) > 1 or any(not limit > 0 for limit in limits):
            raise ConfigError(
                f"a budget is one number of trainings, minutes or fine_tunings greater than 0, got "
                f"trainings={self.trainings}, minutes={self.minutes}, "
                f"fine_tunings={self.fine_tunings}"
            )

    @classmethod
    def parse(cls, text: str | int | float | Budget) -> Budget:
        """A budget from what a user writes: `40`, `"40-trainings"`, `"30m"`, `"2h"`, `"3x"`.

        Raises:
            ConfigError: it is none of these, or not greater than 0.

        Example:
            >>> Budget.parse("30m").minutes, Budget.parse("3x").fine_tunings
            (30.0, 3.0)
        """
        if isinstance(text, Budget):
            return text
        match = re.fullmatch(
            r"(\d+(?:\.\d+)?)\s*(|-?trainings?|m|min|minutes|h|x)", str(text).strip()
        )
        if match is None:
            raise ConfigError(
                f"budget must be a number of trainings, a time or a multiple of one full "
                f"fine-tuning, such as 40, '40-trainings', '30m', '2h' or '3x', got {text!r}"
            )
        amount, unit = float(match[1]), match[2]
        if amount <= 0:
            raise ConfigError(f"budget must be greater than 0, got {text!r}")
        if unit in ("m", "min", "minutes"):
            return cls(minutes=amount)
        if unit == "x":
            return cls(fine_tunings=amount)
        return cls(minutes=amount * 60) if unit == "h" else cls(trainings=amount)

    def __str__(self) -> str:
        if self.minutes is not None:
            return f"{self.minutes:g} minutes"
        if self.fine_tunings is not None:
            return f"{self.fine_tunings:g} x one full fine-tuning"
        return "no limit" if self.trainings is None else f"{self.trainings:g} trainings"

    def in_trainings(self, seconds_per_fine_tuning: float | None = None) -> float | None:
        """About how many trainings it pays for; `None` if it has no limit or isn't known yet.

        Args:
            seconds_per_fine_tuning: as measured. Default: not measured yet.
        """
        if self.trainings is not None:
            return self.trainings
        if self.fine_tunings is not None:
            return self.fine_tunings / RELATIVE_SECONDS
        if self.minutes is not None and seconds_per_fine_tuning:
            return self.minutes * 60 / (seconds_per_fine_tuning * RELATIVE_SECONDS)
        return None
