from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image
from report_examples import make_data

from hf_biotune.report import Predictions, write_report
from hf_biotune.report.predictions import (
    confusion_matrix,
    confusions,
    mistakes,
    most_wrong,
    picture_of,
)

LABELS = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 1, 1, 1, 0, 0])
CONFIDENCE = np.array([0.9, 0.6, 0.8, 0.7, 0.8, 0.55])
NAMES = ("cat", "dog", "<b>bird</b>")


def predictions(**changes):
    values = {"label_names": NAMES, "labels": LABELS, "predicted": PREDICTED}
    return Predictions(**{**values, "confidence": CONFIDENCE, **changes})


def test_the_surest_mistakes_come_first_and_equals_in_order():
    assert most_wrong(LABELS, PREDICTED, CONFIDENCE).tolist() == [2, 4, 1, 5]
    assert most_wrong(LABELS, PREDICTED, CONFIDENCE, n=1).tolist() == [2]
    first = mistakes(predictions())[0]
    assert (first.sample, first.label, first.predicted, first.confidence) == (2, "cat", "dog", 0.8)


def test_confusions_are_counted_by_true_class():
    assert confusion_matrix(predictions()).tolist() == [[1, 2, 0], [1, 1, 0], [1, 0, 0]]
    worst = confusions(predictions())
    assert (worst[0].label, worst[0].predicted, worst[0].count) == ("cat", "dog", 2)
    assert worst[0].share == pytest.approx(2 / 3)
    assert len(worst) == 3


def test_a_model_without_mistakes_has_none():
    right = predictions(predicted=LABELS)
    assert (right.n_wrong, mistakes(right), confusions(right)) == (0, [], [])


@pytest.mark.parametrize(("side", "kind"), [(28, "png"), (300, "jpeg")])
def test_a_picture_is_small_and_in_the_page_itself(side, kind):
    pixels = np.random.default_rng(0).integers(0, 255, (3, side, side), dtype=np.uint8)
    address = picture_of(pixels)
    assert address.startswith(f"data:image/{kind};base64,")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as image:
        assert image.size == (min(side, 112),) * 2
    assert len(address) < 20_000


def test_the_page_shows_matrix_and_mistakes_with_their_pictures(tmp_path):
    picture = picture_of(np.zeros((3, 8, 8), dtype=np.uint8))
    data = make_data(predictions=predictions(pictures={2: picture}))
    text = write_report(tmp_path, data).read_text(encoding="utf-8")
    assert "gives 4 of 6 test samples a wrong class" in text
    assert f'<img src="{picture}" alt="Test sample 2">' in text
    assert text.count("<img") == 1
    assert "&lt;b&gt;bird&lt;/b&gt;" in text
    assert "<b>bird" not in text
    assert re.search(r'class="number right" style="--share:33%">1</td>', text)
    assert '<a href="#mistakes">' in text


def test_many_classes_are_a_list_of_confusions(tmp_path):
    labels = np.arange(100)
    many = Predictions(
        tuple(f"class {i}" for i in labels), labels, np.roll(labels, 1), np.full(100, 0.5)
    )
    text = write_report(tmp_path, make_data(predictions=many)).read_text(encoding="utf-8")
    assert "The classes that are confused most often" in text
    assert 'class="matrix"' not in text
