"""What a model says about the test samples: what it confuses, and where it is surely wrong."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SHOWN = 12
# Beyond so many classes a matrix can't be read; the most frequent confusions are listed instead.
LARGEST_MATRIX = 24
LONGEST_LIST = 20
_SIDE = 112
# Below this many pixels a side, nothing is lost.
_LOSSLESS = 64


@dataclass(frozen=True, eq=False)
class Predictions:
    """The classes that a model gave to test samples.

    Args:
        label_names: of each class.
        labels: the true class of each sample, int, shape (n,).
        predicted: the class that the model finds most probable, int, shape (n,).
        confidence: the probability that it gives to that class, in [0, 1], shape (n,).
        pictures: samples as `data:` addresses of small pictures, by their number; those that
            [`most_wrong`] names, if they are images.
    """

    label_names: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    pictures: Mapping[int, str] = field(default_factory=dict)

    @property
    def n_wrong(self) -> int:
        """How many samples are given a wrong class."""
        return int((self.labels != self.predicted).sum())


@dataclass(frozen=True)
class Mistake:
    """One sample with a wrong class.

    Args:
        sample: its number in the test split, from 0.
        label: the name of its class.
        predicted: the name of the class that it was given.
        confidence: the probability of that, in [0, 1].
        picture: a `data:` address, or `""`.
    """

    sample: int
    label: str
    predicted: str
    confidence: float
    picture: str


@dataclass(frozen=True)
class Confusion:
    """How often samples of one class are given another one.

    Args:
        label: the name of the class.
        predicted: the name of the other one.
        count: how often.
        share: of the samples of `label`, in [0, 1].
    """

    label: str
    predicted: str
    count: int
    share: float


def most_wrong(
    labels: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, n: int = SHOWN
) -> np.ndarray:
    """The numbers of the samples with a wrong class, the surest first; of equals, the first.

    Args:
        labels, predicted, confidence: see [`Predictions`].
        n: how many at most.
    """
    wrong = np.flatnonzero(labels != predicted)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:n]


def mistakes(predictions: Predictions) -> list[Mistake]:
    """The most confidently wrong samples."""
    names = predictions.label_names
    return [
        Mistake(
            sample=int(i),
            label=names[predictions.labels[i]],
            predicted=names[predictions.predicted[i]],
            confidence=float(predictions.confidence[i]),
            picture=predictions.pictures.get(int(i), ""),
        )
        for i in most_wrong(predictions.labels, predictions.predicted, predictions.confidence)
    ]


def confusion_matrix(predictions: Predictions) -> np.ndarray:
    """How many samples of each class (rows) were given which class (columns)."""
    n = len(predictions.label_names)
    matrix = np.zeros((n, n), dtype=int)
    np.add.at(matrix, (predictions.labels, predictions.predicted), 1)
    return matrix


def confusions(predictions: Predictions) -> list[Confusion]:
    """The pairs of classes that are confused most often."""
    wrong = predictions.labels != predictions.predicted
    pairs = np.stack([predictions.labels[wrong], predictions.predicted[wrong]], axis=1)
    # Not by a matrix of all classes, of which there may be tens of thousands.
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:LONGEST_LIST]
    names = predictions.label_names
    return [
        Confusion(names[row], names[column], int(count), count / (predictions.labels == row).sum())
        for (row, column), count in zip(found[order].tolist(), counts[order], strict=True)
    ]


def picture_of(pixels: np.ndarray) -> str:
    """A small picture as a `data:` address.

    Args:
        pixels: uint8, shape (3, height, width).
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    options: dict[str, Any] = {"format": "JPEG", "quality": 85}
    if max(image.size) <= _LOSSLESS:
        options = {"format": "PNG", "optimize": True}
    image.save(buffer, **options)
    kind = options["format"].lower()
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
