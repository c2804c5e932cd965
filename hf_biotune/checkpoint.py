"""The adapter file: the tensors of the trained blocks, in safetensors, and nothing else.

A file from a stranger can at worst raise [`CheckpointError`]: everything is checked before the
first weight of the model is touched, and no pickle is ever opened.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .config import BioTuneConfig
from .exceptions import CheckpointError

WEIGHTS_NAME = "adapter_model.safetensors"
# The layout of every PEFT adapter file.
KEY_PREFIX = "base_model.model."
HEADER_KEY = "hf_biotune"


def write_adapter(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, torch.Tensor],
    config: BioTuneConfig,
) -> Path:
    """Write an adapter's weights; an older file stays whole until the new one is complete.

    Args:
        directory: where to; made if needed.
        tensors: `{tensor name in the base model: value}`.
        config: the adapter's configuration; its blocks and rates go into the file's header.

    Returns:
        The path of the file.
    """
    path = Path(directory) / WEIGHTS_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "lr_multipliers": config.lr_multipliers,
        "norm_statistics": config.norm_statistics,
    }
    unfinished = path.with_suffix(".unfinished")
    try:
        save_file(
            # A clone each: tied weights share storage, which safetensors refuses.
            {
                KEY_PREFIX + name: tensor.detach().cpu().contiguous().clone()
                for name, tensor in tensors.items()
            },
            unfinished,
            metadata={"format": "pt", HEADER_KEY: json.dumps(header)},
        )
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def read_adapter(
    model_id: str | os.PathLike[str],
    expected: Mapping[str, torch.Tensor],
    *,
    subfolder: str | None = None,
    device: str | torch.device = "cpu",
    key_mapping: Mapping[str, str] | None = None,
    **hub_kwargs: Any,
) -> dict[str, torch.Tensor]:
    """Read an adapter's weights and check that they are those of the declared blocks.

    Args:
        model_id: a local directory, or a repository on the Hub.
        expected: `{tensor name in the base model: a tensor of its shape and dtype}`.
        subfolder: where in the directory or repository.
        device: where the tensors are put.
        key_mapping: `{regular expression: replacement}` applied to the names in the file first, as
            in [`~peft.PeftModel.from_pretrained`].
        hub_kwargs: `revision`, `token`, `cache_dir`, ... of `hf_hub_download`.

    Returns:
        `{tensor name: value}`, with exactly the names, shapes and dtypes of `expected`.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it holds other tensors.
    """
    path = locate(model_id, WEIGHTS_NAME, subfolder=subfolder, **hub_kwargs)
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            names = {_base_name(key, key_mapping): key for key in file.keys()}  # noqa: SIM118
            _check_names(path, names, expected)
            tensors = {}
            for name, key in names.items():
                _check_shape(path, name, file.get_slice(key).get_shape(), expected[name])
                tensors[name] = file.get_tensor(key)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path} can't be read as safetensors: {error}; it may be truncated, download or save "
            f"it again"
        ) from error
    return {name: _cast(path, name, value, expected[name]) for name, value in tensors.items()}


def locate(
    model_id: str | os.PathLike[str],
    filename: str,
    *,
    subfolder: str | None = None,
    **hub_kwargs: Any,
) -> str:
    """The local path of a checkpoint's file, downloaded from the Hub if it isn't a local directory.

    Raises:
        CheckpointError: there is no such directory or repository, or no such file in it, or
            `subfolder` leads out of it.
    """
    if subfolder is not None:
        parts = PurePosixPath(subfolder.replace("\\", "/")).parts
        if os.path.isabs(subfolder) or ".." in parts or "\0" in subfolder:
            raise CheckpointError(
                f"subfolder must lie inside of the checkpoint, got {subfolder!r}; name it relative "
                f"to the checkpoint and without '..'"
            )
    directory = Path(model_id)
    if directory.is_dir():
        path = directory / (subfolder or "") / filename
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in path.parent.glob("*"))[:10]) or "nothing"
            raise CheckpointError(f"no {filename} in {path.parent}; found there: {there}")
        return str(path)
    try:
        downloaded: str = hf_hub_download(
            str(model_id), filename, subfolder=subfolder, **hub_kwargs
        )
        return downloaded
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"no adapter at {str(model_id)!r}: it is not a local directory, and the Hub answered: "
            f"{error}"
        ) from error


def _base_name(key: str, key_mapping: Mapping[str, str] | None) -> str:
    name = key.removeprefix(KEY_PREFIX)
    for pattern, replacement in (key_mapping or {}).items():
        name, found = re.subn(pattern, replacement, name)
        if found:
            break
    return name


def _check_names(path: str, names: Mapping[str, str], expected: Mapping[str, torch.Tensor]) -> None:
    missing = sorted(set(expected) - set(names))
    unexpected = sorted(set(names) - set(expected))
    if missing or unexpected:
        raise CheckpointError(
            f"{path} holds other tensors than this adapter's blocks: missing "
            f"{_shortened(missing)}, unexpected {_shortened(unexpected)}; load it with "
            f"BioTuneModel.from_pretrained on its own base model, or give this adapter the "
            f"checkpoint's lr_multipliers"
        )


def _check_shape(path: str, name: str, shape: list[int], expected: torch.Tensor) -> None:
    if list(shape) != list(expected.shape):
        raise CheckpointError(
            f"{path}: {name} has shape {list(shape)}, but the base model's is "
            f"{list(expected.shape)}; is it the same base model with the same number of labels?"
        )


def _cast(path: str, name: str, value: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    if value.is_floating_point() != expected.is_floating_point():
        raise CheckpointError(f"{path}: {name} has dtype {value.dtype}, expected {expected.dtype}")
    return value.to(expected.dtype)


def _shortened(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
