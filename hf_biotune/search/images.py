"""Image files, however they are encoded, as upright RGB images."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from ..exceptions import DataError

# By name, because opening every file of a folder to see whether it is an image takes long.
_IMAGE_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
LARGEST_OF_8_BITS = 255
# What Pillow's decoders raise for files that are damaged, truncated or no images.
_DECODING_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def decode_image(source: str | bytes | Mapping[str, Any], name: str = "image") -> Image.Image:
    """Read an image, turn it upright and make it RGB.

    As transformers pipelines do: the EXIF orientation is applied and transparency is dropped. Other
    than there, 16-bit gray values are scaled to 8 bits; Pillow alone would clip them to white.

    Args:
        source: path of a file, its content, or `{"bytes": ..., "path": ...}` as `datasets` has it.
        name: what to call the image in an error message.

    Returns:
        The decoded image, in mode RGB.

    Raises:
        DataError: there is no such file, it is damaged, or its pixels have no defined range.
    """
    return decode_by_range(source, name)[0]


def decode_by_range(
    source: str | bytes | Mapping[str, Any], name: str = "image", largest: int | None = None
) -> tuple[Image.Image, int | None]:
    """What [`decode_image`] does, where the range of gray values is that of many images.

    Files with 16 or 32 bits a pixel don't say how many of these are used.

    Args:
        source: see [`decode_image`].
        name: see [`decode_image`].
        largest: gray value of all images that have more than 8 bits a pixel. Up to 255 they are
            taken as they are, above it they are scaled from 16 bits to 8. Default: that of this
            image.

    Returns:
        The decoded image, and its own largest value if it has more than 8 bits a pixel.

    Raises:
        DataError: see [`decode_image`].
    """
    content, path = _content_and_path(source)
    if path:
        name = f"{name} ({path})"
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image), largest)
    except _DECODING_ERRORS as error:
        raise DataError(
            f"{name} can't be read: {error}; repair or remove it, or pass skip_bad_images=True "
            "(--skip-bad-images) to leave such images out"
        ) from error


def _content_and_path(source: str | bytes | Mapping[str, Any]) -> tuple[bytes | None, str]:
    if isinstance(source, bytes):
        return source, ""
    if isinstance(source, Mapping):
        return source.get("bytes"), source.get("path") or ""
    return None, str(source or "")


def _to_rgb(image: Image.Image, largest: int | None) -> tuple[Image.Image, int | None]:
    """Convert any mode; `ValueError` for pixels whose range is not known."""
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats of unknown range; save it with 8 bits")
    own_largest = None
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        own_largest = int(values.max())
        if values.min() < 0 or own_largest > 65535:
            raise ValueError("its pixels are outside of 0..65535; save it with 8 bits")
        if max(own_largest, largest or 0) > LARGEST_OF_8_BITS:
            values //= 257
        image = Image.fromarray(values.astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        # The detour avoids a warning of Pillow's.
        image = image.convert("RGBA")
    return image.convert("RGB"), own_largest


def is_image_file(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith(".")
