"""`BioTuneModel`: a `PeftModel` whose adapter is a set of blocks, trained in place.

The whole Hugging Face ecosystem (Trainer, Accelerate, pipelines, the Hub) treats it as it treats
any PEFT adapter.
"""

from __future__ import annotations

import copy
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft.mapping
import torch
from peft import PeftConfig, PeftModel
from torch import nn

from .card import LIBRARY, adapter_body, is_repo_id, update_card
from .checkpoint import read_adapter, write_adapter
from .classification import labelled_output, takes_names
from .config import BIOTUNE, BioTuneConfig
from .exceptions import CheckpointError, ConfigError
from .hub import fetch_card, push_directory
from .tuner import BlockTuner


class BioTuneModel(PeftModel):  # type: ignore[misc]
    """A model some of whose blocks are trained, each at its own rate; the rest is frozen.

    Frozen means no gradient, no weight decay, no moving BatchNorm statistics, no dropout and no
    drop-path, whatever `train()` says. Made by [`get_biotune_model`] or
    [`~BioTuneModel.from_pretrained`].

    Args:
        model: the base model; trained in place.
        peft_config: which blocks are trained.
        adapter_name: default `"default"`.
        keep_base_weights: whether to keep a copy of the trained blocks as they are now (in main
            memory), which `disable_adapter`, `unload` and further adapters need. Default: `True`.
        autocast_adapter_dtype, low_cpu_mem_usage: taken for compatibility with `PeftModel`; blocks
            keep the base model's dtype and need no memory beside it.

    Raises:
        ConfigError: the configuration does not fit the model.
    """

    def __init__(
        self,
        model: nn.Module,
        peft_config: BioTuneConfig,
        adapter_name: str = "default",
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        *,
        keep_base_weights: bool = True,
    ) -> None:
        nn.Module.__init__(self)
        self.active_adapter = adapter_name
        self.peft_type = peft_config.peft_type
        self.special_peft_forward_args: set[str] = set()
        self._is_prompt_learning = False
        self._peft_config = None
        self._adapters_disabled = False
        self.base_model = BlockTuner(model, peft_config, adapter_name, keep_base_weights)
        # The fresh tuner is in train mode whatever the model was; go by the model.
        self.train(model.training)
        if _checkpoints_gradients(model):
            self.prepare_model_for_gradient_checkpointing(model)

    def forward(self, *args: Any, labels: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """The base model's forward pass, with the tuned blocks in place.

        With `labels`, a timm or torchvision model gives `{"loss": ..., "logits": ...}`, so that it
        trains with an unmodified `Trainer` as well (with `label_names=["labels"]`).
        """
        model = self.base_model.model
        if labels is None:
            return model(*args, **kwargs)
        if takes_names(model):
            return model(*args, labels=labels, **kwargs)
        return labelled_output(model, kwargs, labels)

    # -- adapters -------------------------------------------------------------------------------

    def add_adapter(
        self, adapter_name: str, peft_config: BioTuneConfig, *args: Any, **kwargs: Any
    ) -> None:
        """Add an adapter that starts from the base model's weights; it does not become active.

        Raises:
            ConfigError: the name is taken, the configuration is of another method or does not fit.
        """
        if not isinstance(peft_config, BioTuneConfig):
            raise ConfigError(
                f"a BioTuneModel takes BioTuneConfig adapters only, got "
                f"{type(peft_config).__name__}; wrap merge_and_unload()'s model for other methods"
            )
        if adapter_name in self.peft_config:
            raise ConfigError(f"an adapter named {adapter_name!r} exists already")
        self.base_model._require_base("a second adapter")
        if not self.base_model.enabled:
            raise ConfigError("add_adapter can't be called inside disable_adapter()")
        # The new adapter's base tensors must be kept as the base has them, not as tuned.
        self.base_model._take_out()
        try:
            self.base_model.register(adapter_name, peft_config)
        finally:
            self.base_model._put_in(self.active_adapter)

    def set_adapter(self, adapter_name: str, inference_mode: bool = False) -> None:
        """Swap the named adapter's blocks in; see [`BlockTuner.set_adapter`]."""
        self.base_model.set_adapter(adapter_name, inference_mode=inference_mode)
        self.active_adapter = self.base_model.active_adapter

    def delete_adapter(self, adapter_name: str) -> None:
        """Forget an adapter; see [`BlockTuner.delete_adapter`]."""
        self.base_model.delete_adapter(adapter_name)
        self.active_adapter = self.base_model.active_adapter

    def add_weighted_adapter(self, *args: Any, **kwargs: Any) -> None:
        """Not possible: averaging tuned blocks of several runs gives a poor model.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            "add_weighted_adapter is not possible with BioTune: averaged blocks of several runs "
            "make a poor model; average the probabilities of the models instead"
        )

    # -- saving and loading ---------------------------------------------------------------------

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
        unknown = [name for name in names if name not in self.peft_config]
        if unknown:
            raise ConfigError(
                f"no adapter is named {unknown[0]!r}; this model's adapters are: "
                f"{', '.join(self.peft_config)}"
            )
        if not is_main_process:
            return
        self.create_or_update_model_card(str(save_directory))
        for name in names:
            directory = Path(save_directory) / ("" if name == "default" else name)
            config = copy.copy(self.peft_config[name])
            config.inference_mode = True
            write_adapter(directory, self.biotune_state_dict(name, state_dict), config)
            config.save_pretrained(str(directory))

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
                files=("*",),
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
    ) -> BioTuneModel:
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
        config.inference_mode = not is_trainable
        if key_mapping is None:
            key_mapping = getattr(model, "_checkpoint_conversion_mapping", None)
        with _as_before_on_failure(model):
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
def _as_before_on_failure(model: nn.Module) -> Iterator[None]:
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
        raise


def _checkpoints_gradients(model: nn.Module) -> bool:
    """Whether gradient checkpointing is on; transformers 5 renamed the attribute."""
    for name in ("is_activation_checkpointing", "is_gradient_checkpointing"):
        if hasattr(type(model), name):
            return bool(getattr(model, name))
    return False


def get_biotune_model(
    model: nn.Module,
    config: BioTuneConfig,
    adapter_name: str = "default",
    *,
    keep_base_weights: bool = True,
) -> BioTuneModel:
    """Make a model train the configured blocks, each at its own rate, and nothing else.

    Args:
        model: any transformers, timm or torchvision model; it is trained in place.
        config: which blocks are trained.
        adapter_name: default `"default"`.
        keep_base_weights: whether to keep a copy of the blocks as they are now, in main memory.
            Without it `disable_adapter`, `unload` and further adapters are not possible.

    Returns:
        The wrapped model, for `Trainer` or any other loop.

    Raises:
        ConfigError: the configuration does not fit the model, or the model is wrapped already.

    Example:
        >>> import torch
        >>> from hf_biotune import BioTuneConfig, get_biotune_model
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2))
        >>> config = BioTuneConfig(blocks={"body": "0", "head": "1"}, lr_multipliers={"head": 1.0})
        >>> get_biotune_model(model, config).get_nb_trainable_parameters()
        (10, 30)
    """
    if isinstance(model, PeftModel) or hasattr(model, "peft_config"):
        raise ConfigError(
            "the model holds an adapter already; call merge_and_unload() or unload() on it first, "
            "or add_adapter() for a second BioTune adapter"
        )
    if not isinstance(config, BioTuneConfig):
        raise ConfigError(f"config must be a BioTuneConfig, got {type(config).__name__}")
    if getattr(model, "is_quantized", False):
        raise ConfigError(
            "a quantised base model can't be trained in place; load it without quantisation, or "
            "use LoRA"
        )
    if config.base_model_name_or_path is None:
        config.base_model_name_or_path = getattr(model, "name_or_path", None) or None
    asked_for = config.saved_blocks is not None
    wrapped = BioTuneModel(model, config, adapter_name, keep_base_weights=keep_base_weights)
    if not asked_for:
        _warn_if_fresh_head_is_frozen(config)
    return wrapped


def _warn_if_fresh_head_is_frozen(config: BioTuneConfig) -> None:
    """A search may find that a frozen random head wins; a person who froze it likely forgot it."""
    if config.saved_blocks and config.genotype is None:
        head = config.saved_blocks[-1]
        warnings.warn(
            f"{head!r} is frozen but looks freshly initialised (its biases are all zero); add it "
            f"to lr_multipliers, for example {head!r}: 1.0, or to saved_blocks if this is meant",
            stacklevel=3,
        )


def register_with_peft() -> None:
    """Let PEFT know `peft_type: BIOTUNE`, so that its own loaders open our checkpoints."""
    peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[BIOTUNE] = BioTuneConfig
    peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[BIOTUNE] = BlockTuner
    peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING[BIOTUNE] = BlockTuner.prefix


register_with_peft()
__all__ = ["BioTuneModel", "PeftConfig", "get_biotune_model", "register_with_peft"]
