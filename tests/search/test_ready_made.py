"""Items that a model takes become `EncodedSplit`s."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from png_images import LABELS, images
from torch.utils.data import IterableDataset

from hf_biotune.exceptions import DataError
from hf_biotune.search import EncodedSplit
from hf_biotune.search.ready_made import encode_dataset, encode_for


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


def test_raw_images_are_not_taken_for_inputs():
    with pytest.raises(DataError, match="images and texts are encoded by encode_splits"):
        encode_dataset(images([0, 1]))


@pytest.mark.parametrize("labels", [[0, 1], torch.tensor([0.0, 1.0]), torch.tensor([[0], [1]])])
def test_labels_that_are_no_numbers_of_classes_are_refused(labels):
    with pytest.raises(DataError, match="labels must be"):
        EncodedSplit({"x": torch.zeros(2, 3)}, labels, ("no", "yes"))
