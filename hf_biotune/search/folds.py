"""Stratified folds: which part of the data each generation is trained and scored on.

Source: BioTune, arXiv 2508.15367: a fitness evaluation sees one of `ceil(1 / fraction)` disjoint
stratified parts of the training and of the validation data; generation g sees part g mod n.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.model_selection import StratifiedKFold

from ..exceptions import ConfigError, DataError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# So that the fraction 1 / 49, whose reciprocal is 49.00000000000001, gives 49 folds.
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Split:
    """The samples that one fitness evaluation uses.

    Args:
        train: sorted indices into the training data, int64.
        validation: sorted indices into the validation data, int64.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]


def n_folds(fraction: float) -> int:
    """How many folds there are: `ceil(1 / fraction)`.

    Args:
        fraction: of the data that one fold holds, in (0, 1].

    Raises:
        ConfigError: `fraction` is outside of (0, 1].

    Example:
        >>> n_folds(0.5), n_folds(0.4), n_folds(1.0)
        (2, 3, 1)
    """
    if isinstance(fraction, bool) or not 0.0 < fraction <= 1.0:
        raise ConfigError(
            f"the fraction of the data that one fold holds must be in (0, 1], got {fraction}; "
            "use 1.0 for all data, or 0.5 for two folds"
        )
    return math.ceil(1.0 / fraction - _ROUNDING)


def folds(
    train_labels: ArrayLike,
    validation_labels: ArrayLike,
    fraction: float,
    seed: int,
    label_names: Sequence[str] | None = None,
) -> list[Split]:
    """Divide training and validation data into disjoint folds with the same class frequencies.

    Args:
        train_labels: class of each training sample, shape (n,).
        validation_labels: class of each validation sample, shape (m,).
        fraction: of the data that one fold holds, in (0, 1].
        seed: the same seed gives the same folds.
        label_names: name of each class, for error messages; default: the numbers.

    Returns:
        `ceil(1 / fraction)` splits. Every sample is in exactly one; the number of samples of a
        class differs by at most 1 between them.

    Raises:
        ConfigError: `fraction` is outside of (0, 1].
        DataError: a class has fewer samples than there are folds.

    Example:
        >>> [split.train.tolist() for split in folds([0, 0, 1, 1], [0, 0, 1, 1], 0.5, seed=1)]
        [[0, 2], [1, 3]]
    """
    n = n_folds(fraction)
    train = _stratified_parts(np.asarray(train_labels), n, seed, "train", label_names)
    validation = _stratified_parts(
        np.asarray(validation_labels), n, seed, "validation", label_names
    )
    return [Split(*parts) for parts in zip(train, validation, strict=True)]


def _stratified_parts(
    labels: NDArray[Any], n: int, seed: int, split: str, label_names: Sequence[str] | None
) -> list[NDArray[np.int64]]:
    """Indices of each of `n` disjoint parts of one split."""
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        if count < n:
            name = label_names[int(label)] if label_names is not None else str(label)
            raise DataError(
                f"class {name!r} has {count} sample(s) in {split}, fewer than the {n} folds; use a "
                "larger fraction (1.0 means no folds), or add samples"
            )
    if n == 1:
        return [np.arange(len(labels), dtype=np.int64)]
    splitter = StratifiedKFold(n_splits=n, shuffle=True, random_state=seed)
    return [part.astype(np.int64) for _, part in splitter.split(np.zeros(len(labels)), labels)]


def draw_stratified(
    labels: ArrayLike, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a part of the samples of each class: `round(fraction * count)`.

    At least one sample is drawn and, of a class that has two or more, at least one is not.

    Args:
        labels: class of each sample, shape (n,), numbers or strings.
        fraction: of each class, in (0, 1).
        seed: the same seed draws the same samples.

    Returns:
        The sorted indices of the samples that were drawn, and of those that were not.

    Example:
        >>> [part.tolist() for part in draw_stratified(["a", "b", "a", "b"], 0.5, seed=1)]
        [[0, 1], [2, 3]]
    """
    _, classes = np.unique(np.asarray(labels), return_inverse=True)
    generator = np.random.default_rng(seed)
    drawn = np.zeros(len(classes), dtype=bool)
    for label in range(int(classes.max()) + 1):
        members = generator.permutation(np.flatnonzero(classes == label))
        number = min(round(fraction * len(members)), len(members) - 1)
        drawn[members[: max(1, number)]] = True
    return np.flatnonzero(drawn), np.flatnonzero(~drawn)
