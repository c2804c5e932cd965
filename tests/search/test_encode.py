"""Data sets of every kind become `EncodedSplit`s."""

import numpy as np
import pytest
import transformers
from datasets import Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from png_images import LABELS, images, png

from hf_biotune.exceptions import DataError
from hf_biotune.search.encode import encode_images, encode_splits
from hf_biotune.search.mapped import is_mapped
from hf_biotune.search.transforms import ImageTransform

TRANSFORM = ImageTransform.from_values(8, (0.5,) * 3, (0.25,) * 3)


def test_images_are_encoded_in_order():
    values = [(3 * i) % 256 for i in range(150)]
    split = encode_images(images(values), TRANSFORM)
    assert split.inputs["pixel_values"].shape == (150, 3, 8, 8)
    assert split.inputs["pixel_values"][:, 0, 0, 0].tolist() == values
    assert split.labels.tolist() == [int(v > 100) for v in values]
    assert (split.label_names, split.mean, split.std) == (
        ("dark", "light"),
        (0.5,) * 3,
        (0.25,) * 3,
    )


def gray_images(values, kind) -> Dataset:
    """As `datasets` stores arrays of integers."""
    features = Features({"image": ImageFeature(), "label": LABELS})
    pictures = [np.full((10, 12), value, dtype=kind) for value in values]
    columns = {"image": pictures, "label": [0] * len(values)}
    return Dataset.from_dict(columns, features=features)


