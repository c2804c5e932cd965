"""What holds for every architecture: wrap, train one step, save, load, disable, merge, unload.

Every second block is trained, each at another rate. All equalities are bit for bit. A further model
is one line in `small_models.py`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from safetensors import safe_open
from small_models import MODELS, batch, build
from torch import nn

from hf_biotune import BioTuneConfig, BioTuneModel, get_biotune_model, parameter_groups, partition
from hf_biotune.checkpoint import KEY_PREFIX, WEIGHTS_NAME
from hf_biotune.classification import logits_of

LEARNING_RATE = 0.02
Tensors = dict[str, torch.Tensor]


@dataclass
class Tuned:
    """A model after one training step, and what it was before.

    Args:
        name: as in `MODELS`.
        model: the wrapped model, in eval mode.
        before: all tensors of the base model before the step.
        gradients: of the step, for parameters that have one.
        base_logits: what the base model makes of the batch.
        directory: where the adapter was saved after the step.
    """

    name: str
    model: BioTuneModel
    before: Tensors
    gradients: Tensors
    base_logits: torch.Tensor
    directory: Path

    @property
    def after(self) -> Tensors:
        return tensors_of(self.model.get_base_model())

    @property
    def multipliers(self) -> dict[str, float]:
        return self.model.active_peft_config.lr_multipliers

    def tensors_in(self, blocks: set[str]) -> set[str]:
        """Names of the parameters and persistent buffers of some blocks."""
        base = self.model.get_base_model()
        found = partition(base)
        parameters = {
            name for name, _ in base.named_parameters() if blocks & {found.block_of_parameter(name)}
        }
        stored = base.state_dict()
        buffers = {
            name
            for name, _ in base.named_buffers()
            if name in stored and found.block_of_module(name.rpartition(".")[0]) in blocks
        }
        return parameters | buffers


def tensors_of(model: nn.Module) -> Tensors:
    """A copy of every parameter and buffer, also of those that no state dict has."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensor.detach().clone() for name, tensor in named.items()}


@torch.no_grad()
def logits(model: nn.Module, name: str) -> torch.Tensor:
    inputs = batch(name)
    # The decoder of T5 starts from the labels.
    labels = inputs.pop("labels")
    if "T5ForConditional" in name:
        inputs["decoder_input_ids"] = labels
    return logits_of(model, inputs)


def every_second_block(model: nn.Module) -> BioTuneConfig:
    names = partition(model).names
    rates = cycle([0.5, 2.0, 1.0, 4.0])
    multipliers = dict(zip(names[1::2], rates, strict=False))
    # By the statistics of two random samples alone, untrained deep networks put out no numbers.
    return BioTuneConfig(lr_multipliers=multipliers, norm_statistics="train")


def train_one_step(model: BioTuneModel, name: str) -> Tensors:
    """Plain gradient descent, so that each step is the rate times the gradient."""
    torch.manual_seed(2)
    model.train()
    groups = parameter_groups(model, lr=LEARNING_RATE)
    # One tensor at a time: the order of the operations is then known to the last bit.
    optimizer = torch.optim.SGD(groups, foreach=False)
    model(**batch(name))["loss"].backward()
    parameters = model.get_base_model().named_parameters()
    gradients = {n: p.grad.clone() for n, p in parameters if p.grad is not None}
    optimizer.step()
    optimizer.zero_grad()
    model.eval()
    return gradients


def parameters_of_the_suite() -> Iterator[object]:
    for name, row in MODELS.items():
        yield pytest.param(name, marks=pytest.mark.slow if row.slow else ())


@pytest.fixture(scope="module", params=parameters_of_the_suite())
def tuned(request: pytest.FixtureRequest) -> Iterator[Tuned]:
    torch.set_num_threads(1)
    name: str = request.param
    base = build(name)
    before, base_logits = tensors_of(base), logits(base, name)
    with warnings.catch_warnings():
        # Every second model leaves its fresh head frozen, which is to be saved then.
        warnings.filterwarnings("ignore", message=".* looks freshly initialised")
        model = get_biotune_model(base, every_second_block(base))
    gradients = train_one_step(model, name)
    # Of pytest's own directories, all architectures' would stay to the end: 1.5 GB.
    with TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        yield Tuned(name, model, before, gradients, base_logits, Path(directory))


