"""Resizing to 8 bits and normalising later gives what the image processor itself gives."""

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from sklearn.datasets import load_sample_image
from transformers.models.timm_wrapper.image_processing_timm_wrapper import (
    TimmWrapperImageProcessor,
)

from hf_biotune.exceptions import DataError
from hf_biotune.search.data import EncodedSplit
from hf_biotune.search.transforms import ImageTransform, as_transform, resize_processor

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
SQUARE = {"height": 48, "width": 48}
PROCESSORS = {
    "ViTImageProcessor": {"size": SQUARE},
    "ViTImageProcessorPil": {"size": SQUARE},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 48}, "crop_pct": 0.9},
    "CLIPImageProcessor": {"size": {"shortest_edge": 48}, "crop_size": SQUARE},
    "BitImageProcessor": {"size": {"shortest_edge": 60}, "crop_size": SQUARE},
    "BitImageProcessorPil": {"size": {"shortest_edge": 60}, "crop_size": SQUARE},
    "MobileViTImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": SQUARE},
    "EfficientNetImageProcessor": {"size": SQUARE},
    "SiglipImageProcessor": {"size": SQUARE, "do_normalize": False},
}


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(load_sample_image("flower.jpg"))


def processor_of(name: str, **changes):
    return getattr(transformers, name)(**{**PROCESSORS[name], **changes})


def timm_processor(size: int = 48, **changes) -> TimmWrapperImageProcessor:
    config = {"input_size": (3, size, size), "interpolation": "bicubic", "crop_pct": 0.875}
    return TimmWrapperImageProcessor({**config, **IMAGENET, **changes}, architecture="resnet18")


def two_steps(transform: ImageTransform, image: Image.Image) -> torch.Tensor:
    pixels = transform.resize(image)
    assert pixels.dtype == torch.uint8
    assert tuple(pixels.shape) == (3, *transform.size)
    split = EncodedSplit(
        {"pixel_values": pixels[None]}, torch.tensor([0]), ("a",), transform.mean, transform.std
    )
    return split.batch([0])["pixel_values"][0]


def assert_within_one_gray_level(transform: ImageTransform, processor, image: Image.Image):
    expected = processor(images=image, return_tensors="pt")["pixel_values"][0]
    levels = (two_steps(transform, image) - expected).abs() * torch.tensor(transform.std).view(
        -1, 1, 1
    )
    assert float(levels.max()) <= 1 / 255 + 1e-5


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_two_steps_agree_with_a_transformers_processor(name, photograph):
    processor = processor_of(name)
    transform = ImageTransform.from_processor(processor)
    assert transform.size == (48, 48)
    assert_within_one_gray_level(transform, processor, photograph)


def test_the_two_steps_agree_with_a_timm_processor(photograph):
    processor = timm_processor()
    transform = ImageTransform.from_processor(processor)
    assert (transform.mean, transform.std) == tuple(IMAGENET.values())
    assert_within_one_gray_level(transform, processor, photograph)


def test_mean_and_std_are_those_that_the_processor_declares():
    declared = {f"image_{name}": values for name, values in IMAGENET.items()}
    transform = ImageTransform.from_processor(processor_of("ViTImageProcessor", **declared))
    assert transform.mean == pytest.approx(IMAGENET["mean"], abs=1e-9)
    assert transform.std == pytest.approx(IMAGENET["std"], abs=1e-6)


@pytest.mark.parametrize("name", PROCESSORS)
def test_another_image_size_agrees_with_the_resized_processor(name, photograph):
    processor = processor_of(name)
    transform = ImageTransform.from_processor(processor, image_size=32)
    assert transform.size == (32, 32)
    assert_within_one_gray_level(transform, resize_processor(processor, 32), photograph)
    assert ImageTransform.from_processor(processor).size == (48, 48)


def test_another_image_size_of_a_timm_processor(photograph):
    processor = timm_processor()
    transform = ImageTransform.from_processor(processor, image_size=32)
    assert_within_one_gray_level(transform, resize_processor(processor, 32), photograph)
    assert processor.data_config["input_size"] == (3, 48, 48)


def test_a_cropping_processor_keeps_its_margin_at_another_size():
    resized = resize_processor(processor_of("BitImageProcessor"), 96)
    assert resized.size["shortest_edge"] == 120
    assert dict(resized.crop_size)["height"] == 96


def test_a_timm_model_describes_its_images(photograph):
    model = timm.create_model("test_vit")
    transform = ImageTransform.from_timm(model)
    config = timm.data.resolve_model_data_config(model)
    assert transform.size == config["input_size"][1:]
    assert (transform.mean, transform.std) == (config["mean"], config["std"])
    assert two_steps(ImageTransform.from_timm(model, image_size=40), photograph).shape == (
        3,
        40,
        40,
    )


