"""Pre-trained models by name, from the Hub or a local directory, with a head for the labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
from transformers.utils import logging

from ..exceptions import ConfigError


def load_image_processor(model: str, **hub_kwargs: Any) -> Any:
    """The image processor that belongs to a model.

    Args:
        model: a repository on the Hub or a local directory.
        hub_kwargs: `revision`, `token`, ... of `from_pretrained`.

    Raises:
        ConfigError: there is no such model, or it has no image processor.
    """
    try:
        return AutoImageProcessor.from_pretrained(model, **hub_kwargs)
    except (OSError, ValueError) as error:
        raise _unknown(model, "image processor", error) from error


def image_classifier(
    model: str, label_names: Sequence[str], **hub_kwargs: Any
) -> Callable[[], nn.Module]:
    """A `model_init` for a pre-trained image classifier with a head for these labels.

    A head that does not fit is replaced by a freshly initialised one.

    Args:
        model: a repository on the Hub or a local directory.
        label_names: of the classes, in the order of their numbers.
        hub_kwargs: `revision`, `token`, ... of `from_pretrained`.

    Returns:
        A function without arguments that makes the model, as `Trainer` and `biotune_search` want.

    Raises:
        ConfigError: there is no such model, or it is no image classifier.
    """
    id2label = dict(enumerate(label_names))
    label2id = {name: number for number, name in id2label.items()}
    try:
        config = AutoConfig.from_pretrained(model, **hub_kwargs)
    except (OSError, ValueError) as error:
        raise _unknown(model, "model", error) from error
    if type(config) not in AutoModelForImageClassification._model_mapping:
        raise ConfigError(
            f"{model!r} is a {config.model_type!r}, which has no image classification model"
        )

    def model_init() -> nn.Module:
        # Says in red that the head is new, which is what was asked for.
        verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            loaded: nn.Module = AutoModelForImageClassification.from_pretrained(
                model,
                num_labels=len(id2label),
                id2label=id2label,
                label2id=label2id,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                **hub_kwargs,
            )
        finally:
            logging.set_verbosity(verbosity)
            if progress:
                logging.enable_progress_bar()
        return loaded

    return model_init


def _unknown(model: str, what: str, error: Exception) -> ConfigError:
    if os.path.isdir(model):
        return ConfigError(f"no {what} in the directory {model!r}: {error}")
    return ConfigError(
        f"no {what} {model!r}: it is neither a local directory nor a repository that the Hub "
        f"gives: {str(error).splitlines()[0]}"
    )


def architecture(model: str) -> nn.Module:
    """A model's architecture, without its weights, to look at its blocks.

    Args:
        model: a repository on the Hub, a local directory, `timm:NAME` or `torchvision:NAME`.

    Returns:
        The model on the meta device: it takes no memory.

    Raises:
        ConfigError: there is no such model.
    """
    library, _, name = model.partition(":")
    with torch.device("meta"):
        if library == "timm" and name:
            import timm

            if not timm.is_model(name):
                raise ConfigError(f"timm has no model {name!r}; timm.list_models() lists them")
            created: nn.Module = timm.create_model(name)
            return created
        if library == "torchvision" and name:
            import torchvision

            if name not in torchvision.models.list_models():
                raise ConfigError(f"torchvision has no model {name!r}")
            made: nn.Module = torchvision.models.get_model(name, weights=None)
            return made
        return _from_config(model)


def _from_config(model: str) -> nn.Module:
    from transformers import AutoModel, AutoModelForSequenceClassification

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise _unknown(model, "model", error) from error
    for auto in (AutoModelForImageClassification, AutoModelForSequenceClassification, AutoModel):
        if type(config) in auto._model_mapping:
            made: nn.Module = auto.from_config(config)
            return made
    raise ConfigError(f"{model!r} is a {config.model_type!r}, which transformers has no model for")
