"""Image transforms: from an RGB image to the 8-bit tensor of a model, to be normalised later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ..exceptions import DataError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ImageTransform:
    """How a model wants its images: resized to 8-bit tensors, which are normalised later.

    Made by [`~ImageTransform.from_processor`], [`~ImageTransform.from_timm`] or
    [`~ImageTransform.from_values`].

    Args:
        resize: turns an RGB image into a uint8 tensor of shape (3, height, width).
        size: height and width of that tensor.
        mean: per channel, to be subtracted after pixels are scaled to [0, 1].
        std: per channel, to be divided by after that.
    """

    resize: Callable[[Image.Image], torch.Tensor] = field(repr=False)
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_values(
        cls,
        size: int | tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        interpolation: str = "bilinear",
        crop_pct: float = 1.0,
        crop_mode: str = "center",
    ) -> ImageTransform:
        """For a model that comes without a description of its images.

        Args:
            size: edge of a square, or (height, width), in pixels.
            mean: per channel, of pixels in [0, 1], as in the model's pre-training.
            std: the same for the standard deviation.
            interpolation: `"bilinear"`, `"bicubic"`, `"nearest"`, `"lanczos"`, ...
            crop_pct: in (0, 1]; the image is resized to `size / crop_pct`, then its centre is cut.
            crop_mode: `"center"` (keep the aspect ratio, cut what is too long), `"squash"` (change
                the aspect ratio) or `"border"` (keep all, add borders).

        Raises:
            DataError: `size` is not positive, or `std` is not.
        """
        height, width = (size, size) if isinstance(size, int) else size
        if min(height, width) < 1:
            raise DataError(f"the image size must be at least 1 pixel, got {size}")
        if min(std) <= 0:
            raise DataError(f"std must be greater than 0 in every channel, got {std}")
        from timm.data import create_transform

        resize = create_transform(
            input_size=(3, height, width),
            interpolation=interpolation,
            mean=mean,
            std=std,
            crop_pct=crop_pct,
            crop_mode=crop_mode,
            is_training=False,
            normalize=False,
        )
        return cls(resize, (height, width), tuple(mean), tuple(std))

    @classmethod
    def from_timm(cls, model: nn.Module, image_size: int | None = None) -> ImageTransform:
        """What a timm model was pre-trained with.

        Args:
            model: a timm model.
            image_size: edge of a square, instead of the model's own size.
        """
        from timm.data import resolve_model_data_config

        return cls._from_data_config(resolve_model_data_config(model), image_size)

    @classmethod
    def from_processor(cls, processor: Any, image_size: int | None = None) -> ImageTransform:
        """What a transformers image processor does, in two steps: resize now, normalise later.

        Args:
            processor: any image processor that gives `pixel_values` of shape (3, height, width),
                `TimmWrapperImageProcessor` included; or a processor that contains one.
            image_size: edge of a square, instead of the processor's own size; see
                [`resize_processor`].

        Raises:
            DataError: it gives images of different sizes or not of `image_size`, does more than
                resize and normalise, so that the two steps would not give what it gives, or fails.
        """
        processor = getattr(processor, "image_processor", processor)
        if image_size is not None:
            processor = resize_processor(processor, image_size)
        with _failures_named(processor):
            if hasattr(processor, "data_config"):
                return cls._from_data_config(processor.data_config, None)
            transform = _split_processor(processor)
            if image_size is not None and transform.size != (image_size, image_size):
                raise DataError(
                    f"{type(processor).__name__} gives images of {transform.size} pixels for "
                    f"image_size={image_size}; leave image_size out, or apply it yourself and use "
                    "encode_dataset"
                )
            _check_agreement(transform, processor)
            return transform

    @classmethod
    def _from_data_config(cls, config: Mapping[str, Any], image_size: int | None) -> ImageTransform:
        height, width = config["input_size"][1:]
        return cls.from_values(
            image_size or (height, width),
            config["mean"],
            config["std"],
            config["interpolation"],
            config["crop_pct"],
            config["crop_mode"],
        )


def resize_processor(processor: Any, image_size: int) -> Any:
    """The same image processor for square images of another size.

    What a model was trained with at `image_size` is to be served with this processor.

    Args:
        processor: a transformers image processor.
        image_size: edge of the square in pixels. Where the processor cuts the centre out of a
            larger image, that image is scaled alike.

    Returns:
        A new processor; `processor` is left as it is.

    Raises:
        DataError: `image_size` is less than 1, or the processor has no size that can be changed.
    """
    if image_size < 1:
        raise DataError(f"image_size must be at least 1 pixel, got {image_size}")
    with _failures_named(processor):
        return _resized(processor, image_size)


def _resized(processor: Any, image_size: int) -> Any:
    if hasattr(processor, "data_config"):
        config = {**processor.data_config, "input_size": (3, image_size, image_size)}
        return type(processor)(config, architecture=getattr(processor, "architecture", None))
    settings = {**processor.to_dict(), "do_resize": True}
    square = {"height": image_size, "width": image_size}
    size = {edge: pixels for edge, pixels in dict(settings.get("size") or {}).items() if pixels}
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    if crop and size:
        scale = image_size / dict(crop)["height"]
        settings["size"] = {edge: round(pixels * scale) for edge, pixels in size.items()}
        settings["crop_size"] = square
    elif settings.get("crop_pct") and "shortest_edge" in size:
        # ConvNext: the shortest edge is that of the square which it cuts out itself.
        settings["size"] = {"shortest_edge": image_size}
    else:
        settings["size"] = square
        if crop:
            settings["crop_size"] = square
    return type(processor).from_dict(settings)


@contextmanager
def _failures_named(processor: Any) -> Iterator[None]:
    """What a processor that is not made for plain images raises may be anything."""
    try:
        yield
    except DataError:
        raise
    except (AttributeError, TypeError, ValueError, LookupError) as error:
        raise DataError(
            f"{type(processor).__name__} can't be used as an image processor: "
            f"{type(error).__name__}: {error}; apply it yourself and use encode_dataset, or give "
            "ImageTransform.from_values(...)"
        ) from error


def _split_processor(processor: Any) -> ImageTransform:
    """Resize by the processor itself; mean and std from what it makes of black and white."""
    steps = {"do_rescale": False, "do_normalize": False}
    if hasattr(processor, "include_top"):
        # EfficientNet normalises a second time.
        steps["include_top"] = False

    def resize(image: Image.Image) -> torch.Tensor:
        pixels = _pixel_values(processor, image, **steps)
        return pixels.round().clamp(0, 255).to(torch.uint8)

    sizes = {tuple(resize(image).shape[1:]) for image in _probes()}
    if len(sizes) > 1:
        raise DataError(
            f"{type(processor).__name__} keeps the aspect ratio, so that images differ in size; "
            "give the edge of a square as image_size=... (--image-size)"
        )
    ((height, width),) = sizes
    black, white = (
        # The centre, because some processors add borders.
        _pixel_values(processor, Image.new("RGB", (64, 64), color))[:, height // 2, width // 2]
        for color in ("black", "white")
    )
    std = 1 / (white - black)
    mean = -black * std
    # Rounded, so that a mean given as 0.485 is 0.485 and not the nearest result of 32-bit floats.
    return ImageTransform(
        resize,
        (height, width),
        tuple(round(value, 6) for value in mean.tolist()),
        tuple(float(f"{value:.6g}") for value in std.tolist()),
    )


def _pixel_values(processor: Any, image: Image.Image, **steps: bool) -> torch.Tensor:
    pixels = processor(images=[image], return_tensors="pt", **steps).get("pixel_values")
    if pixels is None or pixels.ndim != 4 or pixels.shape[1] != 3:
        shape = None if pixels is None else tuple(pixels.shape)
        raise DataError(
            f"{type(processor).__name__} must give pixel_values of shape (1, 3, height, width), "
            f"got {shape}; apply it yourself and use encode_dataset"
        )
    return torch.as_tensor(pixels[0])


def _probes() -> list[Image.Image]:
    """A landscape and a portrait with smooth and rough parts."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    landscape = Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC)
    return [landscape, landscape.transpose(Image.Transpose.ROTATE_90)]


