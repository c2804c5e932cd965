"""What a study is about: stored in it, so that it can't be continued with something else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import optuna
import torch
from torch import nn
from transformers import TrainingArguments

from ..blocks import Partition
from ..exceptions import StudyMismatchError
from .data import EncodedSplit
from .search_config import SearchConfig

IDENTITY_KEY = "hf_biotune"
SCHEMA = 1
# Changing these continues the same search; anything else in SearchConfig makes another one.
_FREE = (
    "budget",
    "generations",
    "n_finalists",
    "keep_best",
    "max_failed_share",
    "prefix_cache",
    "prefix_cache_memory",
)
_ARGUMENTS = (
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "optim",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "label_smoothing_factor",
    "max_grad_norm",
    "bf16",
    "fp16",
)
# Named only if they are set: older studies, which go on without them, don't know them.
_NEWER_SWITCHES = ("prefer_cheap",)
# Named only if they are not what transformers presets: older studies don't know them.
_SELDOM_CHANGED = ("adam_beta1", "adam_beta2", "adam_epsilon", "optim_args", "lr_scheduler_kwargs")


def fingerprint_of_model(model: nn.Module) -> str:
    """16 hexadecimal digits of a model's weights and their names, on any device."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()[:16]


def identity_of(
    model: nn.Module,
    partition: Partition,
    train: EncodedSplit,
    validation: EncodedSplit,
    args: TrainingArguments,
    search: SearchConfig,
    team_size: int = 1,
) -> dict[str, Any]:
    """Everything that a trial's score depends on, as plain values.

    Args:
        model: the base model, as `model_init` makes it under one fixed seed.
        partition: its blocks.
        train: the training samples.
        validation: the samples that scores are measured on.
        args: of each training.
        search: of the evolution.
        team_size: processes that train together; batches are as many times as large.
    """
    chosen = {
        name: value
        for name, value in search.to_dict().items()
        if name not in _FREE and (value or name not in _NEWER_SWITCHES)
    }
    return {
        "schema": SCHEMA,
        "model": fingerprint_of_model(model),
        "partition": partition.key,
        "training data": train.fingerprint,
        "validation data": validation.fingerprint,
        **{name: _plain(getattr(args, name)) for name in _ARGUMENTS},
        **_changed(args),
        **{name: _plain(value) for name, value in chosen.items()},
        # Studies of one process are older than this.
        **({"processes of one training": team_size} if team_size > 1 else {}),
    }


def _changed(args: TrainingArguments) -> dict[str, Any]:
    presets = {field.name: _preset(field) for field in fields(args)}
    values = {name: getattr(args, name) for name in _SELDOM_CHANGED}
    return {
        name: _plain(value)
        for name, value in values.items()
        # An empty dict is as good as none.
        if value != presets[name] and (value or presets[name])
    }


def _preset(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def claim(study: optuna.Study, identity: Mapping[str, Any]) -> None:
    """Mark a new study with an identity, or check that an old one has the same.

    Raises:
        StudyMismatchError: the study is about something else, or of a newer schema; the message
            names each difference.
    """
    stored = study.user_attrs.get(IDENTITY_KEY)
    if stored is None:
        if study.trials:
            raise StudyMismatchError(
                f"the study {study.study_name!r} holds {len(study.trials)} trials that were not "
                f"made by biotune_search; give another output directory, storage or study name"
            )
        study.set_user_attr(IDENTITY_KEY, dict(identity))
        return
    if stored.get("schema", 0) > SCHEMA:
        raise StudyMismatchError(
            f"the study {study.study_name!r} has schema {stored['schema']}, this version of "
            f"hf_biotune reads up to {SCHEMA}; install a newer one"
        )
    if differences := differences_of(stored, identity):
        raise StudyMismatchError(
            f"the study {study.study_name!r} is about something else; it differs in "
            f"{'; '.join(differences)}. Give another output directory (in a storage of "
            f"several searches: another study name), or the same settings"
        )


def differences_of(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, a phrase for each name.

    Args:
        stored: JSON values by name.
        wanted: the same, of what is to go on with it.
    """
    return [
        f"{name} (there {stored.get(name)!r}, here {wanted.get(name)!r})"
        for name in sorted({*stored, *wanted})
        if stored.get(name) != wanted.get(name)
    ]


def _plain(value: Any) -> Any:
    """As JSON gives it back, so that a stored identity compares equal."""
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    return str(getattr(value, "value", value))
