"""The adapter file: the tensors of the trained blocks, in safetensors, and nothing else.

A file from a stranger can at worst raise [`CheckpointError`]: everything is checked before the
first weight of the model is touched, and no pickle is ever opened.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .config import BioTuneConfig
from .exceptions import CheckpointError
from .hub import locate
from .untrusted import MAX_NAME_LENGTH, shown

WEIGHTS_NAME = "adapter_model.safetensors"
# The layout of every PEFT adapter file.
KEY_PREFIX = "base_model.model."
HEADER_KEY = "hf_biotune"
# Twice what names of the greatest length and the configuration of a model of 1,000 blocks take.
_HEADER_BYTES = 1024 * 1024
_HEADER_BYTES_PER_TENSOR = 2048


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
        _check_header(path, len(expected))
        with safe_open(path, framework="pt", device=str(device)) as file:
            names = _base_names(path, file.keys(), key_mapping)
            _check_names(path, names, expected)
            # Every shape before the first value: a file that lies costs no memory.
            for name, key in names.items():
                _check_shape(path, name, file.get_slice(key).get_shape(), expected[name])
            tensors = {name: file.get_tensor(key) for name, key in names.items()}
        return {name: _cast(path, name, value, expected[name]) for name, value in tensors.items()}
    except CheckpointError:
        raise
    # What safetensors raises for a dtype that torch lacks is an AttributeError or a KeyError.
    except (SafetensorError, OSError, RuntimeError, ValueError, LookupError, AttributeError) as e:
        raise CheckpointError(
            f"{path} can't be read as safetensors: {str(e)[:300]}; it is damaged, or was not "
            f"written by hf_biotune: download or save it again"
        ) from e


def _check_header(path: str, n_tensors: int) -> None:
    """The header is parsed whole before any name can be checked: one of absurd size must not be."""
    most = _HEADER_BYTES + _HEADER_BYTES_PER_TENSOR * n_tensors
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        announced = int.from_bytes(file.read(8), "little")
    if announced > min(size - 8, most):
        raise CheckpointError(
            f"{path} can't be read as safetensors: it announces a header of {announced:,} bytes, "
            f"but holds {size:,} and may have a header of {most:,}; it is damaged, or was not "
            f"written by hf_biotune: download or save it again"
        )


def _base_names(
    path: str, keys: Sequence[str], key_mapping: Mapping[str, str] | None
) -> dict[str, str]:
    """`{tensor name in the base model: name in the file}`."""
    names: dict[str, str] = {}
    for key in keys:
        # A user's regular expression meets no name that is longer than those it was written for.
        if len(key) > MAX_NAME_LENGTH:
            raise CheckpointError(
                f"{path}: a tensor's name may have {MAX_NAME_LENGTH} characters, got {shown(key)}"
            )
        name = _base_name(key, key_mapping)
        if name in names:
            raise CheckpointError(
                f"{path}: both {shown(names[name])} and {shown(key)} are {shown(name)} in the base "
                f"model; drop one, or change key_mapping"
            )
        names[name] = key
    return names


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
    both_floating = value.is_floating_point() and expected.is_floating_point()
    if value.dtype != expected.dtype and not both_floating:
        raise CheckpointError(
            f"{path}: {name} has dtype {value.dtype}, but the base model's is {expected.dtype}; "
            f"save the adapter again, from this base model"
        )
    return value.to(expected.dtype)


def _shortened(names: list[str]) -> str:
    if not names:
        return "none"
    return ", ".join(map(shown, names[:3])) + (
        f" and {len(names) - 3} more" if len(names) > 3 else ""
    )