def _check_agreement(transform: ImageTransform, processor: Any) -> None:
    """Compare the two steps with the processor, on one image, to within one gray level."""
    image = _probes()[0]
    pixels = transform.resize(image).to(torch.float32) / 255
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (transform.mean, transform.std))
    difference = ((pixels - mean) / std - _pixel_values(processor, image)).abs() * std * 255
    if not float(difference.max()) <= 1.01:
        raise DataError(
            f"{type(processor).__name__} does more than resize and normalise (its result differs "
            f"by {float(difference.max()):.1f} gray levels); apply it yourself and use "
            "encode_dataset"
        )


def as_transform(
    image_processor: ImageTransform | Any, image_size: int | None = None
) -> ImageTransform:
    """An [`ImageTransform`], whatever is given.

    Args:
        image_processor: one already, or a transformers image processor.
        image_size: edge of a square, instead of the processor's own size.

    Raises:
        DataError: there is nothing to take mean and std from, or `image_size` is given for an
            `ImageTransform`, which has a size.
    """
    if image_processor is None:
        raise DataError(
            "image_processor is None, so that size, mean and std are not known; give the model's "
            "image processor, ImageTransform.from_timm(model) or ImageTransform.from_values(...)"
        )
    if not isinstance(image_processor, ImageTransform):
        return ImageTransform.from_processor(image_processor, image_size)
    if image_size not in (None, image_processor.size[0]):
        raise DataError(
            f"image_size is {image_size}, but the ImageTransform has the size "
            f"{image_processor.size}; make it with that size instead"
        )
    return image_processor
