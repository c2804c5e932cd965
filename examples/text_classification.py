"""Search the blocks of a language model for a text set, train the winner, classify a sentence.

    python examples/prepare_demo.py --output demo --only minilm --only scipy-200
    python examples/text_classification.py

The data are what functions of SciPy are for, and the classes the parts of SciPy. With `--model` and
`--dataset` of the Hub it is any encoder and any text set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.search import (
    default_training_arguments,
    encode_text_splits,
    load_dataset_splits,
)
from hf_biotune.search.models import load_tokenizer, text_classifier

SENTENCE = "Compute the eigenvalues of a symmetric matrix."


def main(
    model: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/minilm",
    dataset: Annotated[str, typer.Option(help="Directory or Hub name.")] = "demo/scipy-200",
    output_dir: Annotated[Path, typer.Option(help="Study and adapter.")] = Path("out-texts"),
    budget: Annotated[str, typer.Option(help="12 (trainings), 30m, 2h or 3x.")] = "5",
    epochs: Annotated[int, typer.Option(min=1, help="At most, of each training.")] = 6,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens of a text.")] = 32,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a step.")] = 32,
) -> None:
    """Search the blocks of a language model for a text set."""
    tokenizer = load_tokenizer(model)
    splits = load_dataset_splits(dataset)
    data = encode_text_splits(splits, tokenizer, name=Path(dataset).name, max_length=max_length)
    args = default_training_arguments(
        str(output_dir),
        num_train_epochs=epochs,
        per_device_train_batch_size=batch_size,
        # Encoders want smaller steps than convolutional networks.
        learning_rate=3e-4,
    )
    result = biotune_search(
        text_classifier(model, data.label_names, pad_token_id=tokenizer.pad_token_id),
        data.train,
        data.validation,
        args,
        SearchConfig(budget=budget),
    )
    for block in result.partition.names:
        multiplier = result.best_config.lr_multipliers.get(block)
        print(f"{block:>10}: {'frozen' if multiplier is None else f'x {multiplier:.2g}'}")
    print(f"validation accuracy: {result.best_score:.3f}")

    # The search has kept the winner's weights: no second training is needed.
    tuned = result.best_model.eval()
    tuned.save_pretrained(output_dir / "adapter")
    tokens = tokenizer([SENTENCE], return_tensors="pt").to(tuned.device)
    with torch.no_grad():
        label = data.label_names[int(tuned(**tokens).logits.argmax())]
    print(f"{SENTENCE!r} is about {label}")
    print(f"saved: {output_dir / 'adapter'}")


if __name__ == "__main__":
    typer.run(main)
