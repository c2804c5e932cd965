"""Models and data as a user has them on disk, small enough to train in a fraction of a second."""

from __future__ import annotations

import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from PIL import Image as PillowImage
from small import digits_split, small_resnet
from texts import text_splits, write_bert
from transformers import ConvNextImageProcessor

CLASSES = 3


@pytest.fixture(scope="session")
def image_model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "small-resnet"
    torch.manual_seed(0)
    small_resnet().save_pretrained(directory)
    ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=1.0).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def digit_images(tmp_path_factory):
    """Three classes: 12, 12 and 24 images."""
    features = Features({"image": Image(), "label": ClassLabel(num_classes=CLASSES)})
    splits = {}
    for name, per_class, first in (("train", 4, 0), ("validation", 4, 20), ("test", 8, 40)):
        data = digits_split(per_class, first)
        n = CLASSES * per_class
        pixels = data.inputs["pixel_values"][:n].permute(0, 2, 3, 1).numpy()
        columns = {
            "image": [PillowImage.fromarray(image) for image in pixels],
            "label": data.labels[:n].tolist(),
        }
        splits[name] = Dataset.from_dict(columns, features=features)
    directory = tmp_path_factory.mktemp("data") / "digits-3"
    DatasetDict(splits).save_to_disk(directory)
    return directory


@pytest.fixture(scope="session")
def text_model(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("models") / "small-bert")


@pytest.fixture(scope="session")
def scipy_texts(tmp_path_factory):
    """Three classes: 12, 12 and 12 texts."""
    directory = tmp_path_factory.mktemp("texts") / "scipy-parts"
    text_splits().save_to_disk(directory)
    return directory
