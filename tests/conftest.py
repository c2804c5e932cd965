"""Fixtures that several rooms share."""

from __future__ import annotations

import os

# Nothing in a test may reach for the internet; read when the libraries are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import optuna
import pytest
import torch
from small import digits_split

from hf_biotune.search import EncodedSplit

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors are slower on several threads, and sums then depend on their number."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits_train() -> EncodedSplit:
    return digits_split(per_class=6, first=0)


@pytest.fixture(scope="session")
def digits_validation() -> EncodedSplit:
    return digits_split(per_class=6, first=20)


@pytest.fixture(scope="session")
def digits_test() -> EncodedSplit:
    return digits_split(per_class=10, first=40)
