"""Forms of a tuned model that people read who have never heard of us.

- PEFT: an adapter of stock PEFT that replaces whole modules (`modules_to_save`) and adds no layer;
- axolotl: the list of parameters that a full fine-tuning by axolotl leaves unfrozen;
- merged: the plain transformers model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel

from .checkpoint import write_adapter
from .exceptions import CheckpointError, ConfigError

if TYPE_CHECKING:
    from .adapter_files import AdapterFiles

FORMATS = ("peft", "axolotl", "merged")
AXOLOTL_NAME = "axolotl.yaml"
# What `LoraConfig` takes for "no layer at all" when `modules_to_save` is given.
_NO_TARGET = "dummy-target-modules"
# Modules that PEFT's own classes for a task save whatever the configuration says.
_SAVED_BY_TASK = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
_ALTERNATIVE = "save the whole model instead: merge_and_unload().save_pretrained(directory)"


def export_model(
    model: AdapterFiles, directory: str | os.PathLike[str], format: str, adapter_name: str
) -> Path:
    """Write an adapter in a form that others read; see [`BioTuneModel.export`].

    Returns:
        The directory, or the one file that was written.
    """
    if format not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(map(repr, FORMATS))}, got {format!r}")
    if os.path.isfile(directory):
        raise CheckpointError(f"directory must be a directory, {directory} is a file")
    writer = {"peft": _write_peft, "axolotl": _write_axolotl, "merged": _write_merged}[format]
    return writer(model, Path(directory), adapter_name)


# -- stock PEFT -----------------------------------------------------------------------------------


def _write_peft(model: AdapterFiles, directory: Path, adapter_name: str) -> Path:
    config = model.peft_config[adapter_name]
    if (directory / "config.json").exists():
        raise CheckpointError(
            f"{directory} holds a whole model (config.json), which loaders would take instead of "
            f"the adapter; choose another directory"
        )
    base = model.get_base_model()
    modules = modules_to_save(base, _saved_parts(model, adapter_name))
    for name in _SAVED_BY_TASK.get(config.task_type or "", ()):
        modules += [m for m, _ in base.named_modules() if m.endswith(name) and m not in modules]
    # What the task adds stays as the base model has it, whatever adapter is in place.
    plain = {**base.state_dict(), **model.base_model.base_tensors()}
    values = {**plain, **model.base_model.adapter_tensors(adapter_name)}
    prefixes = tuple(f"{module}." for module in modules)
    write_adapter(directory, {n: v for n, v in values.items() if n.startswith(prefixes)}, config)
    stock = LoraConfig(
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        inference_mode=True,
        target_modules=_NO_TARGET,
        modules_to_save=modules,
    )
    stock.save_pretrained(str(directory), auto_mapping_dict=auto_mapping(base))
    return directory


def auto_mapping(base: nn.Module) -> dict[str, str] | None:
    """What `AutoPeftModel` finds the base model's class by; `None` if that is not transformers'."""
    if not type(base).__module__.startswith("transformers."):
        return None
    return {"base_model_class": type(base).__name__, "parent_library": type(base).__module__}


def modules_to_save(base: nn.Module, parts: list[str]) -> list[str]:
    """The modules that stock PEFT has to replace to hold the given modules and parameters.

    PEFT replaces every module whose name *ends* with an entry of the list, and can't replace a
    `ModuleList`, which nothing calls. So lists are taken apart, and what remains ambiguous fails.

    Args:
        base: the base model.
        parts: names of modules and parameters that must be saved.

    Returns:
        Module names, each of which ends the name of one module only.

    Raises:
        CheckpointError: that form can't hold them: a parameter outside of any of the modules, an
            ambiguous name, or a tied tensor.
    """
    every = [name for name, _ in base.named_modules(remove_duplicate=False)]
    every += ["base_model", "base_model.model"]  # in which PEFT's classes for a task look too
    found = []
    for part in parts:
        try:
            module = base.get_submodule(part)
        except AttributeError:
            raise CheckpointError(
                f"stock PEFT replaces whole modules and can't hold the single parameter {part!r}; "
                f"{_ALTERNATIVE}"
            ) from None
        found += list(_replaceable(part, module, every))
    _check_untied(base, found)
    return found


def _replaceable(name: str, module: nn.Module, every: list[str]) -> Iterator[str]:
    if not module.state_dict():
        return
    clashes = [other for other in every if other.endswith(name) and other != name]
    is_list = isinstance(module, (nn.ModuleList, nn.ModuleDict))
    if not clashes and not is_list:
        yield name
    elif is_list or isinstance(module, nn.Sequential):
        for child_name, child in module.named_children():
            yield from _replaceable(f"{name}.{child_name}", child, every)
    else:
        raise CheckpointError(
            f"stock PEFT finds modules by how their names end, so {name!r} would also replace "
            f"{clashes[0]!r}; {_ALTERNATIVE}"
        )


def _check_untied(base: nn.Module, modules: list[str]) -> None:
    names: dict[int, list[str]] = {}
    for name, parameter in base.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for tied in names.values():
        if len(tied) > 1 and any(name.startswith(f"{m}.") for name in tied for m in modules):
            raise CheckpointError(
                f"{' and '.join(tied)} are one tied tensor, which stock PEFT would take apart; "
                f"{_ALTERNATIVE}"
            )


def _saved_parts(model: AdapterFiles, adapter_name: str) -> list[str]:
    config = model.peft_config[adapter_name]
    patterns = model.base_model.partitions[adapter_name].to_patterns()
    saved = {*config.lr_multipliers, *(config.saved_blocks or ())}
    return [part for block, parts in patterns.items() if block in saved for part in parts]


# -- axolotl --------------------------------------------------------------------------------------


def _write_axolotl(model: AdapterFiles, directory: Path, adapter_name: str) -> Path:
    config = model.peft_config[adapter_name]
    blocks = model.base_model.partitions[adapter_name]
    rates = ", ".join(f"{block} {rate:g}" for block, rate in config.lr_multipliers.items())
    lines = [
        "# The blocks that BioTune trains, for the configuration of a full fine-tuning by axolotl.",
        f"# It has one learning rate for all; BioTune's multipliers: {json.dumps(rates)[1:-1]}",
        "unfrozen_parameters:",
        *(
            f"  - {json.dumps(pattern)}"
            for block in blocks
            if block.name in config.lr_multipliers
            for pattern in unfrozen_patterns(block.modules, block.parameters)
        ),
    ]
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / AXOLOTL_NAME
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def unfrozen_patterns(modules: tuple[str, ...], parameters: tuple[str, ...]) -> list[str]:
    """Patterns as axolotl takes them for the parameters of a block.

    They are regular expressions matched at the start of a name, in which a dot means a dot.

    Example:
        >>> unfrozen_patterns(("model.layers.3",), ("model.layers.3.mlp.weight", "scale"))
        ['^model.layers.3.', '^scale$']
    """
    patterns = [
        f"^{module}."
        for module in modules
        if any(name.startswith(f"{module}.") for name in parameters)
    ]
    covered = tuple(f"{module}." for module in modules)
    return patterns + [f"^{name}$" for name in parameters if not name.startswith(covered)]


# -- merged ---------------------------------------------------------------------------------------


def _write_merged(model: AdapterFiles, directory: Path, adapter_name: str) -> Path:
    base = model.get_base_model()
    if not isinstance(base, PreTrainedModel):
        raise CheckpointError(
            f"{type(base).__name__} is not a transformers model and has no file format of its own; "
            f"write merge_and_unload().state_dict() with safetensors.torch.save_model"
        )
    if adapter_name != model.active_adapter or not model.base_model.enabled:
        raise ConfigError(
            f"only the active adapter can be merged, and {adapter_name!r} is not in place; call "
            f"set_adapter({adapter_name!r}) first"
        )
    base.save_pretrained(directory)
    return directory
