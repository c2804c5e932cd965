"""A Gradio Space: classify an image with a tuned adapter, and see which blocks were trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from hf_biotune import BioTuneModel
from hf_biotune.search.transforms import resize_processor

BASE_MODEL = os.environ.get("BASE_MODEL", "microsoft/resnet-50")
ADAPTER = os.environ.get("ADAPTER", "adapter")
SUBFOLDER = os.environ.get("SUBFOLDER") or None
IMAGE_SIZE = int(os.environ.get("IMAGE_SIZE") or 0)
LABELS = Path(__file__).with_name("labels.txt").read_text(encoding="utf-8").split("\n")


def load() -> tuple[BioTuneModel, Any, list[str]]:
    """The tuned model, the base model's image processor, and the names of the classes."""
    names = [name for name in LABELS if name]
    base = AutoModelForImageClassification.from_pretrained(
        BASE_MODEL, num_labels=len(names), ignore_mismatched_sizes=True
    )
    model = BioTuneModel.from_pretrained(base, ADAPTER, subfolder=SUBFOLDER).eval()
    processor = AutoImageProcessor.from_pretrained(BASE_MODEL)
    if IMAGE_SIZE:
        processor = resize_processor(processor, IMAGE_SIZE)
    return model, processor, names


model, processor, names = load()


@torch.no_grad()
def classify(image: Image.Image | None) -> dict[str, float]:
    """Class -> probability."""
    if image is None:
        raise gr.Error("Choose an image first.")
    inputs = processor(images=image.convert("RGB"), return_tensors="pt")
    probabilities = model(pixel_values=inputs["pixel_values"]).logits.softmax(-1)[0]
    return dict(zip(names, probabilities.tolist(), strict=True))


def blocks() -> list[list[str]]:
    """One row per block: frozen, or the factor on the base learning rate."""
    rates = model.active_peft_config.lr_multipliers
    return [
        [name, f"x {rates[name]:.2g}" if name in rates else "frozen"]
        for name in model.base_model.partitions[model.active_adapter].names
    ]


with gr.Blocks(title="Tuned with BioTune", analytics_enabled=False) as demo:
    gr.Markdown(
        "# Tuned with BioTune\nSome blocks of the model were trained, each at its own rate."
    )
    with gr.Row():
        with gr.Column():
            picture = gr.Image(type="pil", label="Image")
            button = gr.Button("Classify", variant="primary")
        with gr.Column():
            answer = gr.Label(num_top_classes=3, label="Classes")
            gr.Dataframe(blocks(), headers=["block", "learning rate"], label="Blocks")
    button.click(classify, inputs=picture, outputs=answer, api_name="classify")

if __name__ == "__main__":
    demo.launch()
