from __future__ import annotations

import pretrain_on
from transformers import AutoImageProcessor, AutoModelForImageClassification


def test_a_model_that_has_seen_another_data_set_is_a_model_like_any(
    image_model, digit_images, tmp_path
):
    output = tmp_path / "model"
    pretrain_on.main(str(image_model), str(digit_images), output, image_size=16, epochs=1)
    loaded = AutoModelForImageClassification.from_pretrained(output)
    assert loaded.num_labels == 3
    assert AutoImageProcessor.from_pretrained(output).size
