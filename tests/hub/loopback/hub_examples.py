"""Small models that are shared, and the output directory of a search."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from small import small_resnet
from torch import nn

from hf_biotune import BioTuneConfig, BioTuneModel, get_biotune_model


def make_base() -> nn.Module:
    """The same weights each time, as from a pre-trained checkpoint."""
    torch.manual_seed(0)
    return small_resnet().eval()


def make_tuned() -> BioTuneModel:
    config = BioTuneConfig(lr_multipliers={"layer3": 2.5, "head": 1.0})
    model = get_biotune_model(make_base(), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def logits(model: nn.Module) -> torch.Tensor:
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.eval()(pixel_values=pixels).logits


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def write_run(directory: Path, model: BioTuneModel) -> Path:
    """What a search leaves behind, and two files that are nobody's business."""
    model.save_pretrained(directory / "adapter")
    config = model.active_peft_config.to_dict()
    (directory / "best_config.json").write_text(json.dumps(config))
    (directory / "history.csv").write_text("trial,score\n0,0.9\n")
    (directory / "comparison.json").write_text("[]")
    (directory / "report.html").write_text("<!doctype html><title>report</title>")
    (directory / "blocks.png").write_bytes(b"\x89PNG")
    (directory / "study.journal").write_text("{}")
    (directory / "secrets.env").write_text("PASSWORD=1")
    return directory
