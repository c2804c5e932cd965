"""Trainings of PEFT's own adapters, by the same loop."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Sequence

from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from torch.optim import Optimizer
from transformers import TrainingArguments

from ..blocks import Partition
from ..norm_statistics import BATCH_NORM
from ..optim import no_decay_names, optimizer_of
from ..search.training import Training


class PeftTraining(Training):
    """Trains an adapter of PEFT on a copy of the base model.

    BatchNorm outside of what is trained is in eval mode: its statistics are no part of the adapter,
    and would be lost with it. Dropout is as usual.

    Args:
        config: of the adapter.
        rate: factor on the learning rate.
    """

    def __init__(self, config: PeftConfig, rate: float) -> None:
        self.config = config
        self._rate = rate

    def wrap(self, base: nn.Module) -> PeftModel:
        """A copy, since PEFT puts its own modules into a model."""
        with warnings.catch_warnings():
            # What PEFT asks of transformers by an old name, and of the norms that LNTuning is for.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
            warnings.filterwarnings("ignore", "Unsupported layer type", UserWarning)
            return get_peft_model(copy.deepcopy(base), copy.deepcopy(self.config))

    def optimizer(self, model: PeftModel, args: TrainingArguments) -> Optimizer:
        """What decays and what doesn't, by the rule of all methods."""
        exempt = no_decay_names(model)
        decaying: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                (others if name in exempt else decaying).append(parameter)
        groups = [
            {
                "params": parameters,
                "lr": args.learning_rate * self._rate,
                "lr_multiplier": self._rate,
                "weight_decay": decay,
            }
            for parameters, decay in ((decaying, args.weight_decay), (others, 0.0))
            if parameters
        ]
        return optimizer_of(groups, model, args)

    def unwrap(self, model: PeftModel) -> None:
        """The base model was never touched."""

    def set_train_mode(self, model: nn.Module) -> None:
        """Train mode, but for BatchNorm that is frozen."""
        model.train()
        for module in model.modules():
            if isinstance(module, BATCH_NORM) and not any(
                parameter.requires_grad for parameter in module.parameters()
            ):
                module.eval()


def head_modules(model: nn.Module, partition: Partition) -> list[str]:
    """The modules of the last block that `modules_to_save` can name.

    PEFT takes every module whose name ends like one of these, so names that others outside of the
    block end with are left out, such as `norm` of a bare timm model: a pre-trained norm then stays
    frozen.

    Returns:
        Names; the last one is the classifier, without which there is nothing to return.
    """
    names = [name for name, _ in model.named_modules()]
    modules = [
        name
        for name in partition[-1].modules
        if next(model.get_submodule(name).parameters(), None) is not None
    ]
    plain = [
        name
        for name in modules
        if {other for other in names if other.endswith(name)} <= set(modules)
        and not isinstance(model.get_submodule(name), (nn.ModuleList, nn.ModuleDict))
    ]
    return plain if modules and modules[-1] in plain else []


NO_HEAD = "PEFT's modules_to_save can't name the head alone"


def exactly(names: Iterable[str]) -> str:
    """A regular expression that fully matches these names and no other."""
    return "|".join(map(re.escape, names))


def outside_of_head(model: nn.Module, partition: Partition) -> Sequence[tuple[str, nn.Module]]:
    """The modules that don't belong to the last block, by name."""
    head = partition.names[-1]
    return [
        (name, module)
        for name, module in model.named_modules()
        if name and partition.block_of_module(name) != head
    ]
