"""What was chosen for a method on validation, what that cost, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..exceptions import ConfigError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Setting:
    """One setting of a method.

    Args:
        rate: factor on the learning rate of the training arguments, greater than 0.
        norm_statistics: of BatchNorm in trained blocks; see [`BioTuneConfig`].
        options: what else the method can choose, such as the number of blocks; JSON values.

    Raises:
        ConfigError: `rate` is not greater than 0.

    Example:
        >>> str(Setting(3.0, "frozen", {"k": 2}))
        'rate x 3, statistics frozen, k 2'
    """

    rate: float = 1.0
    norm_statistics: str = "epoch"
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise ConfigError(f"rate must be greater than 0, got {self.rate}")

    def __str__(self) -> str:
        chosen = [
            f"{name} {value}"
            for name, value in self.options.items()
            if not isinstance(value, Mapping)
        ]
        return ", ".join([f"rate x {self.rate:g}", f"statistics {self.norm_statistics}", *chosen])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "options": dict(self.options)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Setting:
        """The inverse of [`~Setting.to_dict`]."""
        return cls(**values)


@dataclass(frozen=True)
class Cost:
    """What trainings cost.

    Args:
        trainings: in units of one full training: all samples, all epochs.
        epochs: that were trained.
        seconds: wall time, evaluation included.
    """

    trainings: float = 0.0
    epochs: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.trainings + other.trainings,
            self.epochs + other.epochs,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Tried:
    """One setting that was tried.

    Args:
        setting: what.
        score: on the validation samples.
        cost: of its training.
    """

    setting: Setting
    score: float
    cost: Cost


@dataclass(frozen=True)
class Tuned:
    """The setting that was chosen for a method.

    Args:
        setting: the best on the validation samples.
        score: its score on them.
        cost: of all that was tried.
        tried: everything, in its order; empty for a search, whose study holds it.
    """

    setting: Setting
    score: float
    cost: Cost
    tried: tuple[Tried, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "setting": self.setting.to_dict(),
            "score": self.score,
            "cost": asdict(self.cost),
            "tried": [{**asdict(each), "setting": each.setting.to_dict()} for each in self.tried],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tuned:
        """The inverse of [`~Tuned.to_dict`]."""
        return cls(
            Setting.from_dict(values["setting"]),
            values["score"],
            Cost(**values["cost"]),
            tuple(
                Tried(Setting.from_dict(each["setting"]), each["score"], Cost(**each["cost"]))
                for each in values["tried"]
            ),
        )


@dataclass(frozen=True, eq=False)
class FinalRun:
    """One final model of a method.

    Args:
        seed: of initialisation and data order; `None` for a model that several trainings made.
        validation_score: of the weights that were tested.
        test_score: the metric on the test samples; `None` without a test split.
        cost: of this training.
        trained_parameters: how many numbers were trained.
        checkpoint_bytes: of its weights as a safetensors file.
        peak_bytes: of memory: of a CUDA device as allocated, else of the process as resident;
            `None` where that can't be measured.
        test_logits: shape (test samples, classes); `None` without a test split.
    """

    seed: int | None
    validation_score: float
    test_score: float | None
    cost: Cost
    trained_parameters: int
    checkpoint_bytes: int
    peak_bytes: int | None
    test_logits: torch.Tensor | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the logits."""
        values = dict(vars(self))
        del values["test_logits"]
        return {**values, "cost": asdict(self.cost)}

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], test_logits: torch.Tensor | None = None
    ) -> FinalRun:
        """The inverse of [`~FinalRun.to_dict`]."""
        return cls(**{**values, "cost": Cost(**values["cost"])}, test_logits=test_logits)


@dataclass(frozen=True)
class MethodResult:
    """What a method achieved on one split of one data set.

    Args:
        method: its name.
        tuned: what was chosen for it; `None` if it does not fit.
        runs: the final models, one per seed.
        why_not: the reason for which it does not fit the model; empty if it does.
    """

    method: str
    tuned: Tuned | None = None
    runs: Sequence[FinalRun] = ()
    why_not: str = ""

    @property
    def cost(self) -> Cost:
        """Of tuning and the final runs together."""
        total = self.tuned.cost if self.tuned is not None else Cost()
        return sum((run.cost for run in self.runs), total)
