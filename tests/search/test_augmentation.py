"""Random augmentation of training images."""

from dataclasses import replace

import pytest
import torch
from small import small_resnet
from transformers import Trainer, default_data_collator, set_seed

from hf_biotune import BioTuneConfig, biotune_trainer_kwargs, get_biotune_model
from hf_biotune.exceptions import DataError
from hf_biotune.search import (
    Augmentation,
    EncodedSplit,
    FitnessEvaluator,
    StoppingRule,
    default_training_arguments,
    fitness,
)
from hf_biotune.search.metrics import METRICS
from hf_biotune.search.weights import BaseModelPool

EVERYTHING = Augmentation(horizontal_flip=0.5, shift=0.25, color_jitter=0.4)


def image(edge: int = 8) -> torch.Tensor:
    """Every row and column differs."""
    gray = torch.arange(edge * edge).reshape(1, 1, edge, edge).to(torch.uint8)
    return gray.expand(1, 3, -1, -1).contiguous()


def draws(flip=0.9, down=0.5, right=0.5, brightness=0.5, contrast=0.5, saturation=0.5):
    """By default: no flip, no shift, no change of colour."""
    return torch.tensor([[flip, down, right, brightness, contrast, saturation]])


def augmented(split: EncodedSplit, augmentation: Augmentation = EVERYTHING) -> EncodedSplit:
    return replace(split, augmentation=augmentation)


def test_in_the_middle_of_every_range_an_image_stays_as_it_is():
    assert torch.equal(EVERYTHING.apply(image(), draws()), image())


def test_a_flip_mirrors_left_and_right():
    assert torch.equal(EVERYTHING.apply(image(), draws(flip=0.1)), image().flip(-1))


def test_a_shift_moves_the_image_and_repeats_its_border():
    moved = EVERYTHING.apply(image(), draws(down=0.0, right=0.999))[0, 0]
    # A quarter of 8 pixels: up by 2, and right by 2.
    assert torch.equal(moved[:6, 2:], image()[0, 0, 2:, :6])
    assert torch.equal(moved[6], moved[5])
    assert torch.equal(moved[:, 0], moved[:, 2])


def test_brightness_scales_the_pixels():
    bright = Augmentation(0, 0, color_jitter=0.5).apply(image(), draws(brightness=1.0))
    assert torch.equal(bright, (image() * 1.5).round().to(torch.uint8))


def test_no_contrast_is_a_gray_plane_and_no_saturation_a_gray_image():
    pixels = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    full = Augmentation(0, 0, color_jitter=1.0)
    plane = full.apply(pixels, draws(contrast=0.0))
    gray = full.apply(pixels, draws(saturation=0.0))
    assert plane.unique().numel() == 1
    assert torch.equal(gray[:, 0], gray[:, 1])
    assert gray.unique().numel() > 20


def test_each_sample_of_a_batch_has_its_own_draw():
    pixels = image().expand(64, -1, -1, -1)
    results = EVERYTHING.apply(pixels, Augmentation.draw(64, seed=0, epoch=0))
    assert len({result.numpy().tobytes() for result in results}) > 60
    flips = Augmentation(0.5, 0).apply(pixels, Augmentation.draw(64, seed=0, epoch=0))
    assert 20 < sum(torch.equal(flip, image()[0].flip(-1)) for flip in flips) < 44


def test_a_sample_is_the_same_in_every_batch_of_an_epoch_and_another_in_the_next(digits_train):
    split = augmented(digits_train)
    epoch = split.at_epoch(seed=3, epoch=1)
    together = epoch.batch([7, 2, 30])["pixel_values"]
    assert torch.equal(together[1], epoch.batch([2])["pixel_values"][0])
    assert torch.equal(together, split.at_epoch(3, 1).batch([7, 2, 30])["pixel_values"])
    for seed, number in ((3, 2), (4, 1)):
        other = split.at_epoch(seed, number).batch([7, 2, 30])["pixel_values"]
        assert not torch.equal(together, other)


def test_the_samples_of_a_part_keep_the_draws_of_the_epoch(digits_train):
    epoch = augmented(digits_train).at_epoch(0, 0)
    part = epoch.subset([5, 9])
    assert torch.equal(part.batch([1])["pixel_values"], epoch.batch([9])["pixel_values"])


def test_a_fold_sees_the_images_of_the_whole(digits_train):
    split = augmented(digits_train)
    fold = split.view([5, 9]).at_epoch(0, 0)
    whole = split.at_epoch(0, 0)
    assert torch.equal(
        fold.batch(torch.tensor([1]))["pixel_values"], whole.batch([9])["pixel_values"]
    )


def test_outside_of_an_epoch_images_are_not_augmented(digits_train):
    split = augmented(digits_train)
    assert split.is_augmented
    assert not digits_train.is_augmented
    assert torch.equal(split.batch([4])["pixel_values"], digits_train.batch([4])["pixel_values"])
    assert digits_train.at_epoch(0, 0) is digits_train


def test_the_fingerprint_names_the_augmentation(digits_train):
    prints = {
        split.fingerprint
        for split in (
            digits_train,
            augmented(digits_train),
            augmented(digits_train, Augmentation()),
            augmented(digits_train, Augmentation()),
        )
    }
    assert len(prints) == 3


def test_the_search_loop_and_trainer_see_the_same_images(
    tmp_path, monkeypatch, digits_train, digits_validation
):
    monkeypatch.setattr(fitness, "epoch_order", lambda n, seed, epoch: torch.arange(n))
    args = default_training_arguments(
        str(tmp_path),
        num_train_epochs=3,
        per_device_train_batch_size=16,
        train_sampling_strategy="sequential",
        seed=5,
        use_cpu=True,
    )
    config = BioTuneConfig(lr_multipliers={"layer3": 2.0, "head": 5.0})
    train = augmented(digits_train)
    pool = BaseModelPool(small_resnet)
    found = {}

    def remember(seed, curve):
        found.update({name: tensor.clone() for name, tensor in pool.model.state_dict().items()})
        return True

    evaluator = FitnessEvaluator(
        pool, train, digits_validation, args, METRICS["accuracy"], StoppingRule(None)
    )
    evaluator.evaluate(config, [5], after_epoch=remember)

    set_seed(5)
    model = get_biotune_model(small_resnet(), config)
    Trainer(
        model,
        args,
        train_dataset=train.for_trainer(5),
        data_collator=default_data_collator,
        **biotune_trainer_kwargs(model),
    ).train()
    for name, tensor in model.get_base_model().state_dict().items():
        assert torch.equal(tensor, found[name]), name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"horizontal_flip": 2}, r"horizontal_flip must be in \[0, 1\], got 2"),
        ({"shift": 1.0}, r"shift must be in \[0, 1\), got 1.0"),
        ({"color_jitter": -0.1}, r"color_jitter must be in \[0, 1\], got -0.1"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        Augmentation(**values)


def test_only_images_can_be_augmented():
    with pytest.raises(DataError, match="only pixel_values of type uint8"):
        EncodedSplit(
            {"input_ids": torch.zeros(2, 3, dtype=torch.long)},
            torch.tensor([0, 1]),
            ("a", "b"),
            augmentation=Augmentation(),
        )