def grays_of(dataset) -> list[int]:
    pixels = encode_images(dataset, TRANSFORM).inputs["pixel_values"]
    return pixels[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("kind", [np.int32, np.uint16])
def test_arrays_of_integers_up_to_255_keep_their_gray_values(kind, caplog):
    values = [0, 7, 200, 255] * 20
    assert grays_of(gray_images(values, kind)) == values
    assert not caplog.records


@pytest.mark.parametrize("kind", [np.int32, np.uint16])
def test_dark_images_among_those_of_sixteen_bits_are_scaled_alike(kind, caplog):
    values = [200] * 70 + [257, 65535] + [255] * 70
    assert grays_of(gray_images(values, kind)) == [0] * 70 + [1, 255] + [0] * 70
    assert not caplog.records


def test_images_of_twelve_bits_are_told_to_be_nearly_black(caplog):
    assert grays_of(gray_images([100, 4095], np.uint16)) == [0, 15]
    message = (
        "2 images of the data set have 16 bits a pixel, but no gray value above 4095, so that they "
        "are nearly black after being scaled from 0..65535; scale their values to that range, or "
        "save them with 8 bits"
    )
    assert message in caplog.text


def test_a_processor_and_an_image_size_may_be_given():
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    assert encode_images(images([0, 255]), processor).inputs["pixel_values"].shape[2:] == (16, 16)
    split = encode_images(images([0, 255]), processor, image_size=12)
    assert split.inputs["pixel_values"].shape[2:] == (12, 12)
    assert split.batch([0, 1])["pixel_values"].unique().tolist() == [-1.0, 1.0]


def test_bytes_and_structs_are_images_too():
    expected = encode_images(images([7, 200]), TRANSFORM).fingerprint
    contents = [png(7), png(200)]
    for column in (contents, [{"bytes": content, "path": None} for content in contents]):
        dataset = Dataset.from_dict({"image": column, "label": ["dark", "light"]})
        split = encode_images(dataset, TRANSFORM)
        assert split.fingerprint == expected


def test_paths_are_images_too(tmp_path):
    (tmp_path / "a.png").write_bytes(png(7))
    dataset = Dataset.from_dict({"picture": [str(tmp_path / "a.png")], "kind": ["dark"]})
    split = encode_images(dataset, TRANSFORM, label_column="kind")
    assert split.inputs["pixel_values"].unique().tolist() == [7]


def test_the_classes_may_be_given_in_any_order():
    split = encode_images(images([0, 200]), TRANSFORM, label_names=("light", "dark"))
    assert (split.labels.tolist(), split.label_names) == ([1, 0], ("light", "dark"))


def test_selected_and_transformed_data_sets_are_read_as_they_are_stored():
    dataset = images([1, 2, 3]).with_transform(lambda batch: {"nothing": [0] * len(batch)})
    split = encode_images(dataset.select([2, 0], keep_in_memory=True), TRANSFORM)
    assert split.inputs["pixel_values"][:, 0, 0, 0].tolist() == [3, 1]


def test_a_bad_image_is_named():
    with pytest.raises(DataError, match=r"image 1 of the data set \(1\.png\) can't be read"):
        encode_images(images([1, 2, 3, 4], broken={3, 1}), TRANSFORM)


def test_bad_images_can_be_left_out_and_are_counted(caplog):
    dataset = images([1, 2, 203, 4], broken={1})
    split = encode_images(dataset, TRANSFORM, skip_bad_images=True)
    assert split.n_skipped == 1
    assert split.inputs["pixel_values"][:, 0, 0, 0].tolist() == [1, 203, 4]
    assert split.labels.tolist() == [0, 1, 0]
    assert "1 of the 4 images of the data set are left out; the first: image 1" in caplog.text


def test_when_no_image_is_left_it_is_an_error(caplog):
    with pytest.raises(DataError, match="no image of the data set can be read; the first: image 0"):
        encode_images(images([1], broken={0}), TRANSFORM, skip_bad_images=True)


def test_images_that_would_fill_the_memory_are_kept_in_a_file(monkeypatch, caplog):
    dataset = images([10, 200])
    expected = encode_images(dataset, TRANSFORM)
    monkeypatch.setattr("hf_biotune.search.encode.fits_memory", lambda n_bytes: False)
    split = encode_images(dataset, TRANSFORM)
    assert split.fingerprint == expected.fingerprint
    assert "more than half of the free memory, and are kept in a temporary file" in caplog.text


def test_bad_images_are_left_out_of_a_file_without_a_copy_of_it(monkeypatch):
    dataset = images([0, 50, 100, 150, 200], broken={0, 3})
    expected = encode_images(dataset, TRANSFORM, skip_bad_images=True)
    monkeypatch.setattr("hf_biotune.search.encode.fits_memory", lambda n_bytes: False)
    monkeypatch.setattr("hf_biotune.search.data.fits_memory", lambda n_bytes: False)
    monkeypatch.setattr("hf_biotune.search.encode._CHUNK", 2)
    split = encode_images(dataset, TRANSFORM, skip_bad_images=True)
    assert split.fingerprint == expected.fingerprint
    assert is_mapped(split.inputs["pixel_values"])
    assert split.inputs["pixel_values"][:, 0, 0, 0].tolist() == [50, 100, 200]
    both = split.joined(expected)
    assert is_mapped(both.inputs["pixel_values"])
    assert both.fingerprint == expected.joined(expected).fingerprint


def test_images_that_fit_nowhere_are_refused(monkeypatch):
    def full(shape, dtype):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hf_biotune.search.encode.fits_memory", lambda n_bytes: False)
    monkeypatch.setattr("hf_biotune.search.encode.mapped_tensor", full)
    with pytest.raises(DataError, match=r"has no room \(No space left on device\); use fewer"):
        encode_images(images([10, 200]), TRANSFORM)


def test_an_empty_data_set_is_refused():
    with pytest.raises(DataError, match="the data set has no sample; check the data set"):
        encode_images(images([]), TRANSFORM)


def test_splits_share_the_classes_of_train():
    text = Value("string")
    splits = DatasetDict(
        train=images([0, 1, 2], label_feature=text, labels=["b", "c", "a"]),
        validation=images([0, 1, 2], label_feature=text, labels=["a", "b", "c"]),
        test=images([0], label_feature=text, labels=["c"]),
    )
    encoded = encode_splits(splits, TRANSFORM, name="letters")
    assert encoded.name == "letters"
    assert encoded.label_names == ("a", "b", "c")
    assert encoded.train.labels.tolist() == [1, 2, 0]
    assert encoded.test.labels.tolist() == [2]
    assert (
        encode_splits(
            DatasetDict(train=splits["train"], validation=splits["validation"]), TRANSFORM, name="x"
        ).test
        is None
    )


def test_an_error_says_which_split_it_is_about():
    good, bad = images([0, 200]), images([0, 200], broken={1})
    with pytest.raises(DataError, match=r"image 1 of validation \(1\.png\) can't be read"):
        encode_splits(DatasetDict(train=good, validation=bad), TRANSFORM, name="x")
    other = images([0, 1], label_feature=Value("string"), labels=["dark", "gray"])
    with pytest.raises(
        DataError, match="row 1 of validation has the label 'gray', which the train"
    ):
        encode_splits(DatasetDict(train=good, validation=other), TRANSFORM, name="x")


def test_an_error_about_labels_says_which_split_it_is_about():
    good, unlabelled = images([0, 200]), images([0, 200], labels=[0, -1])
    with pytest.raises(DataError, match="row 1 of validation has no label: column 'label' is -1"):
        encode_splits(DatasetDict(train=good, validation=unlabelled), TRANSFORM, name="x")
    other = good.rename_column("label", "kind").cast_column("kind", Value("int64"))
    with pytest.raises(DataError, match="validation: no label column found; the columns are: im"):
        encode_splits(DatasetDict(train=good, validation=other), TRANSFORM, name="x")
    with pytest.raises(DataError, match="train: no label column found"):
        encode_splits(DatasetDict(train=other, validation=good), TRANSFORM, name="x")


def test_test_images_without_labels_are_left_out(caplog):
    good, test = images([0, 200]), images([0, 200], labels=[-1, -1])
    splits = DatasetDict(train=good, validation=good, test=test)
    assert encode_splits(splits, TRANSFORM, name="x").test is None
    assert "the split test is not used: column 'label' holds no label" in caplog.text


def test_a_missing_validation_part_is_told_before_anything_is_decoded():
    with pytest.raises(DataError, match=r"got train; validation is missing. load_dataset_splits"):
        encode_splits(DatasetDict(train=images([0, 1])), TRANSFORM, name="few")