def test_values_by_hand_resize_and_cut_the_centre():
    stripes = np.zeros((10, 30, 3), dtype=np.uint8)
    stripes[:, 10:20] = 200
    transform = ImageTransform.from_values(10, (0.5,) * 3, (0.5,) * 3)
    assert transform.resize(Image.fromarray(stripes)).unique().tolist() == [200]
    squashed = ImageTransform.from_values((10, 30), (0.5,) * 3, (0.5,) * 3, crop_mode="squash")
    assert torch.equal(
        squashed.resize(Image.fromarray(stripes)), torch.from_numpy(stripes).permute(2, 0, 1)
    )


def test_a_processor_inside_a_multimodal_processor_is_used():
    class Processor:
        image_processor = processor_of("CLIPImageProcessor")

    assert ImageTransform.from_processor(Processor()).size == (48, 48)


def test_images_of_different_sizes_are_refused():
    processor = transformers.BitImageProcessor(size={"shortest_edge": 48}, do_center_crop=False)
    message = (
        r"BitImageProcessor keeps the aspect ratio, so that images differ in size; give the edge "
        r"of a square as image_size=\.\.\. \(--image-size\)"
    )
    with pytest.raises(DataError, match=message):
        ImageTransform.from_processor(processor)
    assert ImageTransform.from_processor(processor, image_size=32).size == (32, 32)


def test_a_processor_that_does_more_than_normalise_is_refused():
    class SquaringProcessor(transformers.ViTImageProcessor):
        def normalize(self, *args, **kwargs):
            return super().normalize(*args, **kwargs) ** 2

    with pytest.raises(DataError, match="SquaringProcessor does more than resize and normalise"):
        ImageTransform.from_processor(SquaringProcessor(size=SQUARE))


def test_a_processor_without_pixel_values_is_refused():
    def tokenizer(images, return_tensors, **steps):
        return {"input_ids": torch.zeros(1, 2)}

    with pytest.raises(
        DataError, match=r"must give pixel_values of shape .*, got None; apply it yo"
    ):
        ImageTransform.from_processor(tokenizer)


@pytest.mark.parametrize(
    "changes", [{"size": SQUARE}, {"size": SQUARE, "do_center_crop": True, "crop_size": SQUARE}]
)
def test_a_processor_that_does_not_resize_does_so_for_an_image_size(changes, photograph):
    processor = transformers.BitImageProcessor(**{"do_center_crop": False, **changes})
    processor.do_resize = False
    transform = ImageTransform.from_processor(processor, image_size=32)
    assert transform.size == (32, 32)
    assert_within_one_gray_level(transform, resize_processor(processor, 32), photograph)
    assert not processor.do_resize


def test_a_processor_that_crops_without_a_size_is_resized_to_the_square():
    processor = transformers.BitImageProcessor(crop_size=SQUARE, do_resize=False)
    processor.size = None
    assert ImageTransform.from_processor(processor, image_size=32).size == (32, 32)


def test_a_processor_that_does_not_keep_to_the_image_size_is_refused():
    class StubbornProcessor(transformers.ViTImageProcessor):
        def resize(self, image, size, **kwargs):
            return super().resize(image, type(size)(height=20, width=24), **kwargs)

    message = r"StubbornProcessor gives images of \(20, 24\) pixels for image_size=32; leave"
    with pytest.raises(DataError, match=message):
        ImageTransform.from_processor(StubbornProcessor(size=SQUARE), image_size=32)


class Failing:
    def __init__(self, error):
        self.error = error

    def __call__(self, **inputs):
        raise self.error


@pytest.mark.parametrize("error", [AttributeError, TypeError, ValueError, KeyError])
def test_a_processor_that_fails_is_named(error):
    message = (
        f"Failing can't be used as an image processor: {error.__name__}: .*no text.*; apply it"
    )
    with pytest.raises(DataError, match=message):
        ImageTransform.from_processor(Failing(error("no text")))
    with pytest.raises(DataError, match=r"Failing can't be used .*: AttributeError: .*to_dict"):
        resize_processor(Failing(error("no text")), 32)


def test_nothing_is_guessed_without_a_processor():
    with pytest.raises(DataError, match=r"image_processor is None, so that size, mean and std are"):
        as_transform(None, 224)


def test_an_image_size_that_contradicts_the_transform_is_refused():
    transform = ImageTransform.from_values(10, (0.5,) * 3, (0.5,) * 3)
    assert as_transform(transform, 10) is transform
    with pytest.raises(
        DataError, match=r"image_size is 12, but the ImageTransform has the size \(10"
    ):
        as_transform(transform, 12)


def test_sizes_and_deviations_must_be_positive():
    with pytest.raises(DataError, match="the image size must be at least 1 pixel, got 0"):
        ImageTransform.from_values(0, (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(
        DataError, match=r"std must be greater than 0 in every channel, got \(0.5, 0"
    ):
        ImageTransform.from_values(8, (0.5,) * 3, (0.5, 0.5, 0.0))
    with pytest.raises(DataError, match="image_size must be at least 1 pixel, got 0"):
        resize_processor(timm_processor(), 0)
