"""Where data comes from: directories and files of every kind, and the Hub."""

import os

import datasets
import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features
from datasets import Image as ImageFeature
from PIL import Image

from hf_biotune.exceptions import ConfigError, DataError
from hf_biotune.search.encode import encode_splits
from hf_biotune.search.sources import load_dataset_splits
from hf_biotune.search.transforms import ImageTransform

TRANSFORM = ImageTransform.from_values(4, (0.5,) * 3, (0.5,) * 3)


def write_images(directory, n: int, first: int = 0) -> list[str]:
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"{first + i:03}.png" for i in range(n)]
    for i, name in enumerate(names):
        Image.new("L", (6, 5), first + i).save(directory / name)
    return names


def images(n: int = 10, names=("cat", "dog")) -> Dataset:
    pictures = [Image.new("L", (6, 5), i) for i in range(n)]
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(names))})
    labels = [i % len(names) for i in range(n)]
    return Dataset.from_dict({"image": pictures, "label": labels}, features=features)


def sizes(splits) -> dict[str, int]:
    return {name: len(split) for name, split in splits.items()}


def gray_values(splits) -> dict[str, list[int]]:
    encoded = encode_splits(splits, TRANSFORM, name="x")
    return {
        name: getattr(encoded, name).inputs["pixel_values"][:, 0, 0, 0].tolist() for name in splits
    }


def snapshot(directory) -> dict[str, tuple[int, int]]:
    """Every file with its size and time of change."""
    return {
        os.path.join(root, name): (status.st_size, status.st_mtime_ns)
        for root, _, names in os.walk(directory)
        for name in names
        for status in [os.stat(os.path.join(root, name))]
    }


def test_a_saved_data_set_with_three_splits_is_loaded_as_it_is(tmp_path):
    splits = DatasetDict(test=images(4), dev=images(6), train=images(8))
    splits.save_to_disk(tmp_path / "data")
    loaded = load_dataset_splits(tmp_path / "data")
    assert list(loaded) == ["train", "validation", "test"]
    assert gray_values(loaded) == {
        "train": list(range(8)),
        "validation": list(range(6)),
        "test": list(range(4)),
    }


def test_a_saved_single_data_set_is_divided(tmp_path):
    images(20).save_to_disk(tmp_path / "data")
    before = snapshot(tmp_path)
    loaded = load_dataset_splits(str(tmp_path / "data"), train_fraction=0.5)
    assert sizes(loaded) == {"train": 8, "validation": 4}
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["validation", "val", "valid", "dev", "Validation"])
def test_image_folders_in_split_folders(name, tmp_path):
    for label, first in (("cat", 0), ("dog", 100)):
        write_images(tmp_path / "train" / label, 3, first)
        write_images(tmp_path / name / label, 2, first + 10)
    before = snapshot(tmp_path)
    loaded = load_dataset_splits(tmp_path)
    assert gray_values(loaded) == {
        "train": [0, 1, 2, 100, 101, 102],
        "validation": [10, 11, 110, 111],
    }
    assert loaded["train"]["label"][:] == ["cat"] * 3 + ["dog"] * 3
    assert snapshot(tmp_path) == before


def test_image_folders_without_split_folders_are_divided(tmp_path):
    for label, first in (("cat", 0), ("dog", 100)):
        write_images(tmp_path / label, 5, first)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "README.md").write_text("# Pets")
    loaded = load_dataset_splits(tmp_path)
    assert sizes(loaded) == {"train": 8, "validation": 2}
    assert sorted(loaded["validation"]["label"]) == ["cat", "dog"]


def test_images_in_nested_folders_belong_to_the_outer_class(tmp_path):
    write_images(tmp_path / "cat" / "kitchen", 2)
    write_images(tmp_path / "cat" / "garden", 2, 10)
    write_images(tmp_path / "cat", 1, 20)
    write_images(tmp_path / "dog" / "images", 5, 30)
    splits = load_dataset_splits(tmp_path)
    assert sorted(splits["train"]["label"]) == ["cat"] * 4 + ["dog"] * 4


