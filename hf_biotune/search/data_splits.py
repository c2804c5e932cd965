"""Training, validation and test samples of one task."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass

from ..exceptions import DataError
from .data import EncodedSplit, shortened

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev", "eval"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class DataSplits:
    """Training, validation and (perhaps) test data of one task.

    Args:
        train: what models are trained on.
        validation: what the search scores models on.
        test: what the final model is scored on, once. `None`: there is no such data.
        name: of the data set, for reports.

    Raises:
        DataError: class names differ between splits, or a class has no sample in `train` or
            `validation`.
    """

    train: EncodedSplit
    validation: EncodedSplit
    test: EncodedSplit | None
    name: str

    def __post_init__(self) -> None:
        names = self.train.label_names
        for split_name, split in (("validation", self.validation), ("test", self.test)):
            if split is not None and split.label_names != names:
                raise DataError(
                    f"{split_name} must have the classes of train, {shortened(names)}, got "
                    f"{shortened(split.label_names)}"
                )
        for split_name, split in (("train", self.train), ("validation", self.validation)):
            for label, count in zip(names, split.class_counts, strict=True):
                if count == 0:
                    raise DataError(
                        f"class {label!r} has no sample in {split_name}; add some, or remove the "
                        "class from the data set"
                    )

    @property
    def label_names(self) -> tuple[str, ...]:
        """Name of each class."""
        return self.train.label_names

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the content of all splits."""
        splits = [split for split in (self.train, self.validation, self.test) if split is not None]
        return hashlib.sha256("".join(s.fingerprint for s in splits).encode()).hexdigest()[:16]


def check_parts(splits: Collection[str]) -> None:
    """Check that there is something to train on and something to choose by.

    Args:
        splits: names, or a mapping by name.

    Raises:
        DataError: `train` or `validation` is missing.
    """
    if missing := [name for name in ("train", "validation") if name not in splits]:
        raise DataError(
            f"splits must be named train, validation and perhaps test, got {', '.join(splits)}; "
            f"{' and '.join(missing)} is missing. load_dataset_splits cuts a validation part off"
        )


def split_of(name: str) -> str | None:
    """The usual name of a split, folder or file.

    Args:
        name: whatever it is called.

    Returns:
        `train`, `validation` or `test`; `None` if it is none of these.

    Example:
        >>> split_of("val-00000-of-00001")
        'validation'
    """
    word = re.split(r"[-_. ]", name.lower())[0]
    return next((split for split, words in SPLIT_NAMES.items() if word in words), None)
