"""Ready-made samples: from a data set whose items a model takes to an [`EncodedSplit`], once."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from datasets import ClassLabel
from torch import nn

from ..classification import takes_names
from ..exceptions import DataError
from .data import EncodedSplit, shortened

logger = logging.getLogger(__name__)

_CHUNK = 64
_LABEL_KEYS = ("labels", "label", "label_ids")
_USUAL_INPUTS = ("pixel_values", "input_ids")


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
    if train.n_classes < 2:
        raise DataError(
            f"at least 2 classes are needed, but all training samples are of class "
            f"{shortened(train.label_names)}; check the labels, or the level of the folders"
        )
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
