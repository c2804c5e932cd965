"""Sources: where a labelled data set comes from, and its training, validation and test parts."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
from datasets import Dataset, DatasetDict, Features, Image

from ..exceptions import ConfigError, DataError
from .columns import (
    class_names,
    find_image_column,
    find_label_column,
    holds_texts,
    may_hold_texts,
    without_unlabelled_test,
)
from .data_splits import SPLIT_NAMES, split_of
from .folds import draw_stratified
from .image_folders import read_image_folder, visible_files

logger = logging.getLogger(__name__)

_FORMS = (
    "a `save_to_disk` directory, an image folder (one sub-folder a class, inside train/, "
    "validation/ and test/ or not), parquet files or csv files with a column of image paths or "
    "of texts"
)


def load_dataset_splits(
    dataset: str | Path,
    *,
    config_name: str | None = None,
    image_column: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    validation_fraction: float = 0.2,
    train_fraction: float = 1.0,
    seed: int = 0,
) -> DatasetDict:
    """Load a labelled data set from a local path or the Hub.

    Nothing is written into a local data set. Files named `train*`, `validation*` (or `val`,
    `valid`, `dev`, `eval`) and `test*`, or in folders named so, are those splits; all others are
    training data.

    Args:
        dataset: a `save_to_disk` directory; an image folder, with one sub-folder a class, inside
            split folders or not; a directory with parquet files; csv files with a column of image
            paths, relative to the file, or of texts; one such file; or the id of a data set on the
            Hub.
        config_name: the configuration of a Hub data set that has several.
        image_column: name of the column of images; default: found by type and name.
        text_column: name of the column of texts; then no column of a csv file holds paths of
            images. Default: found by type and name.
        label_column: name of the column of labels; default: found by type and name.
        validation_fraction: in (0, 1): of each class of the training data, what is cut off as
            validation data if the data set has none.
        train_fraction: in (0, 1]: of each class of the training data (after that cut), what is
            kept; at least one sample.
        seed: of both draws.

    Returns:
        `train`, `validation` and, if the data set has one with labels, `test`. Images are not
        decoded yet.

    Raises:
        ConfigError: a fraction is out of range.
        DataError: there is no such data set, it has no training data, or a class has only one
            sample, which can't be divided.
    """
    if not 0.0 < validation_fraction < 1.0:
        raise ConfigError(f"validation_fraction must be in (0, 1), got {validation_fraction}")
    if not 0.0 < train_fraction <= 1.0:
        raise ConfigError(f"train_fraction must be in (0, 1], got {train_fraction}")
    loaded = _load(str(dataset), config_name, image_column, text_column)
    splits = _name_splits(loaded, str(dataset))
    for name, split in splits.items():
        if len(split) == 0:
            raise DataError(f"the {name} split of {str(dataset)!r} has no sample")
    splits = without_unlabelled_test(splits, label_column)
    if "validation" not in splits:
        classes = _train_classes(splits, label_column)
        splits |= _cut_validation(splits["train"], classes, validation_fraction, seed)
    if train_fraction < 1.0:
        kept, _ = draw_stratified(_train_classes(splits, label_column), train_fraction, seed)
        splits["train"] = _select(splits["train"], kept)
    return DatasetDict({name: splits[name] for name in SPLIT_NAMES if name in splits})


def _train_classes(splits: Mapping[str, Dataset], label_column: str | None) -> list[str]:
    train = splits["train"]
    return class_names(train, find_label_column(train, label_column, "train"), "train")


def _cut_validation(
    train: Dataset, names: list[str], fraction: float, seed: int
) -> dict[str, Dataset]:
    for name, count in zip(*np.unique(names, return_counts=True), strict=True):
        if count < 2:
            raise DataError(
                f"class {str(name)!r} has 1 sample, which can't be divided into train and "
                "validation; add samples, or a validation split"
            )
    cut, kept = draw_stratified(names, fraction, seed)
    return {"train": _select(train, kept), "validation": _select(train, cut)}


def _select(dataset: Dataset, rows: np.ndarray[Any, Any]) -> Dataset:
    # In memory: the default is a file beside the data set.
    return dataset.select(rows, keep_in_memory=True)


def _name_splits(loaded: Mapping[str, Dataset], source: str) -> dict[str, Dataset]:
    """Give splits their usual names; leave out those of other kinds."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in loaded:
        found[split_of(name) or "other"].append(name)
    if "train" not in found and len(loaded) == 1 and found["other"]:
        found["train"] = found.pop("other")
    if "train" not in found:
        raise DataError(
            f"{source!r} has no training split; its splits are: {', '.join(loaded)}; one must be "
            "named train"
        )
    for name in found.pop("other", []):
        logger.info("split %r of %s is not used", name, source)
    for split, names in found.items():
        if len(names) > 1:
            raise DataError(
                f"{source!r} has several splits that could be {split}: {', '.join(names)}; remove "
                "or rename all but one"
            )
    return {split: loaded[names[0]] for split, names in found.items()}


