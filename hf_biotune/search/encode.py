"""Encoding: from a data set of any kind to an [`EncodedSplit`] in memory, once."""

from __future__ import annotations

import inspect
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from datasets import ClassLabel, Dataset, DatasetDict, Image
from torch import nn

from ..classification import takes_names
from ..exceptions import DataError
from .augmentation import Augmentation
from .columns import encode_labels, find_columns, label_names_of, without_unlabelled_test
from .data import EncodedSplit, shortened
from .data_splits import DataSplits, check_parts
from .images import LARGEST_OF_8_BITS, decode_by_range
from .mapped import fits_memory, mapped_tensor
from .transforms import ImageTransform, as_transform

logger = logging.getLogger(__name__)

_CHUNK = 64
# Gray values of 12 bits, as cameras and scanners give them in files of 16 bits, stay below.
_DARK = 4096
_LABEL_KEYS = ("labels", "label", "label_ids")
_USUAL_INPUTS = ("pixel_values", "input_ids")


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


def encode_dataset(
    dataset: Any, label_names: Sequence[str] | None = None, columns: Sequence[str] | None = None
) -> EncodedSplit:
    """Read every item of a data set that yields ready-made inputs, once.

    For text that is tokenised to one length, or images that were transformed already. Each item is
    read a single time, so random augmentation would be frozen in; a warning says so.

    Args:
        dataset: a torch or `datasets` data set (with or without a transform). Items are dicts of
            equally shaped tensors, arrays or numbers, such as `{"pixel_values", "labels"}` or
            `{"input_ids", "attention_mask", "labels"}`. The label is an integer under `labels`,
            `label` or `label_ids`. Strings are left out.
        label_names: the classes in the order of their numbers; default: those of a `ClassLabel`
            column, else the numbers from 0 to the largest label.
        columns: the inputs to keep; default: all.

    Raises:
        DataError: items are not such dicts, or differ in shape, or there is none.
    """
    if not hasattr(dataset, "__len__") or len(dataset) == 0:
        raise DataError(
            f"a data set with a length of at least 1 is needed, got {type(dataset).__name__}"
            f"{' of length 0' if hasattr(dataset, '__len__') else ', which has no length'}"
        )
    _warn_of_augmentation(dataset)
    starts = range(0, len(dataset), _CHUNK)
    chunks, labels = [], []
    for start in starts:
        chunk, of_chunk = _collate(
            dataset, range(start, min(start + _CHUNK, len(dataset))), columns
        )
        chunks.append(chunk)
        labels += of_chunk
    shapes = {name: values.shape[1:] for name, values in chunks[0].items()}
    for start, chunk in zip(starts, chunks, strict=True):
        _check_shapes(chunk, shapes, start)
    tensors = {name: torch.cat([chunk[name] for chunk in chunks]) for name in shapes}
    names = label_names or _names_from_features(dataset) or range(max(labels) + 1)
    return EncodedSplit(tensors, torch.tensor(labels), tuple(map(str, names)))


def encode_for(
    model_init: Callable[[], nn.Module], train: Any, validation: Any
) -> tuple[EncodedSplit, EncodedSplit]:
    """Training and validation samples as a search takes them.

    Args:
        model_init: makes the model. Columns that its `forward` does not know are left out, as
            `Trainer` does it. A model that takes inputs by position, as those of timm do, gets as
            many as it needs: `pixel_values` or `input_ids` if there are such, else the first.
        train: an [`EncodedSplit`], which stays as it is, or what [`encode_dataset`] takes.
        validation: the same; its classes are those of `train`, by their names if both have some.

    Raises:
        DataError: as [`encode_dataset`], or their classes differ.
    """
    columns = None
    if not (isinstance(train, EncodedSplit) and isinstance(validation, EncodedSplit)):
        columns = _columns_for(model_init(), train)
    is_named = _has_names(train)
    if not isinstance(train, EncodedSplit):
        train = encode_dataset(train, columns=columns)
    if not isinstance(validation, EncodedSplit):
        own_names = _names_from_features(validation)
        if is_named and own_names is not None:
            validation = encode_dataset(validation, own_names, columns)
            validation = _renumbered(validation, train.label_names)
        else:
            validation = encode_dataset(validation, train.label_names, columns)
    _check_classes(train, validation)
    return train, validation


def _columns_for(model: nn.Module, train: Any) -> list[str] | None:
    """The inputs that a model can take."""
    parameters = inspect.signature(model.forward).parameters
    if takes_names(model):
        return list(parameters)
    if isinstance(train, EncodedSplit):
        return list(train.inputs)
    kinds = {parameter.kind for parameter in parameters.values()}
    item = train[0] if hasattr(train, "__len__") and len(train) else None
    if not isinstance(item, Mapping) or inspect.Parameter.VAR_POSITIONAL in kinds:
        return None
    inputs = [k for k in item if k not in _LABEL_KEYS and _shape(item[k]) is not None]
    needed = [name for name, parameter in parameters.items() if _is_needed(parameter)]
    if set(needed) <= set(inputs):
        return [name for name in inputs if name in parameters]
    # Ids of samples, for example, would be taken for its second argument.
    usual_first = sorted(inputs, key=lambda name: name not in _USUAL_INPUTS)
    return usual_first[: len(needed)]


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD


