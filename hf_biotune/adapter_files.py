"""`AdapterFiles`: what a `BioTuneModel` writes to and reads from directories and the Hub."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from torch import nn

from .card import LIBRARY, adapter_body, is_repo_id, update_card
from .checkpoint import read_adapter, write_adapter
from .config import BioTuneConfig
from .exceptions import CheckpointError, ConfigError
from .export import auto_mapping, export_model
from .hub import fetch_card, push_directory
from .norm_statistics import remove_averages
from .untrusted import shown

if TYPE_CHECKING:
    from typing_extensions import Self


class AdapterFiles(PeftModel):  # type: ignore[misc]
    """The saving and loading half of [`BioTuneModel`]."""

    def biotune_state_dict(
        self, adapter_name: str | None = None, state_dict: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """The tensors of an adapter's blocks, by their names in the base model.

        Args:
            adapter_name: default: the active adapter.
            state_dict: a state dict of the whole wrapped model to take them from, such as the
                gathered one of a sharded model. Default: the model's own.
        """
        adapter_name = adapter_name or self.active_adapter
        if state_dict is None or adapter_name != self.active_adapter:
            tensors: dict[str, torch.Tensor] = self.base_model.adapter_tensors(adapter_name)
            return tensors
        names = self.base_model.tensor_names(adapter_name)
        return {name: state_dict["base_model.model." + name] for name in names}

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        safe_serialization: bool = True,
        selected_adapters: list[str] | None = None,
        save_embedding_layers: bool | str = "auto",
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save the trained blocks and their configuration, nothing else.

        Args:
            save_directory: made if needed. An adapter that is not named `"default"` goes into a
                sub-directory of its name, as in PEFT.
            safe_serialization: must be `True`; pickle is not written.
            selected_adapters: default: all.
            save_embedding_layers: taken for compatibility; embeddings are saved if trained.
            is_main_process: whether to write at all.
            state_dict: see [`~BioTuneModel.biotune_state_dict`].

        Raises:
            ConfigError: `safe_serialization=False`, or an unknown adapter is selected.
            CheckpointError: `save_directory` is a file.
        """
        if not safe_serialization:
            raise ConfigError("safe_serialization must be True: only safetensors are written")
        if os.path.isfile(save_directory):
            raise CheckpointError(f"save_directory must be a directory, {save_directory} is a file")
        names = list(self.peft_config) if selected_adapters is None else selected_adapters
        self._check_known(*names)
        if not is_main_process:
            return
        self.create_or_update_model_card(str(save_directory))
        for name in names:
            directory = Path(save_directory) / ("" if name == "default" else name)
            config = copy.copy(self.peft_config[name])
            config.inference_mode = True
            write_adapter(directory, self.biotune_state_dict(name, state_dict), config)
            mapping = None if config.task_type else auto_mapping(self.get_base_model())
            config.save_pretrained(str(directory), auto_mapping_dict=mapping)

    def export(
        self,
        directory: str | os.PathLike[str],
        format: str = "peft",
        adapter_name: str | None = None,
    ) -> Path:
        """Write an adapter in a form that others read, without hf_biotune.

        Args:
            directory: made if needed.
            format:

                - `"peft"` (default): an adapter for stock PEFT, which replaces whole modules. Rates
                  and genotype are not in it.
                - `"axolotl"`: `axolotl.yaml` with the list `unfrozen_parameters`.
                - `"merged"`: the whole model, as `merge_and_unload().save_pretrained` writes it.
            adapter_name: default: the active adapter.

        Returns:
            The directory, or the one file that was written.

        Raises:
            CheckpointError: the form can't hold the model; the message names the alternative.
            ConfigError: an unknown format or adapter.

        Example:
            ```python
            model.export("for-peft")
            PeftModel.from_pretrained(base_model, "for-peft")  # without hf_biotune
            ```
        """
        adapter_name = adapter_name or self.active_adapter
        self._check_known(adapter_name)
        return export_model(self, directory, format, adapter_name)

    def _check_same_blocks(
        self, model_id: str | os.PathLike[str], adapter_name: str, hub_kwargs: Mapping[str, Any]
    ) -> None:
        """Say it in blocks, where the file's tensors would say it in hundreds of names."""
        theirs = BioTuneConfig.from_pretrained(model_id, **hub_kwargs).lr_multipliers
        ours = self.peft_config[adapter_name].lr_multipliers
        if set(theirs) != set(ours):
            raise CheckpointError(
                f"{shown(str(model_id))} trains the blocks {shown(list(theirs))}, but adapter "
                f"{adapter_name!r} the blocks {shown(sorted(ours))}; go on with the checkpoint's "
                f"lr_multipliers, or load it under another adapter_name"
            )

    def _check_known(self, *adapter_names: str) -> None:
        for name in adapter_names:
            if name not in self.peft_config:
                raise ConfigError(
                    f"no adapter is named {name!r}; this model's adapters are: "
                    f"{', '.join(self.peft_config)}"
                )

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload BioTune adapter",
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **kwargs: Any,
    ) -> str:
        """Upload what `save_pretrained` writes, in one commit.

        The text that people wrote into the repository's card is kept.

        Args:
            repo_id: `"user/name"`; the repository is made if needed.
            commit_message, commit_description, private, token, revision, create_pr: see
                [`push_directory`].
            kwargs: of [`~BioTuneModel.save_pretrained`].

        Returns:
            The address of the commit.

        Raises:
            CheckpointError: the Hub can't be reached, or refuses.
        """
        kwargs.pop("max_shard_size", None)  # of transformers' own push_to_hub; this file is one
        with tempfile.TemporaryDirectory() as directory:
            fetch_card(repo_id, Path(directory), token=token, revision=revision)
            self.save_pretrained(directory, **kwargs)
            return push_directory(
                directory,
                repo_id,
                files=("*", "*/*"),
                commit_message=commit_message,
                commit_description=commit_description,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )

    @classmethod
    def from_pretrained(
        cls,
        model: nn.Module,
        model_id: str | os.PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        config: BioTuneConfig | None = None,
        key_mapping: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Put a saved adapter's blocks into their base model.

        Args:
            model: the base model; changed in place. If anything is wrong it stays as it is.
            model_id: a local directory, or a repository on the Hub.
            adapter_name: default `"default"`.
            is_trainable: whether the blocks can be trained further.
            config: instead of the one in the checkpoint.
            key_mapping: see [`read_adapter`]; default: the base model's own.
            kwargs: `subfolder`, `torch_device`, the arguments of `hf_hub_download` such as
                `revision`, and for compatibility those of `PeftModel.from_pretrained`.

        Raises:
            CheckpointError: the checkpoint can't be read, or does not fit the base model.
            ConfigError: its configuration is of another method, not valid, or does not fit.
        """
        hub_kwargs, _ = cls._split_kwargs(kwargs)
        if config is None:
            config = BioTuneConfig.from_pretrained(model_id, **hub_kwargs)
        elif not isinstance(config, BioTuneConfig):
            raise ConfigError(f"config must be a BioTuneConfig, got {type(config).__name__}")
        config = copy.deepcopy(config)
        config.inference_mode = not is_trainable
        if key_mapping is None:
            key_mapping = getattr(model, "_checkpoint_conversion_mapping", None)
        with as_before_on_failure(model):
            wrapped = cls(model, config, adapter_name)
            wrapped.load_adapter(
                model_id, adapter_name, is_trainable, key_mapping=key_mapping, **kwargs
            )
        return wrapped

    def load_adapter(
        self,
        model_id: str | os.PathLike[str],
        adapter_name: str = "default",
        is_trainable: bool = False,
        torch_device: str | None = None,
        key_mapping: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Load an adapter's weights; a new adapter does not become active.

        Args:
            model_id: a local directory, or a repository on the Hub.
            adapter_name: an existing adapter's weights are replaced, if the checkpoint holds the
                same blocks.
            is_trainable: whether the adapter can be trained further. Default: `False`, which also
                puts the model in eval mode, as in PEFT.
            torch_device: where the file's tensors are read to first.
            key_mapping: see [`read_adapter`].
            kwargs: `subfolder` and the arguments of `hf_hub_download`, such as `revision`.

        Returns:
            Missing and unexpected keys, as `load_state_dict` gives them: both empty.

        Raises:
            CheckpointError: the checkpoint can't be read or holds other blocks; the model's weights
                are as before then.
        """
        hub_kwargs, _ = self._split_kwargs(kwargs)
        is_new = adapter_name not in self.peft_config
        if is_new:
            config = BioTuneConfig.from_pretrained(model_id, **hub_kwargs)
            config.inference_mode = not is_trainable
            self.add_adapter(adapter_name, config)
        else:
            self._check_same_blocks(model_id, adapter_name, hub_kwargs)
        try:
            tensors = read_adapter(
                model_id,
                self.base_model.adapter_tensors(adapter_name),
                device=torch_device or "cpu",
                key_mapping=key_mapping,
                **hub_kwargs,
            )
        except CheckpointError:
            if is_new:
                self.base_model.delete_adapter(adapter_name)
            raise
        self.base_model.store(adapter_name, tensors)
        if not is_trainable:
            self.eval()
        return nn.modules.module._IncompatibleKeys([], [])

    def create_or_update_model_card(self, output_dir: str) -> None:
        """Write `README.md` with the blocks and rates, or renew that part of the one there.

        What else stands in it is kept; a card without that part gets our tags only.
        """
        config: BioTuneConfig = self.active_peft_config
        metadata: dict[str, Any] = {"library_name": LIBRARY}
        if is_repo_id(config.base_model_name_or_path):
            metadata["base_model"] = config.base_model_name_or_path
        body = adapter_body(
            config.base_model_name_or_path,
            self.base_model.partitions[self.active_adapter],
            config.lr_multipliers,
        )
        update_card(output_dir, body, metadata, add_section=False)


@contextmanager
def as_before_on_failure(model: nn.Module) -> Iterator[None]:
    """Undo what wrapping does to a model, if loading its weights then fails."""
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = [(module, module.training) for module in model.modules()]
    had_config = "peft_config" in model.__dict__
    try:
        yield
    except BaseException:
        for parameter, value in trainable:
            parameter.requires_grad_(value)
        for module, value in training:
            module.training = value
        if not had_config:
            model.__dict__.pop("peft_config", None)
            remove_averages(model)
        raise
