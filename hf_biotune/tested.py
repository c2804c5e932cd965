"""From the logits of a final model to what a report shows of them."""

from __future__ import annotations

import torch

from .report import Predictions
from .report.predictions import most_wrong, picture_of
from .search import EncodedSplit


def predictions_of(logits: torch.Tensor, test: EncodedSplit) -> Predictions:
    """What a model says about the test samples, with pictures of those it is most wrong about.

    Args:
        logits: shape (samples, classes).
        test: the samples, in the same order.
    """
    probabilities = torch.softmax(logits.double().nan_to_num(), dim=-1).cpu()
    confidence, predicted = (values.numpy() for values in probabilities.max(dim=-1))
    labels = test.labels.cpu().numpy()
    images = test.inputs.get("pixel_values")
    pictures = {}
    if images is not None and images.dtype == torch.uint8 and images.shape[1] == 3:
        for index in most_wrong(labels, predicted, confidence):
            pictures[int(index)] = picture_of(images[int(index)].cpu().numpy())
    return Predictions(test.label_names, labels, predicted, confidence, pictures)
