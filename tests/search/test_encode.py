"""Data sets of every kind become `EncodedSplit`s."""

import io

import numpy as np
import pytest
import torch
import transformers
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from torch.utils.data import IterableDataset

from hf_biotune.exceptions import DataError
from hf_biotune.search import EncodedSplit
from hf_biotune.search.encode import encode_dataset, encode_for, encode_images, encode_splits
from hf_biotune.search.mapped import is_mapped
from hf_biotune.search.transforms import ImageTransform

TRANSFORM = ImageTransform.from_values(8, (0.5,) * 3, (0.25,) * 3)
LABELS = ClassLabel(names=["dark", "light"])


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (12, 10), value).save(buffer, "PNG")
    return buffer.getvalue()


def images(values, broken=(), label_feature=LABELS, labels=None) -> Dataset:
    contents = [b"broken" if i in broken else png(v) for i, v in enumerate(values)]
    columns = {
        "image": [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)],
        "label": [int(v > 100) for v in values] if labels is None else labels,
    }
    return Dataset.from_dict(
        columns, features=Features({"image": ImageFeature(), "label": label_feature})
    )


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


class Items(torch.utils.data.Dataset):
    """A torch data set of given items."""

    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_a_torch_data_set_is_read_once_in_order():
    items = [{"pixel_values": torch.full((3, 2, 2), float(i)), "labels": i % 3} for i in range(130)]
    split = encode_dataset(Items(items))
    assert split.inputs["pixel_values"][:, 0, 0, 0].tolist() == list(map(float, range(130)))
    assert split.labels.tolist() == [i % 3 for i in range(130)]
    assert (split.label_names, split.mean) == (("0", "1", "2"), None)
    assert torch.equal(split[5]["pixel_values"], items[5]["pixel_values"])


def test_augmentation_that_would_be_frozen_in_is_told(caplog):
    class Jittered(Items):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            return {**item, "pixel_values": item["pixel_values"] + torch.rand(1)}

    items = [{"pixel_values": torch.zeros(3, 2, 2), "labels": i % 2} for i in range(4)]
    encode_dataset(Items(items))
    assert not caplog.records
    encode_dataset(Jittered(items))
    assert "'pixel_values' of item 0 changes each time that it is read" in caplog.text


@pytest.mark.parametrize("key", ["labels", "label", "label_ids"])
@pytest.mark.parametrize(
    "kind", [int, bool, np.int64, np.bool_, np.array, torch.tensor, lambda n: torch.tensor(n > 0)]
)
def test_labels_may_have_any_of_three_names_and_be_of_any_integer_type(key, kind):
    items = [{"x": np.arange(3), key: kind(1)}, {"x": np.arange(3), key: kind(0)}]
    split = encode_dataset(Items(items), label_names=("no", "yes"))
    assert (list(split.inputs), split.labels.tolist()) == (["x"], [1, 0])
    assert split.label_names == ("no", "yes")


def test_tokenised_text_keeps_its_class_names_and_drops_strings():
    features = Features(
        {
            "text": Value("string"),
            "input_ids": [Value("int64")],
            "attention_mask": [Value("int64")],
            "id": Value("int64"),
            "label": LABELS,
        }
    )
    columns = {
        "text": ["a", "b"],
        "input_ids": [[1, 2], [3, 4]],
        "attention_mask": [[1, 1], [1, 0]],
        "id": [7, 8],
        "label": [1, 0],
    }
    dataset = Dataset.from_dict(columns, features=features)
    split = encode_dataset(dataset, columns=("input_ids", "attention_mask"))
    assert {name: values.tolist() for name, values in split.inputs.items()} == {
        "input_ids": [[1, 2], [3, 4]],
        "attention_mask": [[1, 1], [1, 0]],
    }
    assert (split.label_names, split.labels.tolist()) == (("dark", "light"), [1, 0])
    assert "id" in encode_dataset(dataset).inputs
    numbers = dataset.cast_column("label", Value("int64"))
    assert encode_dataset(numbers).label_names == ("0", "1")


def classes(names, labels):
    features = Features({"x": [Value("float32")], "label": ClassLabel(names=names)})
    columns = {"x": [[float(number)] for number in labels], "label": labels}
    return Dataset.from_dict(columns, features=features)


class Takes(torch.nn.Module):
    def forward(self, x):
        return x


@pytest.mark.parametrize("is_encoded", [False, True])
def test_validation_samples_keep_their_classes_however_these_are_numbered(is_encoded):
    train = classes(["cat", "dog", "fox"], [0, 1, 2])
    given = encode_dataset(train) if is_encoded else train
    _, validation = encode_for(Takes, given, classes(["dog", "fox"], [0, 1, 1, 0]))
    assert [validation.label_names[n] for n in validation.labels] == ["dog", "fox", "fox", "dog"]
    assert validation.label_names == ("cat", "dog", "fox")
    with pytest.raises(DataError, match=r"must number their classes alike, got .*wolf"):
        encode_for(Takes, given, classes(["cat", "wolf"], [0, 1]))
    # A class that nothing belongs to is none.
    more = encode_for(Takes, given, classes(["wolf", "fox", "cat"], [1, 2]))[1]
    assert more.labels.tolist() == [2, 0]
    # Numbers without names mean what they mean in training.
    numbers = train.cast_column("label", Value("int64"))
    assert encode_for(Takes, given, numbers)[1].labels.tolist() == [0, 1, 2]