def _has_names(dataset: Any) -> bool:
    """Whether the classes of training samples have names, and not just numbers."""
    if isinstance(dataset, EncodedSplit):
        return dataset.label_names != tuple(map(str, range(len(dataset.label_names))))
    return _names_from_features(dataset) is not None


def _renumbered(split: EncodedSplit, label_names: Sequence[str]) -> EncodedSplit:
    """The same samples, with classes numbered as in `label_names`; as it is if one is unknown."""
    used = {split.label_names[number] for number in set(split.labels.tolist())}
    if not used <= set(label_names):
        return split
    # A class without samples needs no number.
    known = {name: number for number, name in enumerate(label_names)}
    numbers = torch.tensor([known.get(name, -1) for name in split.label_names])
    return replace(split, labels=numbers[split.labels], label_names=tuple(label_names))


def _check_classes(train: EncodedSplit, validation: EncodedSplit) -> None:
    """A number must mean the same class in both; the last ones may be missing in validation."""
    names, others = train.label_names, validation.label_names
    if others != names[: len(others)]:
        raise DataError(
            f"training and validation samples must number their classes alike, got "
            f"{shortened(names)} and {shortened(others)}; give both the same label_names"
        )


def _warn_of_augmentation(dataset: Any) -> None:
    first, again = dataset[0], dataset[0]
    if not isinstance(first, Mapping) or not isinstance(again, Mapping):
        return  # an error of its own
    for name, value in first.items():
        if torch.is_tensor(value) and not torch.equal(value, again[name]):
            logger.warning(
                "%r of item 0 changes each time that it is read; what is random in it is frozen "
                "now. For images that change from epoch to epoch, encode them with an Augmentation",
                name,
            )
            return


def _collate(
    dataset: Any, rows: Sequence[int], columns: Sequence[str] | None
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Inputs as transformers' own collator stacks them, and labels."""
    from transformers import default_data_collator

    items = [dataset[row] for row in rows]
    for row, item in zip(rows, items, strict=True):
        if not isinstance(item, Mapping) or not any(key in item for key in _LABEL_KEYS):
            found = f"the keys {sorted(item)}" if isinstance(item, Mapping) else type(item).__name__
            raise DataError(
                f"items must be dicts of inputs and 'labels', but item {row} is {found}; wrap the "
                "data set so that it yields such dicts"
            )
    inputs = [value for key, value in items[0].items() if key not in _LABEL_KEYS]
    if all(_shape(value) is None for value in inputs):
        raise DataError(
            f"items must hold numbers that a model takes, such as 'pixel_values' or 'input_ids', "
            f"but item {rows[0]} has {sorted(items[0])}; images and texts are encoded by "
            f"encode_splits and encode_text_splits, or by a transform of the data set"
        )
    # The collator knows some types of labels only.
    labels = [_label_of(item, row) for row, item in zip(rows, items, strict=True)]
    items = [
        {k: item[k] for k in item if k not in _LABEL_KEYS and (columns is None or k in columns)}
        for item in items
    ]
    for name in items[0]:
        expected = _shape(items[0][name])
        for row, item in zip(rows, items, strict=True):
            if (shape := _shape(item.get(name))) != expected:
                raise _shape_error(row, name, shape, rows[0], expected)
    return dict(default_data_collator(items)), labels


def _label_of(item: Mapping[str, Any], row: int) -> int:
    key = next(key for key in _LABEL_KEYS if key in item)
    label = item[key]
    if label is None:
        raise DataError(f"item {row} has no label: {key!r} is None; label or remove it")
    # Tensors, arrays and numbers of numpy alike.
    if _shape(label) == () and hasattr(label, "item"):
        label = label.item()
    if not isinstance(label, int):
        raise DataError(
            f"each item needs one integer label, but {key!r} of item {row} is {item[key]!r}; only "
            "classification is supported"
        )
    return int(label)


def _shape(value: Any) -> tuple[int, ...] | None:
    """Shape of a tensor, array, number or nested list; `None` for what is not numeric."""
    if isinstance(value, (bool, int, float)):
        return ()
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return (len(value), *(_shape(value[0]) or ())) if value else (0,)
    # Images of Pillow, for example, have none.
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def _check_shapes(
    chunk: Mapping[str, torch.Tensor], shapes: Mapping[str, Sequence[int]], row: int
) -> None:
    for name, expected in shapes.items():
        shape = tuple(chunk[name].shape[1:]) if name in chunk else None
        if shape != tuple(expected):
            raise _shape_error(row, name, shape, 0, tuple(expected))


def _shape_error(
    row: int, name: str, shape: tuple[int, ...] | None, other: int, expected: tuple[int, ...] | None
) -> DataError:
    return DataError(
        f"items must have equal shapes, but {name!r} of item {row} has shape {shape} and that of "
        f"item {other} has {expected}; pad texts to one length, or resize images to one size"
    )


def _names_from_features(dataset: Any) -> Sequence[str] | None:
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        for key in _LABEL_KEYS:
            if isinstance(features.get(key), ClassLabel):
                return list(features[key].names)
    return None