def test_csv_files_name_images_relative_to_themselves(tmp_path):
    names = write_images(tmp_path / "pictures", 6)
    rows = {"file": [f"pictures/{name}" for name in names], "label": ["b", "a"] * 3, "id": range(6)}
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame(rows).iloc[:4].to_csv(tmp_path / "val.csv", index=False)
    loaded = load_dataset_splits(tmp_path)
    assert gray_values(loaded) == {"train": list(range(6)), "validation": list(range(4))}
    single = load_dataset_splits(tmp_path / "train.csv", validation_fraction=0.34)
    assert sizes(single) == {"train": 4, "validation": 2}


def test_images_of_a_csv_file_may_come_with_a_text(tmp_path):
    names = write_images(tmp_path / "pictures", 4)
    rows = {"file": [f"pictures/{name}" for name in names], "label": [0, 1] * 2, "text": ["a"] * 4}
    pd.DataFrame(rows).to_csv(tmp_path / "train.csv", index=False)
    pd.DataFrame(rows).to_csv(tmp_path / "val.csv", index=False)
    assert gray_values(load_dataset_splits(tmp_path))["train"] == [0, 1, 2, 3]


def test_a_csv_file_may_hold_absolute_paths_and_numbers_as_classes(tmp_path):
    names = write_images(tmp_path / "pictures", 4)
    rows = {"where": [str(tmp_path / "pictures" / name) for name in names], "label": [10, 2, 10, 2]}
    pd.DataFrame(rows).to_csv(tmp_path / "all.csv", index=False)
    loaded = load_dataset_splits(tmp_path, image_column="where", validation_fraction=0.5)
    assert encode_splits(loaded, TRANSFORM, name="x").label_names == ("2", "10")


def test_a_long_csv_file_may_hold_texts_of_several_lines(tmp_path):
    texts = [f"line one of {number}\nand two, {'x' * 40}" for number in range(40_000)]
    pd.DataFrame({"text": texts, "label": ["a", "b"] * 20_000}).to_csv(
        tmp_path / "train.csv", index=False
    )
    assert (tmp_path / "train.csv").stat().st_size > 2**21
    loaded = load_dataset_splits(tmp_path)
    assert sorted([*loaded["train"]["text"], *loaded["validation"]["text"]]) == sorted(texts)


def test_a_csv_class_may_be_called_na_but_an_empty_field_is_missing(tmp_path):
    names = write_images(tmp_path, 4)
    file = tmp_path / "train.csv"
    file.write_text("image,label\n" + "".join(f"{n},NA\n" for n in names))
    assert set(load_dataset_splits(file)["train"]["label"]) == {"NA"}
    file.write_text(f"image,label\n{names[0]},\n{names[1]},a\n")
    with pytest.raises(DataError, match="row 0 of train has no label: column 'label' is None"):
        load_dataset_splits(file)
    file.write_text(f"image,label\n{names[0]},a\n,a\n")
    with pytest.raises(DataError, match=r"row 1 of '.*train\.csv' has no path in column 'image'"):
        load_dataset_splits(file)


def test_an_image_that_a_csv_file_names_may_be_missing(tmp_path):
    (tmp_path / "train.csv").write_text("image,label\ngone.png,a\nlost.png,a\n")
    splits = load_dataset_splits(tmp_path, validation_fraction=0.5)
    with pytest.raises(DataError, match=rf"image 0 of train \({tmp_path}/\w+\.png\) can't be read"):
        encode_splits(splits, TRANSFORM, name="x")


@pytest.mark.parametrize("layout", ["{}-00000-of-00001.parquet", "data/{}.parquet", "{}/0.parquet"])
def test_parquet_files(layout, tmp_path):
    for split, n in (("train", 6), ("validation", 4), ("test", 2)):
        path = tmp_path / layout.format(split)
        path.parent.mkdir(exist_ok=True, parents=True)
        images(n).to_parquet(path)
    before = snapshot(tmp_path)
    loaded = load_dataset_splits(tmp_path)
    assert gray_values(loaded)["test"] == [0, 1]
    assert sizes(loaded) == {"train": 6, "validation": 4, "test": 2}
    assert loaded["train"].features["label"].names == ["cat", "dog"]
    assert snapshot(tmp_path) == before


