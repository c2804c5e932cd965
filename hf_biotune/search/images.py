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
    content, path = _content_and_path(source)
    if path:
        name = f"{name} ({path})"
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
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


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode; `ValueError` for pixels whose range is not known."""
    if image.mode == "F":
        raise ValueError("its pixels are 32-bit floats of unknown range; save it with 8 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels are outside of 0..65535; save it with 8 bits")
        image = Image.fromarray((values // 257).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        # The detour avoids a warning of Pillow's.
        image = image.convert("RGBA")
    return image.convert("RGB")


def is_image_file(path: Path) -> bool:
    """Whether a file's name says that it is an image."""
    return path.suffix.lower() in _IMAGE_SUFFIXES and not path.name.startswith(".")
