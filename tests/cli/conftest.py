"""A tiny model directory and image folder, as a user has them on disk."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from small import digits_split, small_resnet
from texts import text_splits, write_bert
from transformers import ConvNextImageProcessor

from hf_biotune.cli import main


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "small-resnet"
    torch.manual_seed(0)
    small_resnet().save_pretrained(directory)
    ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=1.0).save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "digits"
    for split, first in (("train", 0), ("validation", 20), ("test", 40)):
        data = digits_split(per_class=4, first=first)
        for number, (pixels, label) in enumerate(
            zip(data.inputs["pixel_values"], data.labels.tolist(), strict=True)
        ):
            folder = root / split / f"digit{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def language_model_directory(tmp_path_factory):
    return write_bert(tmp_path_factory.mktemp("models") / "small-bert")


@pytest.fixture(scope="session")
def text_tables(tmp_path_factory):
    """Csv files of texts and their classes, one a split."""
    root = tmp_path_factory.mktemp("texts") / "scipy-parts"
    root.mkdir()
    for name, split in text_splits().items():
        frame = split.to_pandas()
        frame["label"] = [split.features["label"].int2str(number) for number in frame["label"]]
        frame.to_csv(root / f"{name}.csv", index=False)
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line as typed; returns exit status, output and errors."""

    def typed(*words, columns=200):
        monkeypatch.setattr("sys.argv", ["hf-biotune", *map(str, words)])
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.delenv("CI", raising=False)
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return typed
