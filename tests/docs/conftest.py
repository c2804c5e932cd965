"""A reader's desk: a tiny model, images, texts, and the names that pages take for granted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small import digits_split, small_resnet
from texts import text_splits, write_bert
from transformers import ConvNextImageProcessor, Trainer, default_data_collator

from hf_biotune.search import DataSplits, default_training_arguments


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a reader has: models and data, as the pages call them."""
    root = tmp_path_factory.mktemp("desk")
    torch.manual_seed(0)
    small_resnet().save_pretrained(root / "my-model")
    ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=1.0).save_pretrained(
        root / "my-model"
    )
    for split, first in (("train", 0), ("validation", 20), ("test", 40)):
        data = digits_split(per_class=3, first=first)
        for number, (pixels, label) in enumerate(
            zip(data.inputs["pixel_values"], data.labels.tolist(), strict=True)
        ):
            folder = root / "my-images" / split / f"digit{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    write_bert(root / "my-language-model")
    (root / "my-texts").mkdir()
    for name, split in text_splits().items():
        frame = split.to_pandas()
        frame["label"] = [split.features["label"].int2str(number) for number in frame["label"]]
        frame.to_csv(root / "my-texts" / f"{name}.csv", index=False)
    return root


@pytest.fixture
def at_desk(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of one page: the reader's files, and room for what it writes."""
    for thing in desk.iterdir():
        shutil.copytree(thing, tmp_path / thing.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class QuietTrainer(Trainer):
    """`Trainer` for samples that are tensors already, as an `EncodedSplit` has them."""

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **{"data_collator": default_data_collator, **named})


@pytest.fixture
def names(at_desk: Path) -> dict[str, Any]:
    """What pages take for granted: a model, a way to make it, data, and training arguments."""
    torch.manual_seed(0)
    train, validation, test = (digits_split(3, first) for first in (0, 20, 40))
    return {
        "Trainer": QuietTrainer,
        "args": default_training_arguments(
            "out", num_train_epochs=1, use_cpu=True, disable_tqdm=True
        ),
        "base_model": small_resnet(),
        "data": DataSplits(train, validation, test, "digits"),
        "model": small_resnet(),
        "model_init": small_resnet,
        "test": test,
        "train": train,
        "validation": validation,
    }
