"""Encoding images: from files or columns to an [`EncodedSplit`] in memory, once."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset, DatasetDict, Image

from ..exceptions import DataError
from .augmentation import Augmentation
from .columns import encode_labels, find_columns, label_names_of, without_unlabelled_test
from .data import EncodedSplit
from .data_splits import DataSplits, check_parts
from .images import LARGEST_OF_8_BITS, decode_by_range
from .mapped import fits_memory, mapped_tensor
from .transforms import ImageTransform, as_transform

logger = logging.getLogger(__name__)

_CHUNK = 64
# Gray values of 12 bits, as cameras and scanners give them in files of 16 bits, stay below.
_DARK = 4096


def encode_splits(
    splits: DatasetDict,
    image_processor: ImageTransform | Any,
    *,
    name: str,
    image_column: str | None = None,
    label_column: str | None = None,
    image_size: int | None = None,
    skip_bad_images: bool = False,
    augmentation: Augmentation | None = None,
) -> DataSplits:
    """Encode training, validation and test images alike.

    Args:
        splits: as [`load_dataset_splits`] returns: `train`, `validation` and perhaps `test`. A
            test split without labels is left out, with a warning.
        image_processor: see [`encode_images`].
        name: of the data set, for reports.
        image_column: see [`encode_images`].
        label_column: see [`encode_images`].
        image_size: see [`encode_images`].
        skip_bad_images: see [`encode_images`].
        augmentation: of training images, while models are trained. Default: none.

    Returns:
        The splits, with the classes of `train`.

    Raises:
        DataError: as [`encode_images`], or a label in `validation` or `test` is not in `train`.
    """
    transform = as_transform(image_processor, image_size)
    check_parts(splits)
    parts = without_unlabelled_test(splits, label_column)
    columns = find_columns(parts["train"], image_column, label_column, "train")
    label_names = label_names_of(parts["train"], columns.label, "train")
    encoded = {
        split: _encode(
            dataset, transform, image_column, label_column, label_names, skip_bad_images, split
        )
        for split, dataset in parts.items()
    }
    train = replace(encoded["train"], augmentation=augmentation)
    return DataSplits(train, encoded["validation"], encoded.get("test"), name)


def encode_images(
    dataset: Dataset,
    image_processor: ImageTransform | Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    image_size: int | None = None,
    skip_bad_images: bool = False,
) -> EncodedSplit:
    """Decode and resize every image of a data set, once.

    Images are kept as 8-bit integers: 150 kB each at 224 x 224 pixels.

    Args:
        dataset: one column of images (or paths) and one of labels (`ClassLabel`, integers, strings
            or booleans).
        image_processor: the model's transformers image processor, or an [`ImageTransform`].
        image_column: name of that column; default: found by type and name.
        label_column: name of that column; default: found by type and name.
        label_names: the classes in the order of their numbers; default: those of this data set.
        image_size: edge of a square in pixels, instead of the processor's own size.
        skip_bad_images: leave out images that can't be read and count them in `n_skipped`.

    Raises:
        DataError: a column is missing or ambiguous, a label is missing or unknown, an image can't
            be read, or nothing is left.
    """
    transform = as_transform(image_processor, image_size)
    if label_names is None:
        columns = find_columns(dataset, image_column, label_column)
        label_names = label_names_of(dataset, columns.label)
    split = str(dataset.split or "the data set")
    return _encode(
        dataset, transform, image_column, label_column, label_names, skip_bad_images, split
    )


def _encode(
    dataset: Dataset,
    transform: ImageTransform,
    image_column: str | None,
    label_column: str | None,
    label_names: Sequence[str],
    skip_bad_images: bool,
    split: str,
) -> EncodedSplit:
    if len(dataset) == 0:
        raise DataError(f"{split} has no sample; check the data set")
    columns = find_columns(dataset, image_column, label_column, split)
    labels = encode_labels(dataset, columns.label, label_names, split)
    pixels = _place_for((len(dataset), 3, *transform.size), split)
    errors = _encode_into(pixels, dataset, columns.image, transform, split)
    if errors and not skip_bad_images:
        raise errors[min(errors)]
    if errors:
        logger.warning(
            "%d of the %d images of %s are left out; the first: %s",
            len(errors),
            len(dataset),
            split,
            errors[min(errors)],
        )
        good = torch.tensor([row for row in range(len(dataset)) if row not in errors])
        if len(good) == 0:
            raise DataError(f"no image of {split} can be read; the first: {errors[min(errors)]}")
        pixels, labels = _compacted(pixels, good), labels[good]
    return EncodedSplit(
        {"pixel_values": pixels},
        labels,
        tuple(label_names),
        transform.mean,
        transform.std,
        len(errors),
    )


def _compacted(pixels: torch.Tensor, good: torch.Tensor) -> torch.Tensor:
    """The rows that are good, moved to the front where they are: there may be no room for more."""
    for start in range(0, len(good), _CHUNK):
        rows = good[start : start + _CHUNK]
        pixels[start : start + len(rows)] = pixels[rows]
    return pixels[: len(good)]


def _place_for(shape: tuple[int, ...], split: str) -> torch.Tensor:
    """Memory for images; if they would take most of it, a file."""
    n_bytes = torch.Size(shape).numel()
    if fits_memory(n_bytes):
        return torch.empty(shape, dtype=torch.uint8)
    size = f"{n_bytes / 2**30:.1f} GiB"
    logger.warning(
        "the images of %s take %s, more than half of the free memory, and are kept in a temporary "
        "file",
        split,
        size,
    )
    try:
        return mapped_tensor(shape, torch.uint8)
    except OSError as error:
        raise DataError(
            f"the images of {split} take {size}: more than half of the free memory, and the place "
            f"for temporary files, {tempfile.gettempdir()}, has no room ({error.strerror}); use "
            f"fewer or smaller images, or set TMPDIR to a larger place"
        ) from error


def _encode_into(
    pixels: torch.Tensor, dataset: Dataset, column: str, transform: ImageTransform, split: str
) -> dict[int, DataError]:
    """Fill `pixels`, row by row; return the errors of the rows that can't be read."""
    errors: dict[int, DataError] = {}
    largest_grays: dict[int, int] = {}
    sources = dataset.with_format(None).select_columns([column])
    if isinstance(dataset.features[column], Image):
        sources = sources.cast_column(column, Image(decode=False))

    def fill(rows: Sequence[int], largest: int | None = None) -> None:
        def fill_one(row: int, source: Any) -> None:
            try:
                image, own = decode_by_range(source, f"image {row} of {split}", largest)
                pixels[row] = transform.resize(image)
            except DataError as error:
                errors[row] = error
            else:
                if own is not None:
                    largest_grays[row] = own

        # Decoding and resizing release the interpreter lock.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(rows), _CHUNK):
                chunk = rows[start : start + _CHUNK]
                list(pool.map(fill_one, chunk, sources[chunk][column]))

    fill(range(len(dataset)))
    largest = max(largest_grays.values(), default=0)
    if largest > LARGEST_OF_8_BITS:
        # A dark image of 16 bits looks like one of 8 until the others are known.
        fill([row for row, own in largest_grays.items() if own <= LARGEST_OF_8_BITS], largest)
        _warn_of_darkness(largest, len(largest_grays), split)
    return errors


def _warn_of_darkness(largest: int, n_images: int, split: str) -> None:
    if largest < _DARK:
        logger.warning(
            "%d images of %s have 16 bits a pixel, but no gray value above %d, so that they are "
            "nearly black after being scaled from 0..65535; scale their values to that range, or "
            "save them with 8 bits",
            n_images,
            split,
            largest,
        )