def _load(
    source: str, config_name: str | None, image_column: str | None, text_column: str | None
) -> Mapping[str, Dataset]:
    path = Path(source).expanduser()
    if config_name is not None and path.exists():
        raise DataError(
            f"a configuration is for data sets on the Hub, but {source!r} is a local path, got "
            f"config_name={config_name!r}; leave it out"
        )
    if path.is_file():
        return _from_files(path.parent, [path], image_column, text_column)
    if not path.is_dir():
        return _from_hub(source, config_name)
    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return _from_saved(path)
    files = sorted(p for p in visible_files(path) if p.suffix.lower() in (".parquet", ".csv"))
    if files:
        return _from_files(path, files, image_column, text_column)
    return _from_image_folder(path)


def _from_saved(path: Path) -> Mapping[str, Dataset]:
    try:
        with _quiet():
            loaded = datasets.load_from_disk(str(path))
    # `IndexError` is what an empty split gives.
    except (OSError, ValueError, LookupError) as error:
        raise DataError(
            f"the saved data set {str(path)!r} can't be read, or a split is empty: {error}; save "
            "it again"
        ) from error
    return loaded if isinstance(loaded, DatasetDict) else {"train": loaded}


def _from_files(
    root: Path, files: list[Path], image_column: str | None, text_column: str | None
) -> dict[str, Dataset]:
    """Parquet and csv files; the split is told by the name of the file or of a folder around it."""
    parts: dict[str, list[Dataset]] = defaultdict(list)
    for file in files:
        names = (*file.relative_to(root).parts[:-1], file.stem)
        split = next(filter(None, map(split_of, names)), "train")
        parts[split].append(_read_file(file, image_column, text_column))
    try:
        return {split: datasets.concatenate_datasets(read) for split, read in parts.items()}
    except ValueError as error:
        raise DataError(
            f"files of one split in {str(root)!r} differ in columns: {error}"
        ) from error


def _read_file(file: Path, image_column: str | None, text_column: str | None) -> Dataset:
    try:
        if file.suffix.lower() == ".parquet":
            # Read whole: `Dataset.from_parquet` would keep a second copy in a cache.
            return Dataset(datasets.table.InMemoryTable(pyarrow.parquet.read_table(file)))
        if file.suffix.lower() == ".csv":
            return _read_csv(file, image_column, text_column)
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{str(file)!r} can't be read: {error}") from error
    raise DataError(f"no data set at {str(file)!r}: a file must be .parquet or .csv")


def _read_csv(file: Path, image_column: str | None, text_column: str | None) -> Dataset:
    """A table; if it has image paths, they are made absolute: they are relative to the file."""
    # Only an empty field is missing: "NA" and "null" may be classes.
    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, null_values=[""])
    # Otherwise a text with a line break can't be read where a block of the file ends.
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    table = pyarrow.csv.read_csv(file, parse_options=parsing, convert_options=options)
    dataset = Dataset(datasets.table.InMemoryTable(table))
    if image_column is None and (text_column is not None or holds_texts(dataset)):
        return dataset
    # Texts may come with the names of the files that they are from: which of both is wanted is
    # known only when a model is.
    is_certain = image_column is not None or not may_hold_texts(dataset)
    try:
        column = find_image_column(dataset, image_column)
    except DataError as error:
        if not is_certain:
            return dataset
        raise DataError(f"{str(file)!r}: {error}") from error
    return _with_image_paths(dataset, column, file, may_lack_some=not is_certain)


def _with_image_paths(dataset: Dataset, column: str, file: Path, may_lack_some: bool) -> Dataset:
    values = dataset.to_dict()
    for row, path in enumerate(values[column]):
        if not path and not may_lack_some:
            raise DataError(f"row {row} of {str(file)!r} has no path in column {column!r}")
    values[column] = [str(file.parent / path) if path else None for path in values[column]]
    features = Features({**dataset.features, column: Image()})
    return Dataset.from_dict(values, features=features)


def _from_image_folder(root: Path) -> dict[str, Dataset]:
    """One sub-folder a class, inside split folders or not."""
    read = read_image_folder(root)
    if not read:
        content = ", ".join(sorted(p.name for p in root.iterdir())[:5]) or "nothing"
        raise DataError(
            f"no data set at {str(root)!r}: it is none of: {_FORMS}; {root.name}/ contains: "
            f"{content}"
        )
    return read


def _from_hub(source: str, config_name: str | None) -> Mapping[str, Dataset]:
    problem = f"no data set at {source!r}: it is neither a local path nor a data set on the Hub"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) or source.startswith("."):
        raise DataError(f"{problem}; local data must be {_FORMS}")
    try:
        with _quiet():
            return dict(datasets.load_dataset(source, config_name))
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{problem} that can be reached ({type(error).__name__}: {error}); check the spelling "
            f"and the connection; local data must be {_FORMS}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of `datasets` inside."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
