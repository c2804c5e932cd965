"""Image files of every kind become upright RGB images, or an error that names the file."""

import io

import numpy as np
import pytest
from PIL import Image

from hf_biotune.exceptions import DataError
from hf_biotune.search.images import decode_image, is_image_file

# A colour of the web palette, which a palette image keeps.
RED, GRAY = (255, 0, 51), (100, 100, 100)


def encoded(image, form="PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def colour(content: bytes) -> tuple[int, ...]:
    image = decode_image(content)
    assert image.mode == "RGB"
    return image.getpixel((1, 1))


def test_a_photograph_keeps_its_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode_image(encoded(Image.fromarray(noise)))), noise)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_colour_modes_keep_their_colour(mode):
    assert colour(encoded(Image.new("RGB", (4, 4), RED).convert(mode))) == RED


def test_transparency_is_dropped_as_pipelines_drop_it():
    assert colour(encoded(Image.new("RGBA", (4, 4), (*RED, 0)))) == RED


def test_a_palette_with_transparency_is_read_without_a_warning():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, *RED])
    assert colour(encoded(image, transparency=b"\xff\x80")) == RED


@pytest.mark.parametrize(
    ("mode", "value", "expected"), [("L", 100, GRAY), ("LA", (100, 0), GRAY), ("1", 1, (255,) * 3)]
)
def test_gray_images_have_three_equal_channels(mode, value, expected):
    assert colour(encoded(Image.new(mode, (4, 4), value))) == expected


def test_cmyk_is_converted():
    content = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    assert colour(content) == pytest.approx((255, 0, 0), abs=8)


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (25700, 100), (65535, 255)])
def test_sixteen_bits_are_scaled_to_eight(value, expected):
    values = np.full((4, 4), value, dtype=np.uint16)
    assert colour(encoded(Image.fromarray(values))) == (expected,) * 3
    assert colour(encoded(Image.fromarray(values.astype(np.int32)), "TIFF")) == (expected,) * 3


def test_integers_up_to_255_are_gray_values_of_eight_bits():
    values = np.full((4, 4), 100, dtype=np.uint16)
    assert colour(encoded(Image.fromarray(values))) == GRAY
    assert colour(encoded(Image.fromarray(values.astype(np.int32)), "TIFF")) == GRAY


def test_pixels_without_a_known_range_are_refused():
    floats = encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF")
    with pytest.raises(
        DataError, match="image can't be read: its pixels are 32-bit floats of unkn"
    ):
        decode_image(floats)
    large = encoded(Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)), "TIFF")
    with pytest.raises(
        DataError, match=r"its pixels are outside of 0\.\.65535; save it with 8 bits"
    ):
        decode_image(large)


def test_the_exif_orientation_is_applied():
    image = Image.new("RGB", (20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(image, "JPEG", exif=exif)).size == (10, 20)


def test_a_file_is_read_by_path_or_as_datasets_stores_it(tmp_path):
    path = tmp_path / "red.png"
    content = encoded(Image.new("RGB", (4, 4), RED))
    path.write_bytes(content)
    for source in (str(path), {"bytes": None, "path": str(path)}, {"bytes": content, "path": "x"}):
        assert decode_image(source).getpixel((0, 0)) == RED


def damaged_files():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    png, jpeg = (encoded(Image.fromarray(noise), form) for form in ("PNG", "JPEG"))
    flipped = bytearray(png)
    flipped[60:80] = bytes(20)
    return {
        "truncated.png": png[: len(png) // 2],
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "flipped.png": bytes(flipped),
        "text.png": b"this is not an image",
        "empty.png": b"",
    }


@pytest.mark.parametrize(("name", "content"), damaged_files().items())
def test_a_damaged_file_is_named(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    message = (
        rf"image 3 of train \({path}\) can't be read: .*; repair or remove it, or pass skip_bad"
    )
    with pytest.raises(DataError, match=message):
        decode_image(str(path), "image 3 of train")


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"image \(no/such\.png\) can't be read: .*No such file"):
        decode_image("no/such.png")
    with pytest.raises(DataError, match=r"--skip-bad-images\) to leave such images out"):
        decode_image({"bytes": None, "path": None})


def test_image_files_are_told_by_their_name(tmp_path):
    names = ["a.JPG", "b.png", ".hidden.png", "c.txt", "Thumbs.db"]
    assert [name for name in names if is_image_file(tmp_path / name)] == ["a.JPG", "b.png"]
