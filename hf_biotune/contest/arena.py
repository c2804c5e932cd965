"""`Arena`: a model and a data set by name, how long is trained, and how splits are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, concatenate_datasets
from numpy.typing import NDArray
from torch import nn
from transformers import TrainingArguments

from ..blocks import BlockSpec
from ..exceptions import ConfigError, DataError
from ..search.columns import (
    class_names,
    encode_labels,
    find_image_column,
    find_label_column,
    find_text_column,
    label_names_of,
)
from ..search.data_splits import DataSplits
from ..search.encode import encode_splits
from ..search.models import (
    IMAGE_TASK,
    TEXT_TASK,
    image_classifier,
    load_image_processor,
    load_tokenizer,
    task_of,
    text_classifier,
    text_limit,
)
from ..search.sources import load_dataset_splits
from ..search.study import check_learning_rate, default_training_arguments
from ..search.texts import encode_text_splits

_PARTS = ("train", "validation", "test")
TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Arena:
    """What methods are compared on; plain values, so that every worker can load it by itself.

    Args:
        model: Hub id or local directory.
        dataset: Hub id or local path; see [`load_dataset_splits`].
        config_name: the configuration of a Hub data set that has several.
        blocks: how the model is divided; see [`partition`].
        image_column: default: found.
        text_column: default: found.
        label_column: default: found.
        image_size: side in pixels. Default: the model's own.
        max_length: tokens of a text. Default: the model's own.
        train_fraction: share of the training data to use, in (0, 1]. Default: all.
        skip_bad_images: leave out images that can't be read.
        learning_rate: the base that the rates which methods try are multiples of. Default: 1e-3.
        epochs: at most, of each training. Default: 15.
        batch_size: default: 32.
        patience: epochs without improvement that end a training; `None` for never. Default: 3.
        cpu: don't use a GPU.
        n_classes: how many classes the data set must have. Default: any number.

    Raises:
        ConfigError: epochs or batch_size is not at least 1, or learning_rate not greater than 0.
    """

    model: str
    dataset: str
    config_name: str | None = None
    blocks: BlockSpec = "auto"
    image_column: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    image_size: int | None = None
    max_length: int | None = None
    train_fraction: float = 1.0
    skip_bad_images: bool = False
    learning_rate: float = 1e-3
    epochs: int = 15
    batch_size: int = 32
    patience: int | None = 3
    cpu: bool = False
    n_classes: int | None = None

    def __post_init__(self) -> None:
        check_learning_rate(self.learning_rate)
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name} must be an integer of at least 1, got {value!r}")

    @property
    def name(self) -> str:
        """For titles: the data set on the model."""
        return f"{Path(self.dataset).name} on {Path(self.model).name}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        if not isinstance(self.blocks, (str, dict)):
            values["blocks"] = list(self.blocks)
        return values

    def arguments(self, output_dir: Path | None) -> TrainingArguments:
        """Of every training; the learning rate is tuned for each method."""
        return default_training_arguments(
            None if output_dir is None else str(output_dir),
            learning_rate=self.learning_rate,
            num_train_epochs=self.epochs,
            per_device_train_batch_size=self.batch_size,
            use_cpu=self.cpu,
        )


class LoadedArena:
    """A arena with its data in memory, ready to be split.

    Args:
        arena: what to load.

    Raises:
        ConfigError: there is no such model, or an option doesn't fit its task.
        DataError: there is no such data set.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.task = task_of(arena.model)
        self._check_options()
        self._shipped = load_dataset_splits(
            arena.dataset,
            config_name=arena.config_name,
            image_column=arena.image_column,
            text_column=arena.text_column,
            label_column=arena.label_column,
            train_fraction=arena.train_fraction,
        )

    def split(self, number: int) -> DataSplits:
        """Training, validation and test samples, encoded for the model.

        Args:
            number: of the split; see [`redraw`].

        Raises:
            DataError: as [`redraw`], or samples can't be read, or there are not as many classes as
                there should be.
        """
        label_column, train = self.arena.label_column, self._shipped["train"]
        if self.task == TEXT_TASK:
            input_column = find_text_column(train, self.arena.text_column, label_column)
        else:
            input_column = find_image_column(train, self.arena.image_column)
        data = self._encoded(redraw(self._shipped, number, label_column, input_column))
        wanted, found = self.arena.n_classes, len(data.label_names)
        if wanted is not None and found != wanted:
            raise DataError(
                f"{self.arena.dataset!r} must have {wanted} classes, got {found}; check the data "
                f"set and the column of labels"
            )
        return data

    def _encoded(self, splits: DatasetDict) -> DataSplits:
        arena = self.arena
        name = Path(arena.dataset).name
        if self.task == TEXT_TASK:
            tokenizer = load_tokenizer(arena.model)
            return encode_text_splits(
                splits,
                tokenizer,
                name=name,
                text_column=arena.text_column,
                label_column=arena.label_column,
                max_length=arena.max_length,
                model_limit=text_limit(arena.model, pad_token_id=tokenizer.pad_token_id),
            )
        return encode_splits(
            splits,
            load_image_processor(arena.model),
            name=name,
            image_column=arena.image_column,
            label_column=arena.label_column,
            image_size=arena.image_size,
            skip_bad_images=arena.skip_bad_images,
        )

    def model_init(self, data: DataSplits) -> Callable[[], nn.Module]:
        """Makes the pre-trained model with a head for the classes of the data."""
        if self.task == TEXT_TASK:
            pad_token_id = load_tokenizer(self.arena.model).pad_token_id
            return text_classifier(self.arena.model, data.label_names, pad_token_id=pad_token_id)
        return image_classifier(self.arena.model, data.label_names)

    def _check_options(self) -> None:
        other = {
            IMAGE_TASK: ("text_column", "max_length"),
            TEXT_TASK: ("image_column", "image_size", "skip_bad_images"),
        }
        for name in other[self.task]:
            if getattr(self.arena, name):
                raise ConfigError(
                    f"{name} has no meaning for {self.arena.model!r}, which is for "
                    f"{self.task.replace('-', ' ')}; leave it out"
                )


