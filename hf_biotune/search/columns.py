"""Columns of a data set: which one holds the inputs, which one the labels, and what these mean."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import ClassLabel, Dataset, Image, Value

from ..exceptions import DataError

logger = logging.getLogger(__name__)

IMAGE_NAMES = (
    "image",
    "images",
    "img",
    "pixel_values",
    "picture",
    "photo",
    "image_path",
    "image_file",
    "file_name",
    "filename",
    "file",
    "filepath",
    "path",
)
TEXT_NAMES = ("text", "sentence", "content", "review", "document", "question", "title")
LABEL_NAMES = ("label", "labels", "target", "class")


@dataclass(frozen=True)
class Columns:
    """The names of the two columns that matter.

    Args:
        image: images, or paths of image files.
        label: classes.
    """

    image: str
    label: str


def find_columns(
    dataset: Dataset,
    image_column: str | None = None,
    label_column: str | None = None,
    split: str = "",
) -> Columns:
    """Find the columns of images and labels.

    Args:
        dataset: what to look at.
        image_column: its name; default: the only column of type `datasets.Image`, else the only one
            of images or paths with a usual name (`image`, `img`, `file_name`, `path`, ...).
        label_column: its name; default: `label`, `labels`, `target` or `class`, else the only
            column of type `ClassLabel`.
        split: what to call `dataset` in an error about labels. Default: nothing.

    Raises:
        DataError: a column doesn't exist, or none or several are candidates.
    """
    return Columns(
        find_image_column(dataset, image_column), find_label_column(dataset, label_column, split)
    )


def find_image_column(dataset: Dataset, image_column: str | None = None) -> str:
    """The image part of [`find_columns`]."""
    features = dataset.features
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    named = [name for name in IMAGE_NAMES if name in features and _can_hold_image(features[name])]
    column = _choose(features, image_column, images or named, "image")
    if not _can_hold_image(features[column]):
        raise DataError(
            f"column {column!r} can't hold images: it is {features[column]}, but must be images, "
            "encoded image files or paths of such; give another one as image_column=... "
            "(--image-column)"
        )
    return column


def find_text_column(
    dataset: Dataset, text_column: str | None = None, label_column: str | None = None
) -> str:
    """Find the column of texts.

    Args:
        dataset: what to look at.
        text_column: its name; default: `text`, `sentence`, `content`, `review`, ..., else the only
            column of strings beside the labels, and beside those named as paths of files are.
        label_column: that of the labels; default: found.

    Raises:
        DataError: the column doesn't exist or holds no strings, or none or several are candidates.
    """
    features = dataset.features
    strings = [name for name, feature in features.items() if _is_string(feature)]
    named = [name for name in TEXT_NAMES if name in strings]
    if text_column is None and not named:
        label = find_label_column(dataset, label_column)
        strings = [name for name in strings if name != label]
        strings = [name for name in strings if name not in IMAGE_NAMES] or strings
    column = _choose(features, text_column, named or strings, "text")
    if not _is_string(features[column]):
        raise DataError(
            f"column {column!r} can't hold texts: it is {features[column]}, but must be strings; "
            "give another one as text_column=... (--text-column)"
        )
    return column


def find_label_column(dataset: Dataset, label_column: str | None = None, split: str = "") -> str:
    """The label part of [`find_columns`]."""
    features = dataset.features
    named = [name for name in LABEL_NAMES if name in features]
    classes = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    try:
        return _choose(features, label_column, named or classes, "label")
    except DataError as error:
        if split:
            raise DataError(f"{split}: {error}") from None
        raise


def without_unlabelled_test(
    splits: Mapping[str, Dataset], label_column: str | None = None
) -> dict[str, Dataset]:
    """All splits, except for a test split that nothing can be scored on.

    That of a competition has no labels; nobody needs one to search. A warning says so.

    Args:
        splits: by name; only that named `test` may be left out.
        label_column: see [`find_columns`].
    """
    kept = dict(splits)
    if "test" in kept and (reason := _why_unlabelled(kept["test"], label_column)):
        logger.warning("the split test is not used: %s", reason)
        del kept["test"]
    return kept


def _why_unlabelled(dataset: Dataset, label_column: str | None) -> str | None:
    try:
        column = find_label_column(dataset, label_column)
    except DataError as error:
        return str(error)
    values = dataset.with_format(None).select_columns([column])[:][column]
    # Integers as well: what marks a missing label is the same without names of classes.
    if all(value is None or value == -1 for value in values):
        return f"column {column!r} holds no label, but only None or -1"
    return None


def _choose(
    features: Iterable[str], wanted: str | None, candidates: Sequence[str], kind: str
) -> str:
    existing = ", ".join(features)
    remedy = f"{kind}_column=... (--{kind}-column)"
    if wanted is not None:
        if wanted not in features:
            raise DataError(f"no column is named {wanted!r}; the columns are: {existing}")
        return wanted
    if not candidates:
        raise DataError(
            f"no {kind} column found; the columns are: {existing}; name the right one with {remedy}"
        )
    if len(candidates) > 1:
        raise DataError(
            f"several columns could be the {kind} column: {', '.join(candidates)}; name the right "
            f"one with {remedy}"
        )
    return candidates[0]


def _is_string(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def holds_texts(dataset: Dataset) -> bool:
    """Whether there are strings, and none whose name is usual for paths of images."""
    features = dataset.features
    paths = [name for name in IMAGE_NAMES if name in features and _can_hold_image(features[name])]
    return not paths and any(map(_is_string, features.values()))


def may_hold_texts(dataset: Dataset) -> bool:
    """Whether there are strings that are neither labels nor paths, as far as names tell."""
    others = (*IMAGE_NAMES, *LABEL_NAMES)
    features = dataset.features
    return any(_is_string(feature) for name, feature in features.items() if name not in others)


def _can_hold_image(feature: Any) -> bool:
    if isinstance(feature, Value):
        return feature.dtype in ("string", "large_string", "binary", "large_binary")
    # Parquet files that were not written by `datasets` have images as a struct.
    return isinstance(feature, Image) or (
        isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    )


def class_names(dataset: Dataset, column: str, split: str = "the data set") -> list[str]:
    """The name of the class of each sample.

    Args:
        dataset: of `ClassLabel`, integer, boolean or string labels.
        column: the labels.
        split: what to call `dataset` in an error message.

    Returns:
        For each row, the class as a string: `"cat"`, `"7"`, `"True"`.

    Raises:
        DataError: a label is missing (`None`, or -1 in a `ClassLabel` column), or is not a class.
    """
    feature = dataset.features[column]
    values = dataset.with_format(None).select_columns([column])[:][column]
    names: list[str] = []
    for row, value in enumerate(values):
        if value is None or (isinstance(feature, ClassLabel) and value == -1):
            raise DataError(
                f"row {row} of {split} has no label: column {column!r} is {value}; label or remove "
                "the row, or leave out a split that is not labelled"
            )
        if not isinstance(value, (str, int)):
            raise DataError(
                f"labels must be integers, strings or booleans, but row {row} of {split} has "
                f"{value!r} in column {column!r}; name another column with label_column=... "
                "(--label-column)"
            )
        names.append(feature.int2str(value) if isinstance(feature, ClassLabel) else str(value))
    return names


def label_names_of(dataset: Dataset, column: str, split: str = "the data set") -> tuple[str, ...]:
    """The classes in the order of their numbers.

    Args:
        dataset: the training data.
        column: the labels.
        split: what to call `dataset` in an error message.

    Returns:
        `ClassLabel`: its names, in its order. Otherwise the values that occur, as strings: integers
        from the smallest to the largest, others in alphabetical order.

    Raises:
        DataError: as [`class_names`].
    """
    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    names = set(class_names(dataset, column, split))
    is_integer = isinstance(feature, Value) and "int" in feature.dtype
    return tuple(sorted(names, key=int) if is_integer else sorted(names))


def encode_labels(
    dataset: Dataset, column: str, label_names: Sequence[str], split: str = "the data set"
) -> torch.Tensor:
    """The number of the class of each sample.

    Args:
        dataset: of labels as in [`class_names`].
        column: the labels.
        label_names: the classes, in the order of their numbers.
        split: what to call `dataset` in an error message.

    Returns:
        int64, shape (n,).

    Raises:
        DataError: a label is missing, or is not among `label_names`.
    """
    numbers = {name: number for number, name in enumerate(label_names)}
    names = class_names(dataset, column, split)
    for row, name in enumerate(names):
        if name not in numbers:
            known = ", ".join(label_names[:10]) + (", ..." if len(label_names) > 10 else "")
            raise DataError(
                f"row {row} of {split} has the label {name!r}, which the training data lacks; its "
                f"classes are: {known}; correct or remove the row"
            )
    return torch.tensor([numbers[name] for name in names], dtype=torch.int64)
