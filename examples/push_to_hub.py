"""Push an adapter to the Hub, and load it back as somebody else would.

    hf auth login
    python examples/push_to_hub.py --adapter adapter --repo-id me/lite0-digits-biotune --private

`--adapter` is what `image_classification.py` or `hf-biotune tune` saved. Against a Hub of your own,
set `HF_ENDPOINT`.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from transformers import AutoModelForImageClassification

from hf_biotune import BioTuneConfig, BioTuneModel


def base_model(name: str, labels: int) -> torch.nn.Module:
    """The pre-trained model with a head for the labels; the adapter brings the head's weights."""
    model: torch.nn.Module = AutoModelForImageClassification.from_pretrained(
        name, num_labels=labels, ignore_mismatched_sizes=True
    )
    return model.eval()


def main(
    repo_id: Annotated[str, typer.Option(help="user/name; made if needed.")],
    adapter: Annotated[str, typer.Option(help="Directory of an adapter.")] = "adapter",
    model: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/efficientnet-lite0",
    labels: Annotated[int, typer.Option(min=2, help="Number of classes.")] = 10,
    image_size: Annotated[int, typer.Option(min=8, help="Side of the image to compare.")] = 64,
    private: Annotated[bool, typer.Option("--private", help="Make a private one.")] = False,
) -> None:
    """Push an adapter to the Hub, and load it back."""
    tuned = BioTuneModel.from_pretrained(base_model(model, labels), adapter)
    address = tuned.push_to_hub(repo_id, private=private or None)
    print(f"pushed: {address}")

    config = BioTuneConfig.from_pretrained(repo_id)
    print(f"blocks and rates: {config.lr_multipliers}")
    pulled = BioTuneModel.from_pretrained(base_model(model, labels), repo_id)
    image = torch.rand(1, 3, image_size, image_size)
    with torch.no_grad():
        expected = tuned.eval()(pixel_values=image).logits
        # A plain model from here on, which needs no hf_biotune.
        given = pulled.merge_and_unload().eval()(pixel_values=image).logits
    print(f"the same outputs: {torch.equal(expected, given)}")


if __name__ == "__main__":
    typer.run(main)