def redraw(
    shipped: DatasetDict,
    number: int,
    label_column: str | None = None,
    input_column: str | None = None,
) -> DatasetDict:
    """Training, validation and test samples, drawn anew from all samples of a data set.

    Each part keeps its number of samples of each class. A data set without a test part gets one of
    a fifth of each class, before anything else. Classes are those of `train`, by their names.

    Args:
        shipped: as [`load_dataset_splits`] returns: `train`, `validation` and perhaps `test`.
        number: of the split, which is the seed of the draw. 0: the parts as they are shipped, if
            there is a test part.
        label_column: default: found.
        input_column: the only other one to keep. Default: all that are alike in all parts.

    Raises:
        ConfigError: `number` is negative.
        DataError: a class has too few samples to have one in each part, or is not in `train`, or
            the inputs of a part are of another kind.
    """
    if number < 0:
        raise ConfigError(f"the number of a split must be at least 0, got {number}")
    if number == 0 and "test" in shipped:
        return shipped
    aligned = _aligned(shipped, label_column, input_column)
    pool = concatenate_datasets(list(aligned.values()))
    column = find_label_column(aligned["train"], label_column)
    names = np.asarray(class_names(pool, column))
    parts = _parts_by_counts(names, _counts(aligned, column, names), number)
    return DatasetDict({part: _select(pool, rows) for part, rows in parts.items()})


def _aligned(
    shipped: DatasetDict, label_column: str | None, input_column: str | None
) -> dict[str, Dataset]:
    """The parts with the same columns, whose labels mean the same in all of them."""
    train, parts = shipped["train"], [part for part in _PARTS if part in shipped]
    column = find_label_column(train, label_column, "train")
    inputs = [input_column] if input_column else _common_inputs(shipped, column)
    features = Features({name: train.features[name] for name in (*inputs, column)})
    if all(_has_features(shipped[part], features) for part in parts):
        return {part: shipped[part].select_columns(list(features)) for part in parts}
    features[column] = ClassLabel(names=list(label_names_of(train, column, "train")))
    return {
        part: _with_features(shipped[part], features, column, label_column, part) for part in parts
    }


def _has_features(dataset: Dataset, features: Features) -> bool:
    return all(dataset.features.get(name) == feature for name, feature in features.items())


def _common_inputs(shipped: DatasetDict, label_column: str) -> list[str]:
    features = [part.features for part in shipped.values()]
    return [
        name
        for name, feature in shipped["train"].features.items()
        if name != label_column and all(of_part.get(name) == feature for of_part in features)
    ]


def _with_features(
    dataset: Dataset, features: Features, column: str, label_column: str | None, part: str
) -> Dataset:
    own_column = find_label_column(dataset, label_column, part)
    inputs = {name: feature for name, feature in features.items() if name != column}
    try:
        labels = encode_labels(dataset, own_column, features[column].names, part).tolist()
        # In memory, as in `_select`.
        selected = dataset.select_columns(list(inputs)).flatten_indices(keep_in_memory=True)
        if selected.features != inputs:
            selected = selected.cast(Features(inputs), keep_in_memory=True)
    except DataError:
        raise
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"{part} can't be mixed with train, since its inputs differ: {error}; give both the "
            f"same columns: {', '.join(map(repr, inputs))}"
        ) from error
    return selected.add_column(column, labels, feature=features[column])


def _counts(
    shipped: Mapping[str, Dataset], column: str, names: NDArray[Any]
) -> dict[str, dict[str, int]]:
    """How many samples of each class each part shall have."""
    parts = {part: class_names(shipped[part], column) for part in _PARTS if part in shipped}
    counts = {
        part: {str(name): int((np.asarray(of) == name).sum()) for name in np.unique(names)}
        for part, of in parts.items()
    }
    if "test" not in parts:
        counts["test"] = {}
        for name, n_train in counts["train"].items():
            n_validation = counts["validation"][name]
            n_all = n_train + n_validation
            n_test = max(1, min(round(TEST_FRACTION * n_all), n_all - 2))
            # Of both in proportion, and never the last one of either.
            of_validation = min(round(n_test * n_validation / n_all), max(0, n_validation - 1))
            counts["test"][name] = n_test
            counts["validation"][name] -= of_validation
            counts["train"][name] -= n_test - of_validation
    for part in ("train", "validation"):
        for name, count in counts[part].items():
            if count <= 0:
                raise DataError(
                    f"class {name!r} has no sample left for {part} after the test part was drawn; "
                    f"it has {int((names == name).sum())} in all; add some, or remove the class"
                )
    return counts


def _parts_by_counts(
    names: NDArray[Any], counts: dict[str, dict[str, int]], seed: int
) -> dict[str, NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    parts: dict[str, list[NDArray[np.int64]]] = {part: [] for part in counts}
    for name in np.unique(names):
        members = generator.permutation(np.flatnonzero(names == name))
        start = 0
        for part, of_part in counts.items():
            end = start + of_part[str(name)]
            parts[part].append(members[start:end])
            start = end
    return {part: np.sort(np.concatenate(rows)) for part, rows in parts.items()}


def _select(dataset: Dataset, rows: NDArray[np.int64]) -> Dataset:
    # In memory: the default is a file beside the data set.
    return dataset.select(rows, keep_in_memory=True)
