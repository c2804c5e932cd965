"""What only a GPU can show: the same search there, in both precisions."""

from __future__ import annotations

import optuna
import pytest
import torch
from small import digits_split, small_resnet

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.search import default_training_arguments

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.mark.parametrize("bf16", [False, True])
def test_a_search_runs_on_the_gpu_and_learns(bf16):
    args = default_training_arguments(None, num_train_epochs=6, bf16=bf16)
    assert args.device.type == "cuda"
    result = biotune_search(
        small_resnet,
        digits_split(per_class=10, first=0),
        digits_split(per_class=6, first=20),
        args,
        SearchConfig(budget=None, generations=1, population_size=6, seeds=(1, 2)),
        storage=optuna.storages.InMemoryStorage(),
    )
    assert result.best_score > 0.3  # chance: 0.1


def test_batches_arrive_on_the_gpu_as_they_are_on_the_cpu():
    split = digits_split(per_class=10, first=0)
    indices = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    there = [split.batch(part, "cuda") for part in indices.split(32)]
    for part, batch in zip(indices.split(32), there, strict=True):
        for name, values in split.batch(part).items():
            assert batch[name].device.type == "cuda"
            torch.testing.assert_close(batch[name].cpu(), values)
