"""Which columns hold images and labels, and what the labels mean."""

import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from hf_biotune.exceptions import DataError
from hf_biotune.search.columns import (
    Columns,
    class_names,
    encode_labels,
    find_columns,
    label_names_of,
)

TYPES = {
    "image": Image(),
    "text": Value("string"),
    "number": Value("int64"),
    "bytes": Value("binary"),
    "classes": ClassLabel(names=["a", "b"]),
    "struct": {"bytes": Value("binary"), "path": Value("string")},
}


def table(**types: str) -> Dataset:
    features = Features({name: TYPES[kind] for name, kind in types.items()})
    return Dataset.from_dict({name: [] for name in types}, features=features)


def labels(values, feature=None) -> Dataset:
    features = Features({"label": feature}) if feature else None
    return Dataset.from_dict({"label": values}, features=features)


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ({"image": "image", "label": "classes"}, Columns("image", "label")),
        ({"x": "image", "file": "text", "y": "classes"}, Columns("x", "y")),
        ({"img": "image", "labels": "number", "kind": "classes"}, Columns("img", "labels")),
        ({"file_name": "text", "target": "text"}, Columns("file_name", "target")),
        ({"image": "bytes", "class": "number"}, Columns("image", "class")),
        ({"image": "struct", "class": "number"}, Columns("image", "class")),
        ({"image": "number", "path": "text", "label": "text"}, Columns("path", "label")),
    ],
)
def test_columns_are_found_by_type_and_name(types, expected):
    assert find_columns(table(**types)) == expected


def test_columns_that_are_named_are_taken():
    dataset = table(left="image", right="image", fine="classes", coarse="classes")
    assert find_columns(dataset, "right", "coarse") == Columns("right", "coarse")


@pytest.mark.parametrize(
    ("types", "named", "message"),
    [
        (
            {"left": "image", "right": "image", "label": "classes"},
            {},
            r"several columns could be the image column: left, right; name the right one with "
            r"image_column=\.\.\. \(--image-column\)",
        ),
        (
            {"id": "number", "label": "classes"},
            {},
            r"no image column found; the columns are: id, label; name the right one with image_col",
        ),
        (
            {"image": "image", "fine": "classes", "coarse": "classes"},
            {},
            r"several columns could be the label column: fine, coarse; .*\(--label-column\)",
        ),
        ({"image": "image", "y": "number"}, {}, "no label column found; the columns are: image, y"),
        (
            {"image": "image", "label": "number"},
            {"image_column": "foto"},
            "no column is named 'foto'; the columns are: image, label",
        ),
        (
            {"image": "image", "label": "number"},
            {"image_column": "label"},
            "column 'label' can't hold images: it is .*int64.*; give another one as image_column",
        ),
    ],
)
def test_missing_and_ambiguous_columns_are_explained(types, named, message):
    with pytest.raises(DataError, match=message):
        find_columns(table(**types), **named)


@pytest.mark.parametrize(
    ("dataset", "names", "numbers"),
    [
        (labels([1, 0, 1], ClassLabel(names=["z", "a"])), ("z", "a"), [1, 0, 1]),
        (labels([10, 2, 10]), ("2", "10"), [1, 0, 1]),
        (labels([10, 2], Value("uint8")), ("2", "10"), [1, 0]),
        (labels(["dog", "cat", "dog"]), ("cat", "dog"), [1, 0, 1]),
        (labels(["10", "2"]), ("10", "2"), [0, 1]),
        (labels([True, False]), ("False", "True"), [1, 0]),
    ],
)
def test_labels_of_every_kind_become_numbers_from_zero(dataset, names, numbers):
    assert label_names_of(dataset, "label") == names
    assert encode_labels(dataset, "label", names).tolist() == numbers


def test_classes_of_another_order_are_matched_by_name():
    dataset = labels([0, 1], ClassLabel(names=["b", "a"]))
    assert encode_labels(dataset, "label", ("a", "b")).tolist() == [1, 0]


def test_a_label_that_training_lacks_is_named():
    message = (
        "row 1 of validation has the label 'fox', which the training data lacks; its classes are: "
        "cat, dog; correct or remove the row"
    )
    with pytest.raises(DataError, match=message):
        encode_labels(labels(["cat", "fox"]), "label", ("cat", "dog"), "validation")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            labels(["a", None]),
            "row 1 of the data set has no label: column 'label' is None; label or remove",
        ),
        (
            labels([0, -1], ClassLabel(names=["a"])),
            "row 1 of the data set has no label: column 'label' is -1",
        ),
        (
            labels([0.5]),
            "labels must be integers, strings or booleans, but row 0 of .* has 0.5 in column 'la",
        ),
        (labels([[1, 2]]), r"but row 0 of .* has \[1, 2\] in column 'label'"),
    ],
)
def test_missing_and_impossible_labels_are_explained(dataset, message):
    with pytest.raises(DataError, match=message):
        class_names(dataset, "label")
