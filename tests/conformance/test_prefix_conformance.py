"""What holds for every architecture: a step behind a cached prefix is that of the whole model.

At every boundary the logits and the gradients of all later blocks are equal, bit for bit, and the
cache says that it serves. A further model is one line in `small_models.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from small_models import MODELS, batch, build

from hf_biotune import BioTuneConfig, get_biotune_model, partition
from hf_biotune.classification import loss_of
from hf_biotune.search import EncodedSplit
from hf_biotune.search.forward import Forward
from hf_biotune.search.prefix_cache import PrefixCache
from hf_biotune.search.weights import BaseModelPool

# BART draws dropout between its embeddings and first layers, in the encoder and the decoder as a
# whole. As long as one of their layers is trained, what comes behind is no constant of the data, so
# that a shorter prefix is served: instead of how many blocks how many.
SHORTER = {"transformers/Bart": {2: 1, 3: 1, 5: 4, 6: 4}}
FAST = (
    "timm/resnet18",
    "timm/densenet121",
    "timm/vit_tiny_patch16_224",
    "transformers/Swin",
    "transformers/Bert",
    "transformers/GPT2",
    "transformers/Bart",
)
BATCH = torch.tensor([4, 1, 2, 5])


def parameters_of_the_suite() -> Iterator[object]:
    for name, row in MODELS.items():
        if not row.generates:
            yield pytest.param(name, marks=() if name in FAST else pytest.mark.slow)


def samples_of(name: str) -> EncodedSplit:
    """Six samples."""
    torch.manual_seed(3)
    inputs = batch(name)
    labels = inputs.pop("labels").repeat(3)
    repeated = {key: torch.cat([value] * 3) for key, value in inputs.items()}
    for key, value in repeated.items():
        if value.is_floating_point():
            repeated[key] = torch.randn_like(value)
        elif key == "input_ids":
            repeated[key][:, 1:-1] = torch.randint(5, 100, value[:, 1:-1].shape)
    return EncodedSplit(repeated, labels, tuple("abcde"))


def outcome(forward: Forward, samples: EncodedSplit) -> list[torch.Tensor]:
    """Logits and gradients of a training step, then the logits in eval mode."""
    model = forward.model
    model.zero_grad()
    torch.manual_seed(4)
    logits = forward(samples.view(), BATCH)
    loss_of(logits, samples.labels[BATCH]).backward()
    return [logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("name", [*parameters_of_the_suite()])
def test_a_step_behind_every_boundary_is_that_of_the_whole_model(name: str) -> None:
    pool = BaseModelPool(lambda: build(name))
    cache = PrefixCache(pool, memory=2**30)
    names = partition(pool.model).names
    samples = samples_of(name)
    hits = 0
    for n_blocks in range(1, len(names)):
        config = BioTuneConfig(lr_multipliers=dict.fromkeys(names[n_blocks:], 1.0), saved_blocks=[])
        wrapped = get_biotune_model(pool.restore(0), config, keep_base_weights=False)
        wrapped.train()
        forward = cache.forward(wrapped, wrapped, 0, "cpu")
        untouched = [buffer.clone() for buffer in wrapped.buffers()]
        forward.prepare(samples.view(), [BATCH])
        buffers = [buffer.clone() for buffer in wrapped.buffers()]
        assert equal(untouched, buffers), names[n_blocks]
        cached = outcome(forward, samples)
        statistics = [buffer.clone() for buffer in wrapped.buffers()]
        for buffer, before in zip(wrapped.buffers(), buffers, strict=True):
            buffer.copy_(before)
        wrapped.base_model.statistics.restart()
        whole = outcome(Forward(wrapped, "cpu"), samples)
        assert equal(cached, whole), names[n_blocks]
        assert equal(statistics, list(wrapped.buffers())), names[n_blocks]
        hits += len(BATCH)
        assert cache.statistics.hits == hits, (names[n_blocks], cache.statistics.why_not)
        served = [served.rows.n_blocks for served in forward._served.values()]
        assert served == [SHORTER.get(name, {}).get(n_blocks, n_blocks)]
        wrapped.merge_and_unload()
    assert bool(cache.statistics.why_not) == (name in SHORTER)


def equal(ones: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))
