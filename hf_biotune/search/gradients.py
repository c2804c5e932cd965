"""How large each block's gradient is, compared with its weights, before any training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from transformers import TrainingArguments, set_seed

from ..blocks import Partition
from ..classification import loss_of
from ..config import BioTuneConfig
from ..model import BioTuneModel, get_biotune_model
from ..recompute import recompute_as_asked
from .data import SplitView
from .fitness import accelerator_for, epoch_order
from .forward import Forward
from .out_of_memory import part_of, with_smaller_batches
from .weights import BaseModelPool

N_BATCHES = 5


def relative_gradient_norms(
    pool: BaseModelPool,
    partition: Partition,
    samples: SplitView,
    args: TrainingArguments,
    *,
    seed: int,
    norm_statistics: str = "epoch",
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
    recompute_as_asked(model, args)
    wrapped.train()
    size = args.per_device_train_batch_size

    def attempt(parts: int) -> list[np.ndarray]:
        batches = first_batches(len(samples), seed, 0, part_of(size, parts))
        return [_norms(partition, g) for g in _gradients(wrapped, samples, batches, seed, args)]

    try:
        gradients = np.median(with_smaller_batches(attempt, size), axis=0)
    finally:
        wrapped.merge_and_unload()
        pool.restore(seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(gradients == 0.0, 0.0, gradients / weights)
    return dict(zip(partition.names, ratios.tolist(), strict=True))


def first_batches(n_samples: int, seed: int, epoch: int, size: int) -> list[torch.Tensor]:
    """The first batches of an epoch, without a smaller last one: its statistics are poor.

    Args:
        n_samples: of the training.
        seed: of the training.
        epoch: from 0.
        size: of each batch.
    """
    batches = torch.split(epoch_order(n_samples, seed, epoch), size)[:N_BATCHES]
    return [batch for batch in batches if len(batch) == len(batches[0])]


def _gradients(
    wrapped: BioTuneModel,
    samples: SplitView,
    batches: Sequence[torch.Tensor],
    seed: int,
    args: TrainingArguments,
) -> Iterator[dict[str, torch.Tensor]]:
    """The gradients of each batch, by the names of the base model."""
    model = wrapped.get_base_model()
    accelerator = accelerator_for(args)
    forward = Forward(wrapped, accelerator.device)
    samples = samples.at_epoch(seed, 0)
    for positions in batches:
        model.zero_grad()
        with accelerator.autocast():
            logits = forward(samples, positions)
        labels = samples.labels[positions].to(accelerator.device)
        loss_of(logits, labels, args.label_smoothing_factor).backward()  # type: ignore[no-untyped-call]
        yield {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


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
