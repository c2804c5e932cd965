"""Image folders: one sub-folder a class, inside split folders or not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, Features, Image, Value

from ..exceptions import DataError
from .data_splits import SPLIT_NAMES, split_of
from .images import is_image_file

logger = logging.getLogger(__name__)


def read_image_folder(root: Path) -> dict[str, Dataset]:
    """The images of a folder, with the names of their class folders as labels.

    A folder is a split by its name, if it has sub-folders with images and no image directly in it.
    A class folder holds images, or one sub-folder that does; it may have others beside the images.

    Args:
        root: has class folders, or split folders that have some.

    Returns:
        By split folder; `train` if there is none. Empty: no folder in `root` holds an image.

    Raises:
        DataError: the folders can be read in two ways, there is no training split, a folder has no
            image, or there are fewer than 2 classes.
    """
    folders = _folders(root)
    if not any(folder.images for folder in folders):
        return {}
    splits = [folder for folder in folders if folder.is_split]
    if splits:
        _check_others(root, splits, [folder for folder in folders if not folder.is_split])
        read = {folder.name: _from_class_folders(folder.path) for folder in splits}
    else:
        _check_are_classes(root, folders)
        read = {"train": _from_class_folders(root)}
    for name, split in read.items():
        if split_of(name) == "train":
            _check_number_of_classes(root if not splits else root / name, split)
    return _without_unlabelled(read)


def visible_files(directory: Path) -> Iterator[Path]:
    """Files below a directory, except hidden ones such as those in `.ipynb_checkpoints`.

    Args:
        directory: where to look, in sub-folders as well.
    """
    for path in directory.rglob("*"):
        parts = path.relative_to(directory).parts
        if path.is_file() and not any(part.startswith((".", "__MACOSX")) for part in parts):
            yield path


@dataclass(frozen=True)
class _Folder:
    """A folder, and all images in it and below."""

    path: Path
    images: tuple[Path, ...]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def has_direct_images(self) -> bool:
        return any(image.parent == self.path for image in self.images)

    @property
    def inner(self) -> list[str]:
        """Sub-folders with images."""
        below = [image.relative_to(self.path).parts for image in self.images]
        return sorted({parts[0] for parts in below if len(parts) > 1})

    @property
    def is_split(self) -> bool:
        return bool(split_of(self.name) and self.images and not self.has_direct_images)

    @property
    def is_class(self) -> bool:
        if self.has_direct_images:
            return True
        # One sub-folder can't be all classes of a split.
        inner = self.inner
        return len(inner) == 1 and any(i.parent == self.path / inner[0] for i in self.images)


def _folders(directory: Path) -> list[_Folder]:
    paths = sorted(
        p for p in directory.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX"))
    )
    return [
        _Folder(path, tuple(sorted(filter(is_image_file, visible_files(path))))) for path in paths
    ]


def _names(folders: Sequence[_Folder]) -> str:
    return ", ".join(folder.name for folder in folders)


def _check_others(root: Path, splits: Sequence[_Folder], others: Sequence[_Folder]) -> None:
    """Check that what lies beside split folders can't be meant to be a split or a class."""
    if "train" not in [split_of(folder.name) for folder in splits]:
        raise DataError(
            f"{str(root)!r} has the split folders {_names(splits)}, but none for training; name "
            "one train, with one sub-folder a class and no image directly in it"
        )
    is_certain = any(folder.name.lower() in SPLIT_NAMES["train"] for folder in splits)
    for folder in others:
        split = split_of(folder.name)
        if split and not folder.images:
            raise DataError(f"split folder {str(folder.path)!r} has no image; fill or remove it")
        # Images to classify for a competition come without labels, and are left out.
        if (split and split != "test") or (folder.has_direct_images and not is_certain):
            raise DataError(
                f"{str(folder.path)!r} holds images directly, as a class folder does, but beside "
                f"it are the split folders {_names(splits)}; put its images into one sub-folder a "
                "class, or rename the folders: no class may be named as a split is"
            )
        if folder.images:
            logger.warning("%r is not used: it has no class folders of a split", str(folder.path))


def _check_are_classes(root: Path, folders: Sequence[_Folder]) -> None:
    with_images = [folder for folder in folders if folder.images]
    if all(split_of(folder.name) for folder in with_images):
        raise DataError(
            f"the folders {_names(with_images)} of {str(root)!r} are named as splits, but hold "
            "images directly, so that there are no classes; put the images into one sub-folder a "
            "class"
        )


def _from_class_folders(directory: Path) -> Dataset:
    images: list[str] = []
    labels: list[str] = []
    for folder in _folders(directory):
        _check_class_folder(folder)
        images += map(str, folder.images)
        labels += [folder.name] * len(folder.images)
    return Dataset.from_dict(
        {"image": images, "label": labels},
        features=Features({"image": Image(), "label": Value("string")}),
    )


def _check_class_folder(folder: _Folder) -> None:
    if not folder.images:
        raise DataError(f"class folder {str(folder.path)!r} has no image; fill or remove it")
    if folder.is_class:
        return
    inner = ", ".join(folder.inner[:5]) + (", ..." if len(folder.inner) > 5 else "")
    raise DataError(
        f"{str(folder.path)!r} holds images only in its sub-folders ({inner}), so it could be a "
        f"class or a folder around classes; if {folder.name!r} is a class, move its images "
        "directly into it; if it is a split, name it train, validation or test; if it is a folder "
        "around the data set, give that one"
    )


def _check_number_of_classes(directory: Path, train: Dataset) -> None:
    classes = sorted(set(train["label"]))
    if len(classes) < 2:
        raise DataError(
            f"at least 2 classes are needed, but {str(directory)!r} has the class folder "
            f"{classes[0]!r} only; put the images of each class into a sub-folder of its own, "
            "directly below"
        )


def _without_unlabelled(read: dict[str, Dataset]) -> dict[str, Dataset]:
    """All splits but tests whose images are all in one folder, which is no class of training."""
    known = {label for name in read if split_of(name) == "train" for label in read[name]["label"]}
    kept = dict(read)
    for name, split in read.items():
        labels = set(split["label"])
        if split_of(name) == "test" and len(labels) == 1 and not labels & known:
            logger.warning(
                "the test split %r is not used: all of its images are in the folder %r, which is "
                "no class of the training data",
                name,
                *labels,
            )
            del kept[name]
    return kept
