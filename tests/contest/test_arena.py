from __future__ import annotations

import shutil

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from texts import text_splits
from transformers import AutoTokenizer

from hf_biotune.contest.arena import Arena, LoadedArena, redraw
from hf_biotune.exceptions import ConfigError, DataError


def dataset_of(rows):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
    return Dataset.from_dict(columns, features=features)


def numbered(n_a, n_b, prefix):
    return dataset_of(
        [(f"{prefix}a{i}", 0) for i in range(n_a)] + [(f"{prefix}b{i}", 1) for i in range(n_b)]
    )


def texts_of(splits):
    return {name: set(split["text"]) for name, split in splits.items()}


SHIPPED = DatasetDict(
    {"train": numbered(4, 2, "t"), "validation": numbered(3, 2, "v"), "test": numbered(6, 5, "x")}
)


def test_split_0_is_as_shipped_and_others_keep_the_classes_of_each_part():
    assert redraw(SHIPPED, 0) is SHIPPED
    drawn = redraw(SHIPPED, 1)
    for name, (n_a, n_b) in {"train": (4, 2), "validation": (3, 2), "test": (6, 5)}.items():
        assert drawn[name]["label"].count(0) == n_a
        assert drawn[name]["label"].count(1) == n_b
    assert set.union(*texts_of(drawn).values()) == set.union(*texts_of(SHIPPED).values())
    assert sum(map(len, texts_of(drawn).values())) == 22


def test_the_number_of_a_split_is_its_seed():
    assert texts_of(redraw(SHIPPED, 3)) == texts_of(redraw(SHIPPED, 3))
    assert texts_of(redraw(SHIPPED, 3)) != texts_of(redraw(SHIPPED, 4))


def test_without_a_test_part_a_fifth_of_each_class_becomes_one():
    shipped = DatasetDict({"train": numbered(8, 8, "t"), "validation": numbered(2, 2, "v")})
    for number in (0, 1):
        drawn = redraw(shipped, number)
        assert drawn["test"]["label"].count(0) == drawn["test"]["label"].count(1) == 2
        assert sum(map(len, texts_of(drawn).values())) == 20


@pytest.mark.parametrize(("n_train", "n_validation"), [(4, 1), (2, 1), (6, 1), (1, 2), (5, 3)])
def test_no_class_loses_its_last_sample_to_the_test_part(n_train, n_validation):
    shipped = DatasetDict(
        {"train": numbered(9, n_train, "t"), "validation": numbered(3, n_validation, "v")}
    )
    for number in range(5):
        drawn = redraw(shipped, number)
        counts = {name: split["label"].count(1) for name, split in drawn.items()}
        assert min(counts.values()) >= 1
        assert sum(counts.values()) == n_train + n_validation
        assert counts["test"] == max(1, round((n_train + n_validation) / 5))


def test_a_class_that_is_too_small_is_named():
    shipped = DatasetDict({"train": numbered(8, 1, "t"), "validation": numbered(2, 1, "v")})
    with pytest.raises(DataError, match=r"class 'b' has no sample left for .* 2 in all"):
        redraw(shipped, 0)


def with_labels(dataset, names, feature):
    """The same samples, whose classes are called and numbered in another way."""
    labels = [names[number] for number in dataset["label"]]
    return dataset.remove_columns("label").add_column("label", labels, feature=feature)


@pytest.mark.parametrize(
    ("names", "feature"),
    [
        ([1, 0], ClassLabel(names=["b", "a"])),
        (["a", "b"], Value("string")),
        ([0, 1], ClassLabel(names=["a", "b"])),
    ],
)
def test_parts_that_number_their_classes_otherwise_are_pooled_by_name(names, feature):
    test = with_labels(SHIPPED["test"], names, feature).add_column("id", list(range(11)))
    for label in ("label", "target"):
        renamed = test if label == "label" else test.rename_column("label", label)
        drawn = redraw(DatasetDict({**SHIPPED, "test": renamed}), 1)
        assert texts_of(drawn) == texts_of(redraw(SHIPPED, 1))
        for split in drawn.values():
            assert split.features == SHIPPED["train"].features
            assert all("ab"[row["label"]] == row["text"][1] for row in split)


def test_a_class_that_training_lacks_is_named():
    test = with_labels(SHIPPED["test"], ["a", "c"], Value("string"))
    with pytest.raises(DataError, match="row 6 of test has the label 'c', which the training"):
        redraw(DatasetDict({**SHIPPED, "test": test}), 1)


def test_only_the_inputs_that_are_asked_for_are_kept_and_must_be_alike():
    more = DatasetDict(
        {name: split.add_column("id", ["x"] * len(split)) for name, split in SHIPPED.items()}
    )
    assert redraw(more, 1, input_column="text")["test"].column_names == ["text", "label"]
    assert redraw(more, 1)["test"].column_names == ["text", "id", "label"]
    long = more["test"].cast_column("text", Value("large_string"))
    drawn = redraw(DatasetDict({**more, "test": long}), 1, input_column="text")
    assert texts_of(drawn) == texts_of(redraw(SHIPPED, 1))
    other = more["test"].rename_column("text", "body")
    with pytest.raises(DataError, match="test can't be mixed with train, since its inputs differ"):
        redraw(DatasetDict({**more, "test": other}), 1, input_column="text")


def test_negative_splits_are_refused():
    with pytest.raises(ConfigError, match="at least 0, got -1"):
        redraw(SHIPPED, -1)


def test_texts_of_every_split_are_encoded_to_one_width(text_model, scipy_texts):
    arena = Arena(str(text_model), str(scipy_texts), max_length=16, epochs=1)
    loaded = LoadedArena(arena)
    assert loaded.task == "text-classification"
    for number in (0, 1):
        data = loaded.split(number)
        assert len(data.train) == len(data.test) == 12
        assert data.train.inputs["input_ids"].shape == (12, 16)
    assert loaded.split(1).train.fingerprint != loaded.split(0).train.fingerprint
    assert loaded.model_init(data)().num_labels == 3


def test_a_text_longer_than_the_model_takes_is_refused(text_model, scipy_texts, tmp_path):
    shutil.copytree(text_model, tmp_path, dirs_exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(text_model, model_max_length=None)
    tokenizer.save_pretrained(tmp_path)
    loaded = LoadedArena(Arena(str(tmp_path), str(scipy_texts), max_length=65))
    with pytest.raises(ConfigError, match=r"max_length must be in \[8, 64\]"):
        loaded.split(0)


def test_options_of_the_other_task_are_refused(text_model, scipy_texts):
    arena = Arena(str(text_model), str(scipy_texts), image_size=32)
    with pytest.raises(ConfigError, match=r"image_size has no meaning .* text classification"):
        LoadedArena(arena)


def test_epochs_must_be_positive():
    with pytest.raises(ConfigError, match="epochs must be an integer of at least 1, got 0"):
        Arena("model", "data", epochs=0)


def test_the_parts_of_a_text_set_are_pooled():
    drawn = redraw(text_splits(), 5)
    assert {name: len(split) for name, split in drawn.items()} == {
        "train": 12,
        "validation": 12,
        "test": 12,
    }
