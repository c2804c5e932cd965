"""Image folders are read in one way, or refused with the ways in which they could be read."""

import pytest
from PIL import Image

from hf_biotune.exceptions import DataError
from hf_biotune.search.image_folders import read_image_folder


def write(root, *folders, n=2):
    """Images in each folder; without any in those whose names end in a slash."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(0 if folder.endswith("/") else n):
            Image.new("L", (4, 4), number).save(root / folder / f"{number}.png")


def labels(root) -> dict[str, list[str]]:
    return {name: sorted(set(split["label"])) for name, split in read_image_folder(root).items()}


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train/cat", "train/dog", "val/cat"], {"train": ["cat", "dog"], "val": ["cat"]}),
        # A class may be named as a split.
        (["train", "plane", "test"], {"train": ["plane", "test", "train"]}),
        (["train_station", "airport"], {"train": ["airport", "train_station"]}),
        (["cat/images", "dog/images"], {"train": ["cat", "dog"]}),
        (["cat", "cat/old", "cat/new", "dog"], {"train": ["cat", "dog"]}),
        (["notes/"], {}),
    ],
)
def test_splits_and_classes_are_told_apart(folders, expected, tmp_path):
    write(tmp_path, *folders)
    assert labels(tmp_path) == expected


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["test/cat", "test/dog", "val/cat", "val/dog"],
            r"has the split folders test, val, but none for training; name one train",
        ),
        (
            ["imgs/train/cat", "imgs/train/dog", "imgs/val/cat", "imgs/val/dog"],
            r"imgs' holds images only in its sub-folders \(train, val\), so it could be a class or "
            r"a folder around classes; if 'imgs' is a class, move its .* give that one",
        ),
        (
            ["seg_train/seg_train/sea", "seg_train/seg_train/ice", "seg_test/seg_test/sea"],
            r"seg_test' holds images only in its sub-folders \(seg_test\).* if it is a split, name",
        ),
        (["train/images"], "at least 2 classes are needed, .*train' has the class folder 'images'"),
        (["cat"], "at least 2 classes are needed, .* has the class folder 'cat' only; put"),
        (["train", "val"], "the folders train, val of .* are named as splits, but hold images dir"),
        (
            ["train/cat", "train/dog", "val"],
            "val' holds images directly, as a class folder does, but beside it are the split "
            "folders train; put its images into one sub-folder a class, or rename the folders",
        ),
        (
            ["train_station/day", "train_station/night", "airport"],
            "airport' holds images directly, as a class folder does, but beside it are the split "
            "folders train_station",
        ),
        (["train/cat", "train/dog", "val/"], "split folder .*val' has no image; fill or remove"),
        (["train/cat", "train/dog/"], "class folder .*dog' has no image; fill or remove it"),
    ],
)
def test_folders_that_can_be_read_otherwise_are_refused(folders, message, tmp_path):
    write(tmp_path, *folders)
    with pytest.raises(DataError, match=message):
        read_image_folder(tmp_path)


@pytest.mark.parametrize("test", ["test", "test/images"])
def test_test_images_without_classes_are_left_out(test, tmp_path, caplog):
    write(tmp_path, "train/cat", "train/dog", test)
    assert labels(tmp_path) == {"train": ["cat", "dog"]}
    assert "test' is not used: " in caplog.text


def test_folders_beside_split_folders_are_left_out_and_named(tmp_path, caplog):
    write(tmp_path, "train/cat", "train/dog", "samples", "documents/")
    assert labels(tmp_path) == {"train": ["cat", "dog"]}
    (record,) = caplog.records
    assert "samples' is not used: it has no class folders of a split" in record.getMessage()
