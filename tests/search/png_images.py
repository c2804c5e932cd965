"""Small data sets of images that are files in memory."""

from __future__ import annotations

import io

from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

LABELS = ClassLabel(names=["dark", "light"])


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (12, 10), value).save(buffer, "PNG")
    return buffer.getvalue()


def images(values, broken=(), label_feature=LABELS, labels=None) -> Dataset:
    contents = [b"broken" if i in broken else png(v) for i, v in enumerate(values)]
    columns = {
        "image": [{"bytes": content, "path": f"{i}.png"} for i, content in enumerate(contents)],
        "label": [int(v > 100) for v in values] if labels is None else labels,
    }
    return Dataset.from_dict(
        columns, features=Features({"image": ImageFeature(), "label": label_feature})
    )
