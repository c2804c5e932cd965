"""`BioTuneEnsemble`: several fine-tunings of one base model, as one classifier."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.func import functional_call
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput

from ...classification import (
    logits_of,
    loss_of,
    mean_log_probabilities,
    takes_keywords,
    takes_names,
)
from ...exceptions import ConfigError
from ..data import EncodedSplit, SplitView
from ..forward import Forward
from ..task import predict
from .files import EnsembleFiles
from .members import EnsembleMember, MemberWeights
from .trunk import SharedTrunk

# What transformers' pipelines ask a model for.
_OF_THE_BASE_MODEL = ("config", "device", "dtype", "can_generate", "input_modalities")


class BioTuneEnsemble(EnsembleFiles):
    """Several fine-tunings of one base model, as one classifier.

    It gives the mean of its members' probabilities. In memory are the base model, once, and what
    each member changed of it; the first blocks, which no member changed, are computed once for all
    of them. It is for inference: always in eval mode, and nothing is trained.

    Its output is like that of the base model, so that it takes a classifier's place. Its logits are
    the logarithms of the mean probabilities: `softmax` gives these back.

    Args:
        base_model: the model that all members were fine-tuned from; used in place.
        members: at least one, with distinct names.

    Raises:
        ConfigError: there is no member, two have one name, the base model holds an adapter, or it
            does not classify into one of several classes.

    Example:
        ```python
        ensemble = result.ensemble(3)
        ensemble.save_pretrained("ensemble")
        ensemble = BioTuneEnsemble.from_pretrained(base_model, "ensemble")
        ensemble(pixel_values=pixels).logits.softmax(-1)
        ```
    """

    def __init__(self, base_model: nn.Module, members: Sequence[EnsembleMember]) -> None:
        _check(base_model, members)
        super().__init__(base_model, members)
        base_model.requires_grad_(False)
        self.weights = nn.ModuleList(MemberWeights(base_model, m.tensors) for m in members)
        self._trunk = SharedTrunk(base_model, members)
        self.eval()

    def get_base_model(self) -> nn.Module:
        """The base model, as of a `PeftModel`."""
        return self.base_model

    def __getattr__(self, name: str) -> Any:
        # Nothing else of the base model: it would answer with its own weights.
        if name in _OF_THE_BASE_MODEL:
            return getattr(self.base_model, name)
        return super().__getattr__(name)

    def train(self, mode: bool = True) -> BioTuneEnsemble:
        """Eval mode, whatever is asked for."""
        super().train(False)
        return self

    # -- predictions ----------------------------------------------------------------------------

    def forward(
        self,
        *args: Any,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """The mean of the members' probabilities, in the form that the base model has.

        Args:
            args, kwargs: the base model's inputs.
            labels: gives the output a loss: the cross-entropy of the mean probabilities.
            return_dict: `False` for a tuple, of a transformers model.

        Returns:
            `ImageClassifierOutput` or `SequenceClassifierOutput` for a transformers model. As
            [`BioTuneModel`] for others: logits, or a dict with `labels` or by names.
        """
        logits = mean_log_probabilities(self.member_logits(*args, **kwargs))
        loss = None if labels is None else loss_of(logits, labels)
        if not takes_names(self.base_model):
            if loss is not None:
                return {"loss": loss, "logits": logits}
            return logits if takes_keywords(self.base_model, kwargs) else {"logits": logits}
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        if takes_keywords(self.base_model, ["pixel_values"]):
            return ImageClassifierOutput(loss=loss, logits=logits)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def member_logits(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The logits of each member by itself.

        Args:
            args, kwargs: the base model's inputs.

        Returns:
            Shape: (members, batch, classes).
        """
        names = inspect.signature(self.base_model.forward).parameters
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        logits = self._trunk.logits(lambda number: self._logits_of(number, inputs), inputs)
        return torch.stack(logits)

    def _logits_of(self, number: int, inputs: Mapping[str, Any]) -> torch.Tensor:
        weights = cast(MemberWeights, self.weights[number])
        tensors = {f"model.{name}": tensor for name, tensor in weights.by_name().items()}
        logits: torch.Tensor = functional_call(_Classifier(self.base_model), tensors, (inputs,))
        return logits

    @torch.no_grad()
    def predict(
        self, data: EncodedSplit | SplitView | Mapping[str, torch.Tensor], batch_size: int = 128
    ) -> torch.Tensor:
        """The logits for all samples: the logarithms of the mean probabilities.

        Args:
            data: encoded samples, or one batch of inputs by name; labels in it are left out.
            batch_size: samples of `data` at a time; a batch is taken as it is.

        Returns:
            On the CPU, single precision. Shape: (samples, classes).
        """
        device = next(self.parameters()).device
        if isinstance(data, EncodedSplit):
            data = data.view()
        if isinstance(data, SplitView):
            return predict(Forward(self, device), data, batch_size)
        inputs = {name: t.to(device) for name, t in data.items() if name != "labels"}
        return logits_of(self, inputs).cpu()


class _Classifier(nn.Module):
    """From inputs by name to logits, whatever the model; for `functional_call`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return logits_of(self.model, inputs)


def _check(base_model: nn.Module, members: Sequence[EnsembleMember]) -> None:
    if hasattr(base_model, "peft_config"):
        raise ConfigError(
            "the base model of an ensemble must be plain, but holds an adapter; call "
            "merge_and_unload() or unload() on it first"
        )
    names = [member.name for member in members]
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            f"an ensemble needs at least one member, each of another name, got {names[:10]}"
        )
    problem = getattr(getattr(base_model, "config", None), "problem_type", None)
    if problem not in (None, "single_label_classification"):
        raise ConfigError(
            f"an ensemble averages the probabilities of one class out of several, but the base "
            f"model's problem_type is {problem!r}"
        )
