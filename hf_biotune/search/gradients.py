"""How large each block's gradient is, compared with its weights, before any training."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments, set_seed

from ..blocks import Partition
from ..classification import loss_of
from ..config import BioTuneConfig
from ..model import get_biotune_model
from .data import SplitView
from .fitness import accelerator_for, epoch_order
from .forward import Forward
from .weights import BaseModelPool

N_BATCHES = 5


def relative_gradient_norms(
    pool: BaseModelPool,
    partition: Partition,
    samples: SplitView,
    args: TrainingArguments,
    *,
    seed: int,
    norm_statistics: str = "train",
) -> dict[str, float]:
    """The norm of each block's gradient, divided by that of its weights.

    Measured at the start of full fine-tuning, on the first batches that it would see and in its
    mode (dropout, batch statistics), without a step. The median over the batches counts. The model
    is as before afterwards, under `seed`.

    Args:
        pool: the base model.
        partition: its blocks.
        samples: to train on.
        args: batch size, label smoothing, precision.
        seed: of initialisation, data order and dropout.
        norm_statistics: see [`BioTuneConfig`].

    Returns:
        By block; infinite for one whose weights are all 0.

    Source: AutoRGN of Lee et al., Surgical Fine-Tuning Improves Adaptation to Distribution Shifts
    (arXiv 2210.11466), there for each tensor and at every step.
    """
    model = pool.restore(seed)
    weights = _norms(partition, {name: p.detach() for name, p in model.named_parameters()})
    everything = BioTuneConfig(
        lr_multipliers=dict.fromkeys(partition.names, 1.0),
        partition=partition.to_patterns(),
        norm_statistics=norm_statistics,
        saved_blocks=[],
    )
    set_seed(seed)
    wrapped = get_biotune_model(model, everything, keep_base_weights=False)
    wrapped.train()
    accelerator = accelerator_for(args)
    forward = Forward(wrapped, accelerator.device)
    norms = []
    try:
        samples = samples.at_epoch(seed, 0)
        for positions in _whole_batches(len(samples), seed, args.per_device_train_batch_size):
            model.zero_grad()
            with accelerator.autocast():
                logits = forward(samples, positions)
            labels = samples.labels[positions].to(accelerator.device)
            loss_of(logits, labels, args.label_smoothing_factor).backward()  # type: ignore[no-untyped-call]
            norms.append(_norms(partition, _gradients(model)))
    finally:
        wrapped.merge_and_unload()
        pool.restore(seed)
    gradients = np.median(norms, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(gradients == 0.0, 0.0, gradients / weights)
    return dict(zip(partition.names, ratios.tolist(), strict=True))


def _whole_batches(n_samples: int, seed: int, size: int) -> list[torch.Tensor]:
    """The first batches of a training, without a smaller last one: its statistics are poor."""
    batches = torch.split(epoch_order(n_samples, seed, 0), size)[:N_BATCHES]
    return [batch for batch in batches if len(batch) == len(batches[0])]


def _gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def _norms(partition: Partition, tensors: dict[str, torch.Tensor]) -> np.ndarray:
    """The Euclidean norm of each block's tensors; 0 for a block without any."""
    squares = [
        sum(
            float(tensors[name].double().square().sum())
            for name in block.parameters
            if name in tensors
        )
        for block in partition
    ]
    return np.array(squares) ** 0.5