def test_parquet_parts_of_one_split_are_joined(tmp_path):
    images(6).to_parquet(tmp_path / "train-00000-of-00002.parquet")
    images(4).to_parquet(tmp_path / "train-00001-of-00002.parquet")
    images(4).to_parquet(tmp_path / "validation.parquet")
    assert sizes(load_dataset_splits(tmp_path)) == {"train": 10, "validation": 4}
    Dataset.from_dict({"image": ["a"], "label": [[1]]}).to_parquet(tmp_path / "train-2.parquet")
    with pytest.raises(DataError, match=r"files of one split in .* differ in columns"):
        load_dataset_splits(tmp_path)


def test_parquet_files_of_other_tools_are_read(tmp_path):
    Image.new("L", (6, 5), 9).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    frame = pd.DataFrame({"image": [{"bytes": content, "path": "a.png"}] * 4, "label": [0, 1] * 2})
    frame.to_parquet(tmp_path / "data.parquet")
    loaded = load_dataset_splits(tmp_path / "data.parquet", validation_fraction=0.5)
    assert gray_values(loaded) == {"train": [9, 9], "validation": [9, 9]}


def test_the_cut_and_the_subset_are_stratified_and_follow_the_seed(tmp_path):
    labels = [0] * 40 + [1] * 20
    dataset = images(60).remove_columns("label").add_column("label", labels)
    dataset.save_to_disk(tmp_path / "data")

    def load(**options):
        return load_dataset_splits(tmp_path / "data", **options)

    splits = load(validation_fraction=0.25, train_fraction=0.5)
    assert np.bincount(splits["train"]["label"]).tolist() == [15, 8]
    assert np.bincount(splits["validation"]["label"]).tolist() == [10, 5]
    whole = gray_values(load())
    assert sorted(whole["train"] + whole["validation"]) == list(range(60))
    assert gray_values(load(seed=0)) == whole
    assert gray_values(load(seed=1)) != whole


def test_one_split_of_any_name_is_training_data_and_others_are_left_out(tmp_path):
    DatasetDict(everything=images(10)).save_to_disk(tmp_path / "one")
    assert sizes(load_dataset_splits(tmp_path / "one")) == {"train": 8, "validation": 2}
    splits = DatasetDict(train=images(8), validation=images(4), extra=images(2))
    splits.save_to_disk(tmp_path / "more")
    assert sizes(load_dataset_splits(tmp_path / "more")) == {"train": 8, "validation": 4}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"test": 4, "extra": 4},
            r"'.*data' has no training split; its splits are: test, extra; one must be named train",
        ),
        (
            {"train": 4, "val": 4, "dev": 4},
            r"'.*data' has several splits that could be validation: val, dev; remove or rename all",
        ),
        (
            {"train": 0},
            r"the saved data set '.*data' can't be read, or a split is empty: .*; save it again",
        ),
    ],
)
def test_splits_that_do_not_fit_are_explained(splits, message, tmp_path):
    DatasetDict({name: images(n) for name, n in splits.items()}).save_to_disk(tmp_path / "data")
    with pytest.raises(DataError, match=message):
        load_dataset_splits(tmp_path / "data")


def test_an_empty_split_is_named(tmp_path):
    (tmp_path / "train.csv").write_text("image,label\na.png,a\n")
    images(0).to_parquet(tmp_path / "val.parquet")
    with pytest.raises(DataError, match=r"the validation split of '.*' has no sample"):
        load_dataset_splits(tmp_path)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [-1, -1]}, "column 'label' holds no label, but only None or -1"),
        ({"label": [None, None]}, "column 'label' holds no label, but only None or -1"),
        ({}, "no label column found; the columns are: text"),
    ],
)
def test_a_test_split_without_labels_is_left_out(columns, message, tmp_path, caplog):
    train = Dataset.from_dict({"text": ["a", "b", "c", "d"], "label": [0, 1] * 2})
    test = Dataset.from_dict({"text": ["e", "f"], **columns})
    for name, split in (("train", train), ("validation", train), ("test", test)):
        split.to_parquet(tmp_path / f"{name}.parquet")
    assert sizes(load_dataset_splits(tmp_path)) == {"train": 4, "validation": 4}
    assert f"the split test is not used: {message}" in caplog.text