class TakesTwo(torch.nn.Module):
    def forward(self, image, mask, scale=None):
        return image


class TakesNamed(torch.nn.Module):
    def forward(self, x, mask=None):
        return x


@pytest.mark.parametrize(
    ("model", "names", "kept"),
    [
        (torch.nn.Sequential, ["idx", "pixel_values"], ["pixel_values"]),
        (torch.nn.Sequential, ["input_ids", "idx"], ["input_ids"]),
        (torch.nn.Sequential, ["x", "idx"], ["x"]),
        (TakesTwo, ["first", "second", "idx"], ["first", "second"]),
        (TakesNamed, ["idx", "x", "mask"], ["x", "mask"]),
    ],
)
def test_a_model_that_knows_no_names_gets_as_many_inputs_as_it_needs(model, names, kept):
    items = Items([{**dict.fromkeys(names, number), "labels": number} for number in range(2)])
    for split in encode_for(model, items, items):
        assert list(split.inputs) == kept
    train = encode_dataset(items, columns=kept)
    assert list(encode_for(model, train, items)[1].inputs) == kept


@pytest.mark.parametrize("is_encoded", [False, True])
def test_classes_that_are_numbers_in_training_have_the_names_that_validation_gives(is_encoded):
    train = Items([{"x": torch.zeros(1), "labels": 0}, {"x": torch.ones(1), "labels": 1}])
    given = encode_dataset(train) if is_encoded else train
    assert encode_for(Takes, given, classes(["cat", "dog"], [1, 0]))[1].labels.tolist() == [1, 0]


def test_the_transform_of_a_data_set_is_applied():
    dataset = images([0, 255]).with_transform(
        lambda batch: {
            "pixel_values": [
                torch.full((3, 2, 2), float(i.getpixel((0, 0)))) for i in batch["image"]
            ],
            "labels": batch["label"],
        }
    )
    assert encode_dataset(dataset).inputs["pixel_values"][:, 0, 0, 0].tolist() == [0.0, 255.0]


def item(length: int, label=0):
    return {"input_ids": list(range(length)), "labels": label}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [item(3), item(4)],
            r"items must have equal shapes, but 'input_ids' of item 1 has shape \(4,\) and that of "
            r"item 0 has \(3,\); pad texts to one length, or resize images to one size",
        ),
        ([item(3)] * 64 + [item(4)] * 3, r"'input_ids' of item 64 has shape \(4,\) and that of it"),
        ([item(3), {"labels": 0}], r"'input_ids' of item 1 has shape None"),
        (
            [(torch.zeros(3), 1)],
            "items must be dicts of inputs and 'labels', but item 0 is tuple; wrap the data set so",
        ),
        ([{"x": 1.0}], r"but item 0 is the keys \['x'\]; wrap"),
        (
            [item(3, label=0.5)],
            "each item needs one integer label, but 'labels' of item 0 is 0.5; only",
        ),
        ([item(3, label=[0, 1])], r"but 'labels' of item 0 is \[0, 1\]; only classification"),
        ([item(3, label="cat")], "each item needs one integer label, but .* is 'cat'"),
        ([item(3), item(3, label=None)], "item 1 has no label: 'labels' is None; label or remove"),
        ([], "a data set with a length of at least 1 is needed, got Items of length 0"),
    ],
)
def test_items_that_do_not_fit_are_explained(items, message):
    with pytest.raises(DataError, match=message):
        encode_dataset(Items(items))


def test_a_stream_is_refused():
    class Stream(IterableDataset):
        def __iter__(self):
            yield item(3)

    with pytest.raises(DataError, match="is needed, got Stream, which has no length"):
        encode_dataset(Stream())


def test_a_missing_validation_part_is_told_before_anything_is_decoded():
    with pytest.raises(DataError, match=r"got train; validation is missing. load_dataset_splits"):
        encode_splits(DatasetDict(train=images([0, 1])), TRANSFORM, name="few")


def test_raw_images_are_not_taken_for_inputs():
    with pytest.raises(DataError, match="images and texts are encoded by encode_splits"):
        encode_dataset(images([0, 1]))


@pytest.mark.parametrize("labels", [[0, 1], torch.tensor([0.0, 1.0]), torch.tensor([[0], [1]])])
def test_labels_that_are_no_numbers_of_classes_are_refused(labels):
    with pytest.raises(DataError, match="labels must be"):
        EncodedSplit({"x": torch.zeros(2, 3)}, labels, ("no", "yes"))
