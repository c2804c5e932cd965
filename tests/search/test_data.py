"""`EncodedSplit` and `DataSplits`."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments, default_data_collator

from hf_biotune.exceptions import DataError
from hf_biotune.search.data import EncodedSplit
from hf_biotune.search.data_splits import DataSplits

MEAN, STD = (0.5, 0.4, 0.3), (0.1, 0.2, 0.3)


def pixels(n: int = 6) -> torch.Tensor:
    return torch.arange(n * 3 * 4 * 5).reshape(n, 3, 4, 5).to(torch.uint8)


def image_split(n: int = 6, **changes) -> EncodedSplit:
    arguments = {
        "inputs": {"pixel_values": pixels(n)},
        "labels": torch.arange(n) % 2,
        "label_names": ("cat", "dog"),
        "mean": MEAN,
        "std": STD,
    }
    return EncodedSplit(**{**arguments, **changes})


def text_split() -> EncodedSplit:
    ids = torch.arange(12).reshape(4, 3)
    return EncodedSplit(
        {"input_ids": ids, "attention_mask": ids > 3}, torch.tensor([0, 1, 2, 0]), ("a", "b", "c")
    )


def normalised(values: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    return (values / 255 - mean) / std


def test_batch_is_scaled_then_normalised_per_channel():
    batch = image_split().batch(torch.tensor([4, 1]))
    assert list(batch) == ["pixel_values", "labels"]
    torch.testing.assert_close(batch["pixel_values"], normalised(pixels()[[4, 1]]))
    assert batch["labels"].tolist() == [0, 1]


def test_batch_does_not_change_the_stored_pixels():
    split = image_split()
    split.batch([0, 1])["pixel_values"].zero_()
    assert torch.equal(split.inputs["pixel_values"], pixels())


def test_batch_is_made_on_the_device_asked_for():
    batch = image_split().batch([0, 1], device="meta")
    assert {values.device.type for values in batch.values()} == {"meta"}
    assert batch["pixel_values"].dtype == torch.float32


def test_without_mean_and_std_inputs_are_used_as_they_are():
    batch = image_split(mean=None, std=None).batch([2])
    assert torch.equal(batch["pixel_values"], pixels()[[2]])


def test_float_pixels_are_not_normalised_again():
    split = image_split(inputs={"pixel_values": pixels().float()})
    assert torch.equal(split.batch([2])["pixel_values"], pixels()[[2]].float())


@pytest.mark.parametrize("indices", [[3, 0], np.array([3, 0]), torch.tensor([3, 0])])
def test_indices_may_be_a_list_an_array_or_a_tensor(indices):
    assert text_split().batch(indices)["input_ids"].tolist() == [[9, 10, 11], [0, 1, 2]]


def test_an_item_is_a_row_of_the_batch():
    split = image_split()
    item = split[3]
    assert item["labels"].shape == ()
    assert torch.equal(item["pixel_values"], split.batch([3])["pixel_values"][0])


def test_iteration_ends_after_the_last_sample():
    assert [int(item["labels"]) for item in text_split()] == [0, 1, 2, 0]


def test_data_loader_with_the_default_collator_gives_the_same_batches():
    split = image_split()
    loader = DataLoader(split, batch_size=4, collate_fn=default_data_collator)
    batches = list(loader)
    assert [len(batch["labels"]) for batch in batches] == [4, 2]
    expected = split.batch([4, 5])
    assert torch.equal(batches[1]["pixel_values"], expected["pixel_values"])
    assert torch.equal(batches[1]["labels"], expected["labels"])


class LinearClassifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(3 * 4 * 5, 2)

    def forward(self, pixel_values, labels):
        logits = self.linear(pixel_values.flatten(1))
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def test_the_stock_trainer_takes_a_split(tmp_path):
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        # It needs a GPU, and warns where there is none.
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        LinearClassifier(),
        arguments,
        data_collator=default_data_collator,
        train_dataset=image_split(),
        eval_dataset=image_split(),
    )
    assert trainer.train().global_step == 2
    assert trainer.evaluate()["eval_loss"] > 0


def test_subset_keeps_order_names_and_normalisation():
    subset = image_split(n_skipped=2).subset(np.array([5, 0]))
    assert torch.equal(subset.inputs["pixel_values"], pixels()[[5, 0]])
    assert (subset.labels.tolist(), subset.label_names) == ([1, 0], ("cat", "dog"))
    assert (subset.mean, subset.std, subset.n_skipped) == (MEAN, STD, 0)


def test_a_view_gives_the_batches_of_a_subset_without_a_copy():
    split = image_split()
    view, subset = split.view(np.array([5, 0, 3])), split.subset([5, 0, 3])
    positions = torch.tensor([2, 0])
    for name, values in view.batch(positions).items():
        assert torch.equal(values, subset.batch(positions)[name])
    assert torch.equal(view.labels, subset.labels)
    assert len(view) == 3
    assert view.split is split


def test_a_view_is_of_everything_unless_told_otherwise():
    assert image_split().view().rows.tolist() == list(range(6))


def test_a_view_of_nothing_is_refused():
    with pytest.raises(DataError, match="a view needs at least one sample"):
        image_split().view([])


def test_class_counts_include_classes_without_samples():
    split = EncodedSplit({"x": torch.zeros(3)}, torch.tensor([2, 0, 2]), ("a", "b", "c"))
    assert (split.n_classes, split.class_counts) == (3, (1, 0, 2))


def test_the_fingerprint_is_the_same_in_every_process_and_version():
    split = EncodedSplit({"x": torch.arange(3)}, torch.tensor([0, 1, 0]), ("a", "b"))
    assert split.fingerprint == "2a902d30dcd57a1a"


def test_the_fingerprint_names_the_content():
    split = image_split()
    changed = pixels()
    changed[5, 2, 3, 4] += 1
    others = [
        image_split(inputs={"pixel_values": changed}),
        image_split(inputs={"pixel_values": pixels().reshape(6, 3, 5, 4)}),
        image_split(inputs={"pixel_values": pixels().float()}),
        image_split(labels=torch.tensor([1, 1, 0, 1, 0, 1])),
        image_split(label_names=("cat", "wolf")),
        image_split(std=(0.1, 0.2, 0.4)),
        split.subset([1, 0, 2, 3, 4, 5]),
    ]
    assert image_split().fingerprint == split.fingerprint
    assert len({split.fingerprint, *(other.fingerprint for other in others)}) == 8


def test_bfloat16_and_boolean_inputs_have_a_fingerprint():
    one, two = (
        EncodedSplit(
            {"x": torch.full((2, 2), value, dtype=torch.bfloat16)}, torch.tensor([0, 0]), ("a",)
        )
        for value in (1.0, 2.0)
    )
    assert one.fingerprint != two.fingerprint
    assert len(text_split().fingerprint) == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": {}}, "a split needs at least one sample, got none; check the data set"),
        (
            {"inputs": {"pixel_values": pixels(0)}, "labels": torch.tensor([], dtype=torch.int64)},
            "a split needs at least one sample",
        ),
        (
            {"labels": torch.tensor([0, 1])},
            "every sample needs one label, got 6 pixel_values and 2 labels",
        ),
        (
            {"labels": torch.tensor([0, 1, 2, 0, 1, 2])},
            r"labels must be in 0\.\.1 for the 2 classes cat, dog, got 2",
        ),
        ({"labels": torch.tensor([0, 1, -1, 0, 1, 1])}, "got -1"),
        ({"std": None}, "mean and std belong together, got mean .* and std None; give both"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(DataError, match=message):
        image_split(**changes)


def test_splits_know_their_classes_and_content():
    splits = DataSplits(image_split(), image_split(4), None, "pets")
    assert splits.label_names == ("cat", "dog")
    assert splits.fingerprint == DataSplits(image_split(), image_split(4), None, "x").fingerprint
    assert splits.fingerprint != DataSplits(image_split(4), image_split(), None, "x").fingerprint


def test_a_class_without_training_or_validation_samples_is_refused():
    cats = image_split(labels=torch.zeros(6, dtype=torch.int64))
    with pytest.raises(DataError, match="class 'dog' has no sample in train; add some, or remove"):
        DataSplits(cats, image_split(), None, "pets")
    with pytest.raises(DataError, match="class 'dog' has no sample in validation"):
        DataSplits(image_split(), cats, None, "pets")
    assert DataSplits(image_split(), image_split(), cats, "pets").test is cats


def test_splits_with_other_classes_are_refused():
    wolves = image_split(label_names=("cat", "wolf"))
    with pytest.raises(
        DataError, match="test must have the classes of train, cat, dog, got cat, w"
    ):
        DataSplits(image_split(), image_split(), wolves, "pets")


def test_two_splits_can_be_joined():
    both = image_split(2, n_skipped=1).joined(image_split(3, n_skipped=2))
    assert torch.equal(both.inputs["pixel_values"], torch.cat([pixels(2), pixels(3)]))
    assert both.labels.tolist() == [0, 1, 0, 1, 0]
    assert (both.n_skipped, both.mean, both.label_names) == (3, MEAN, ("cat", "dog"))


@pytest.mark.parametrize(
    "other", [text_split(), image_split(mean=STD), image_split(label_names=("a", "b"))]
)
def test_splits_of_two_kinds_are_not_joined(other):
    with pytest.raises(DataError, match="must be of one kind to be joined"):
        image_split().joined(other)