def test_one_label_is_enough_to_keep_a_test_split(tmp_path):
    for name, labels in (("train", [0, 1]), ("validation", [0, 1]), ("test", [-1, 1])):
        Dataset.from_dict({"text": ["a", "b"], "label": labels}).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    assert "test" in load_dataset_splits(tmp_path)


def test_a_class_with_one_sample_cannot_be_divided(tmp_path):
    write_images(tmp_path / "cat", 3)
    write_images(tmp_path / "dog", 1)
    message = "class 'dog' has 1 sample, which can't be divided into train and validation; add samp"
    with pytest.raises(DataError, match=message):
        load_dataset_splits(tmp_path)


def test_an_empty_class_folder_is_named(tmp_path):
    write_images(tmp_path / "cat", 3)
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"class folder '.*dog' has no image; fill or remove it"):
        load_dataset_splits(tmp_path)


def test_a_folder_of_something_else_is_explained(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    message = (
        r"no data set at '.*': it is none of: a `save_to_disk` directory, an image folder .*; "
        r".*/ contains: notes\.txt"
    )
    with pytest.raises(DataError, match=message):
        load_dataset_splits(tmp_path)
    with pytest.raises(
        DataError, match=r"no data set at '.*notes\.txt': a file must be \.parquet or"
    ):
        load_dataset_splits(tmp_path / "notes.txt")


def test_damaged_tables_are_named(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"'.*train\.parquet' can't be read: "):
        load_dataset_splits(tmp_path)
    (tmp_path / "train.csv").write_text("a,b\n1,2,3\n")
    with pytest.raises(DataError, match=r"'.*train\.csv' can't be read: "):
        load_dataset_splits(tmp_path / "train.csv")
    (tmp_path / "train.csv").write_text("id,b\n1,2\n")
    with pytest.raises(
        DataError, match=r"'.*train\.csv': no image column found; the columns are: id"
    ):
        load_dataset_splits(tmp_path / "train.csv")


@pytest.mark.parametrize("source", ["no/such/directory", "./nothing", "/nowhere at all"])
def test_an_unknown_path_is_refused_without_asking_the_hub(source):
    message = (
        f"no data set at '{source}': it is neither a local path nor a data set on the Hub; local"
    )
    with pytest.raises(DataError, match=message):
        load_dataset_splits(source)


def test_a_hub_that_cannot_be_reached_is_an_error_with_the_cause(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    message = (
        r"no data set at 'me/pets': it is neither a local path nor a data set on the Hub that can "
        r"be reached \(ConnectionError: .*Offline.*\); check the spelling and the connection"
    )
    with pytest.raises(DataError, match=message):
        load_dataset_splits("me/pets")


def test_a_hub_data_set_is_loaded_by_its_id_and_configuration(monkeypatch):
    def load_dataset(source, config_name):
        assert (source, config_name) == ("me/pets", "small")
        assert datasets.are_progress_bars_disabled()
        return DatasetDict(train=images(8), test=images(4))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    datasets.enable_progress_bars()  # whatever ran before
    splits = load_dataset_splits("me/pets", config_name="small", validation_fraction=0.25)
    assert sizes(splits) == {"train": 6, "validation": 2, "test": 4}
    assert not datasets.are_progress_bars_disabled()


def test_progress_bars_that_a_user_switched_off_stay_off(tmp_path):
    images().save_to_disk(tmp_path / "data")
    datasets.disable_progress_bars()
    try:
        load_dataset_splits(tmp_path / "data")
        assert datasets.are_progress_bars_disabled()
    finally:
        datasets.enable_progress_bars()


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_validation_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(
        ConfigError, match=rf"validation_fraction must be in \(0, 1\), got {fraction}"
    ):
        load_dataset_splits("x", validation_fraction=fraction)


@pytest.mark.parametrize("fraction", [0.0, 1.1])
def test_a_train_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(ConfigError, match=rf"train_fraction must be in \(0, 1\], got {fraction}"):
        load_dataset_splits("x", train_fraction=fraction)