def test_gradients_exist_for_trained_blocks_only(tuned: Tuned) -> None:
    blocks = partition(tuned.model.get_base_model())
    reached = {blocks.block_of_parameter(name) for name in tuned.gradients}
    assert reached == set(tuned.multipliers) - set(MODELS[tuned.name].without_gradient)


def test_a_step_moves_each_parameter_by_its_blocks_rate_times_its_gradient(tuned: Tuned) -> None:
    blocks = partition(tuned.model.get_base_model())
    for name, parameter in tuned.model.get_base_model().named_parameters():
        expected = tuned.before[name]
        if name in tuned.gradients:
            rate = LEARNING_RATE * tuned.multipliers[blocks.block_of_parameter(name)]
            expected = expected.add(tuned.gradients[name], alpha=-rate)
        assert torch.equal(parameter, expected), name


def test_a_step_changes_every_trained_block_and_nothing_else(tuned: Tuned) -> None:
    after = tuned.after
    changed = {name for name, value in tuned.before.items() if not torch.equal(value, after[name])}
    assert changed <= tuned.tensors_in(set(tuned.multipliers))
    for block in set(tuned.multipliers) - set(MODELS[tuned.name].without_gradient):
        assert changed & tuned.tensors_in({block}), block


def test_statistics_move_in_trained_blocks_only(tuned: Tuned) -> None:
    trained = tuned.tensors_in(set(tuned.multipliers))
    after = tuned.after
    for name, value in tuned.before.items():
        if name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            assert torch.equal(value, after[name]) == (name not in trained), name


def test_file_holds_the_trained_tensors_and_a_fresh_head_only(tuned: Tuned) -> None:
    config = tuned.model.active_peft_config
    with safe_open(tuned.directory / WEIGHTS_NAME, framework="pt") as file:
        names = {key.removeprefix(KEY_PREFIX) for key in file.keys()}  # noqa: SIM118
    assert names == tuned.tensors_in({*config.lr_multipliers, *config.saved_blocks})
    assert set(config.saved_blocks) <= {partition(tuned.model.get_base_model()).names[-1]}


def test_reloaded_on_a_fresh_base_outputs_are_equal(tuned: Tuned) -> None:
    loaded = BioTuneModel.from_pretrained(build(tuned.name), tuned.directory)
    expected = logits(tuned.model, tuned.name)
    assert torch.equal(logits(loaded, tuned.name), expected)
    assert expected.isfinite().all()
    assert not torch.equal(expected, tuned.base_logits)


def test_disabled_outputs_are_those_of_the_base_model(tuned: Tuned) -> None:
    expected = logits(tuned.model, tuned.name)
    with tuned.model.disable_adapter():
        assert torch.equal(logits(tuned.model, tuned.name), tuned.base_logits)
    assert torch.equal(logits(tuned.model, tuned.name), expected)


def test_merged_model_is_a_plain_one_with_the_tuned_outputs(tuned: Tuned) -> None:
    base = build(tuned.name)
    merged = BioTuneModel.from_pretrained(base, tuned.directory).merge_and_unload()
    assert merged is base
    assert not hasattr(merged, "peft_config")
    assert merged.state_dict().keys() == build(tuned.name).state_dict().keys()
    assert torch.equal(logits(merged, tuned.name), logits(tuned.model, tuned.name))


def test_unloaded_model_is_the_base_model(tuned: Tuned) -> None:
    unloaded = BioTuneModel.from_pretrained(build(tuned.name), tuned.directory).unload()
    after = tensors_of(unloaded)
    assert after.keys() == tuned.before.keys()
    assert all(torch.equal(value, after[name]) for name, value in tuned.before.items())
    assert torch.equal(logits(unloaded, tuned.name), tuned.base_logits)


def test_suite_covers_what_it_promises() -> None:
    fast = [name for name, row in MODELS.items() if not row.slow]
    assert len(MODELS) >= 40
    assert len(fast) >= 15
    assert {name.split("/")[0] for name in fast} >= {"timm", "transformers", "wrapped"}
