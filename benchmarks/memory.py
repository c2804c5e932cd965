"""Bytes that fine-tuning holds: ours, stock PEFT with the same blocks, and full fine-tuning.

    python benchmarks/memory.py

Takes one AdamW step with ViT-B/16 and ResNet-50 (random weights, fp32, one small image) and counts,
by walking the live tensors: parameters and buffers of the model, gradients, optimizer state, copies
kept aside, and the files of a checkpoint. Activations depend on the batch and are not counted.
Writes `benchmarks/results/memory.json`.

The rival trains the same blocks by
`LoraConfig(target_modules=..., modules_to_save=[the blocks' modules])`. PEFT asks for a LoRA
target, so it gets one Linear layer at rank 1, or in ResNet-50, whose only one is the head, the
first convolution.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torchvision
from environment import save_results
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn.functional import cross_entropy

from hf_biotune import BioTuneConfig, get_biotune_model, parameter_groups, partition

CLASSES = 100
RESULTS = Path(__file__).parent / "results" / "memory.json"
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """A model and the blocks that are trained.

    Args:
        build: makes the model.
        image_size: that it takes.
        blocks: those trained.
        lora_target: the layer that PEFT gets as its LoRA target.
    """

    build: Callable[[], nn.Module]
    image_size: int
    blocks: tuple[str, ...]
    lora_target: str


@dataclass(frozen=True)
class Bytes:
    """What one method holds after one step, in bytes.

    Args:
        parameters: of the model on the device, buffers included.
        gradients: on the device.
        optimizer: on the device.
        snapshots: copies of the trained blocks in main memory.
        device: all of the above on the device.
        checkpoint: all files of a checkpoint, optimizer state not included.
    """

    parameters: int
    gradients: int
    optimizer: int
    snapshots: int
    device: int
    checkpoint: int


CASES = {
    "ViT-B/16": Case(
        lambda: torchvision.models.vit_b_16(weights=None, num_classes=CLASSES),
        224,
        ("layer9", "layer10", "layer11", "head"),
        r"encoder\.layers\.encoder_layer_0\.mlp\.0",
    ),
    "ResNet-50": Case(
        lambda: torchvision.models.resnet50(weights=None, num_classes=CLASSES),
        64,
        ("layer4", "head"),
        "conv1",
    ),
}


def size_of(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages of tensors, each storage counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def held(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    snapshots: Iterable[torch.Tensor],
    save: Callable[[Path], None],
) -> Bytes:
    """Count what is held now, and what a checkpoint takes."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    states = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if torch.is_tensor(value)
    ]
    with tempfile.TemporaryDirectory() as directory:
        save(Path(directory))
        files = sum(path.stat().st_size for path in Path(directory).rglob("*") if path.is_file())
    on_device = [
        size_of([*model.parameters(), *model.buffers()]),
        size_of(gradients),
        size_of(states),
    ]
    return Bytes(*on_device, size_of(snapshots), sum(on_device), files)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, image_size: int) -> None:
    """One step; gradients stay."""
    torch.manual_seed(0)
    model.train()
    logits = model(torch.randn(2, 3, image_size, image_size))
    cross_entropy(logits, torch.tensor([0, 1])).backward()
    optimizer.step()


def ours(case: Case, keep_base_weights: bool = True) -> Bytes:
    """hf_biotune, with or without the copy that `disable_adapter` and further adapters need."""
    config = BioTuneConfig(lr_multipliers=dict.fromkeys(case.blocks, 1.0))
    model = get_biotune_model(case.build(), config, keep_base_weights=keep_base_weights)
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=1e-3))
    step(model, optimizer, case.image_size)
    return held(model, optimizer, model.base_model.base_tensors().values(), model.save_pretrained)


def stock_peft(case: Case) -> Bytes:
    """PEFT's `modules_to_save` with the same blocks."""
    base = case.build()
    found = partition(base)
    modules = [module for block in case.blocks for module in found[block].modules]
    config = LoraConfig(r=1, target_modules=case.lora_target, modules_to_save=modules)
    model = get_peft_model(base, config)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    step(model, optimizer, case.image_size)
    # Its copies are on the device, as parameters of the model.
    return held(model, optimizer, [], model.save_pretrained)


def full(case: Case) -> Bytes:
    """Full fine-tuning."""
    model = case.build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step(model, optimizer, case.image_size)

    def save(directory: Path) -> None:
        torch.save(model.state_dict(), directory / "model.pt")

    return held(model, optimizer, [], save)


METHODS: dict[str, Callable[[Case], Bytes]] = {
    "hf_biotune": ours,
    "hf_biotune, keep_base_weights=False": lambda case: ours(case, keep_base_weights=False),
    "PEFT modules_to_save": stock_peft,
    "full fine-tuning": full,
}


def table(results: dict[str, dict[str, Bytes]]) -> str:
    """Markdown, in MiB."""
    titles = ["parameters", "gradients", "optimizer", "device", "snapshots", "checkpoint"]
    lines = [f"| model | method | {' | '.join(titles)} |", f"|---|---|{'--:|' * len(titles)}"]
    for name, methods in results.items():
        for method, found in methods.items():
            cells = " | ".join(f"{getattr(found, title) / MIB:.1f}" for title in titles)
            lines.append(f"| {name} | {method} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table (MiB) and write the file (bytes)."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--output", type=Path, default=RESULTS)
    output = parser.parse_args().output
    results = {
        name: {method: measure(case) for method, measure in METHODS.items()}
        for name, case in CASES.items()
    }
    print(table(results))
    measured = {
        "unit": "bytes",
        "blocks": {name: case.blocks for name, case in CASES.items()},
        "results": {
            name: {method: asdict(found) for method, found in methods.items()}
            for name, methods in results.items()
        },
    }
    save_results(output, measured, ("torch", "torchvision", "peft", "transformers", "hf-biotune"))


if __name__ == "__main__":
    main()
