"""`BioTuneModel`: a `PeftModel` whose adapter is a set of blocks, trained in place.

The whole Hugging Face ecosystem (Trainer, Accelerate, pipelines, the Hub) treats it as it treats
any PEFT adapter.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from .adapter_files import AdapterFiles
from .classification import labelled_output, logits_of, takes_keywords, takes_names
from .config import BioTuneConfig
from .exceptions import ConfigError
from .recompute import enable_recomputation, let_inputs_require_grad
from .registration import register_classes
from .tuner import BlockTuner


class BioTuneModel(AdapterFiles):
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
        self.base_model = BlockTuner(
            model, peft_config, adapter_name, keep_base_weights, inject=False
        )
        # Of the loss that models without one of their own get; `Trainer` can't smooth theirs.
        self.label_smoothing = 0.0
        # The fresh tuner is in train mode whatever the model was; go by the model.
        self.train(model.training)
        let_inputs_require_grad(model)

    def forward(
        self,
        *args: Any,
        labels: torch.Tensor | None = None,
        adapter_names: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base model's forward pass, with the tuned blocks in place.

        With `labels`, a timm or torchvision model gives `{"loss": ..., "logits": ...}`, so that it
        trains with an unmodified `Trainer` as well (with `label_names=["labels"]`). Without, and
        called by names that it doesn't know (`pixel_values`), it gives `{"logits": ...}`.

        Raises:
            ConfigError: `adapter_names` is given, or labels of a timm or torchvision model that are
                no classes; see [`labelled_output`].
        """
        _refuse_mixed_batch(adapter_names)
        model = self.base_model.model
        if labels is None and (args or takes_names(model) or takes_keywords(model, kwargs)):
            return model(*args, **kwargs)
        if labels is None:  # Trainer.predict on unlabelled samples
            return {"logits": logits_of(model, kwargs)}
        if takes_names(model):
            return model(*args, labels=labels, **kwargs)
        return labelled_output(model, args, kwargs, labels, self.label_smoothing)

    def generate(
        self, *args: Any, adapter_names: Sequence[str] | None = None, **kwargs: Any
    ) -> Any:
        """The base model's `generate`, with the tuned blocks in place.

        Raises:
            ConfigError: `adapter_names` is given.
        """
        _refuse_mixed_batch(adapter_names)
        model: Any = self.base_model.model
        return model.generate(*args, **kwargs)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Turn gradient checkpointing on; see [`enable_recomputation`]."""
        enable_recomputation(self.base_model.model, activation_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """The same under its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

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
        self.base_model.weights.require_base("a second adapter")
        if not self.base_model.enabled:
            raise ConfigError("add_adapter can't be called inside disable_adapter()")
        # The new adapter's base tensors must be kept as the base has them, not as tuned.
        self.base_model.take_out()
        try:
            self.base_model.register(adapter_name, peft_config)
        finally:
            self.base_model.weights.put_in(self.active_adapter)

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


def _refuse_mixed_batch(adapter_names: Sequence[str] | None) -> None:
    if adapter_names is not None:
        raise ConfigError(
            f"adapter_names={list(adapter_names)[:5]}: samples of one batch can't go through "
            f"different adapters, since BioTune's are the model's own weights; call set_adapter() "
            f"and run one batch per adapter"
        )


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
    # A configuration may be used for several models, and may come from an adapter's own file.
    config = copy.deepcopy(config)
    config.inference_mode = False
    if own_name := getattr(model, "name_or_path", None):
        config.base_model_name_or_path = own_name
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
            f"{head!r} is frozen but looks freshly initialised: its classifier is as libraries "
            f"make it; add it to lr_multipliers, for example {head!r}: 1.0, or to saved_blocks if "
            f"this is meant",
            stacklevel=3,
        )


register_classes(BioTuneConfig, BlockTuner, BioTuneModel)
