"""Pre-trained models by name, from the Hub or a local directory, with a head for the labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import logging

from ..exceptions import ConfigError

# What transformers calls the pipelines of both tasks.
IMAGE_TASK, TEXT_TASK = "image-classification", "text-classification"
AUTO_CLASSES = {
    IMAGE_TASK: AutoModelForImageClassification,
    TEXT_TASK: AutoModelForSequenceClassification,
}

# Their first position is the one after that of padding; those before are never used.
_COUNT_FROM_PADDING = frozenset(
    (
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    )
)


def task_of(model: str, **hub_kwargs: Any) -> str:
    """Whether a model classifies images or texts.

    Args:
        model: a repository on the Hub or a local directory.
        hub_kwargs: `revision`, `token`, ... of `from_pretrained`.

    Returns:
        `"image-classification"` or `"text-classification"`; the first for the few that can do both.

    Raises:
        ConfigError: there is no such model, or it classifies neither.
    """
    config = _config(model, hub_kwargs)
    for task, auto in AUTO_CLASSES.items():
        if type(config) in auto._model_mapping:
            return task
    raise ConfigError(
        f"{model!r} is a {config.model_type!r}, which has no model that classifies images or texts"
    )


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


def load_tokenizer(model: str, **hub_kwargs: Any) -> Any:
    """The tokenizer that belongs to a model, able to pad.

    Args:
        model: a repository on the Hub or a local directory.
        hub_kwargs: `revision`, `token`, ... of `from_pretrained`.

    Raises:
        ConfigError: there is no such model, it has no tokenizer, or that has no token to pad with.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, **hub_kwargs)
    except (OSError, ValueError) as error:
        raise _unknown(model, "tokenizer", error) from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ConfigError(
                f"the tokenizer of {model!r} has neither a pad_token nor an eos_token, so that "
                "texts can't be padded to one length; add a pad_token to it and save it"
            )
        # As is usual for decoders such as GPT-2; the attention mask hides what is padded.
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def text_limit(model: str, *, pad_token_id: int | None = None, **hub_kwargs: Any) -> int | None:
    """How many tokens a model has positions for, whatever its tokenizer says.

    Args:
        model: a repository on the Hub or a local directory.
        pad_token_id: see [`text_classifier`].
        hub_kwargs: `revision`, `token`, ... of `from_pretrained`.

    Returns:
        `model_limit` of [`encode_text_splits`]; `None` for a model that takes texts of any length.

    Raises:
        ConfigError: there is no such model.
    """
    config = _config(model, hub_kwargs).get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    # DeBERTa, where it counts distances between tokens only; XLNet, which says -1, does so too.
    is_relative = not getattr(config, "position_biased_input", True)
    if is_relative or positions is None or positions < 1:
        return None
    if config.model_type in _COUNT_FROM_PADDING:
        padding = config.pad_token_id if pad_token_id is None else pad_token_id
        positions -= (padding or 0) + 1
    return int(positions)


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
    return _classifier(model, label_names, IMAGE_TASK, hub_kwargs)


def text_classifier(
    model: str, label_names: Sequence[str], *, pad_token_id: int | None = None, **hub_kwargs: Any
) -> Callable[[], nn.Module]:
    """A `model_init` for a pre-trained language model with a head for these labels.

    Args:
        model: a repository on the Hub or a local directory.
        label_names: of the classes, in the order of their numbers.
        pad_token_id: of the tokenizer. Default: what the model's own configuration says.
        hub_kwargs: `revision`, `token`, ... of `from_pretrained`.

    Returns:
        A function without arguments that makes the model, as `Trainer` and `biotune_search` want.

    Raises:
        ConfigError: there is no such model, or it can't classify texts.
    """
    # The model looks for the last token that fills nothing up, so both must mean the same one.
    extra = {} if pad_token_id is None else {"pad_token_id": pad_token_id}
    return _classifier(model, label_names, TEXT_TASK, {**hub_kwargs, **extra})


def _config(model: str, hub_kwargs: dict[str, Any]) -> Any:
    try:
        return AutoConfig.from_pretrained(model, **hub_kwargs)
    except (OSError, ValueError) as error:
        raise _unknown(model, "model", error) from error


def _classifier(
    model: str, label_names: Sequence[str], task: str, hub_kwargs: dict[str, Any]
) -> Callable[[], nn.Module]:
    auto = AUTO_CLASSES[task]
    config = _config(model, hub_kwargs)
    if type(config) not in auto._model_mapping:
        raise ConfigError(
            f"{model!r} is a {config.model_type!r}, which has no {task.replace('-', ' ')} model"
        )

    return _PretrainedClassifier(model, tuple(label_names), task, hub_kwargs)


@dataclass(frozen=True)
class _PretrainedClassifier:
    """A `model_init` that can be sent to other processes."""

    model: str
    label_names: tuple[str, ...]
    task: str
    hub_kwargs: dict[str, Any]

    def __call__(self) -> nn.Module:
        # Says in red that the head is new, which is what was asked for.
        verbosity, progress = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            loaded: nn.Module = AUTO_CLASSES[self.task].from_pretrained(
                self.model,
                num_labels=len(self.label_names),
                id2label=dict(enumerate(self.label_names)),
                label2id={name: number for number, name in enumerate(self.label_names)},
                problem_type="single_label_classification",
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                **self.hub_kwargs,
            )
        finally:
            logging.set_verbosity(verbosity)
            if progress:
                logging.enable_progress_bar()
        return loaded


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
    from transformers import AutoModel

    config = _config(model, {})
    for auto in (AutoModelForImageClassification, AutoModelForSequenceClassification, AutoModel):
        if type(config) in auto._model_mapping:
            made: nn.Module = auto.from_config(config)
            return made
    raise ConfigError(f"{model!r} is a {config.model_type!r}, which transformers has no model for")
