"""`export`: forms that others read, and their limits said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap

import pytest
import timm
import torch
from peft import PeftModel
from safetensors import safe_open
from torch import nn
from transformers import AutoModelForImageClassification, GPT2Config, GPT2LMHeadModel
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils.import_utils import is_peft_greater_or_equal
from wrapped import (
    bert,
    images,
    logits,
    quiet_wrap,
    resnet,
    sequential,
    torchvision_resnet,
    train,
    vit,
)

from hf_biotune import BioTuneConfig, BioTuneModel, get_biotune_model
from hf_biotune.exceptions import CheckpointError, ConfigError
from hf_biotune.export import unfrozen_patterns


def tuned(base: nn.Module, *blocks: str, **kwargs) -> BioTuneModel:
    model = quiet_wrap(base, BioTuneConfig(lr_multipliers=dict.fromkeys(blocks, 0.5), **kwargs))
    train(model)
    return model


# What transformers' own adapter methods ask for.
RECENT = is_peft_greater_or_equal(MIN_PEFT_VERSION)

# In another interpreter, in which importing hf_biotune is an error.
STOCK = """
import sys
sys.modules["hf_biotune"] = None
import torch, peft, transformers
torch.set_num_threads(1)
base_directory, directory, inputs, outputs = sys.argv[1:]
auto = transformers.AutoModelFor{task}
inputs = torch.load(inputs, weights_only=True)
found = {{
    "PeftModel": peft.PeftModel.from_pretrained(auto.from_pretrained(base_directory), directory),
    "merged": peft.PeftModel.from_pretrained(
        auto.from_pretrained(base_directory), directory
    ).merge_and_unload(),
}}
found["AutoPeftModel"] = peft.AutoPeftModel{auto_task}.from_pretrained(directory)
if {recent}:
    found["AutoModelFor"] = auto.from_pretrained(directory)
    found["load_adapter"] = auto.from_pretrained(base_directory)
    found["load_adapter"].load_adapter(directory)
assert "hf_biotune.model" not in sys.modules
with torch.no_grad():
    torch.save({{k: m.eval()(**inputs).logits for k, m in found.items()}}, outputs)
"""


def stock_logits(tmp_path, inputs, task: str, auto_task: str = "") -> dict[str, torch.Tensor]:
    torch.save(inputs, tmp_path / "inputs.pt")
    code = textwrap.dedent(STOCK).format(task=task, auto_task=auto_task, recent=RECENT)
    arguments = ["base", "exported", "inputs.pt", "outputs.pt"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return torch.load(tmp_path / "outputs.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "blocks"), [(resnet, ("stage0", "stage1", "head")), (vit, ("stem", "layer2", "head"))]
)
def test_stock_peft_reads_the_exported_form_without_us(make, blocks, tmp_path, monkeypatch):
    make().save_pretrained(tmp_path / "base")
    base = AutoModelForImageClassification.from_pretrained(tmp_path / "base")
    base.config._name_or_path = base.name_or_path = "base"  # the other process runs beside it
    model = tuned(base, *blocks)

    model.export(tmp_path / "exported")

    assert not (tmp_path / "exported" / "config.json").exists()
    found = stock_logits(tmp_path, {"pixel_values": images()}, "ImageClassification")
    model.eval()
    with torch.no_grad():
        expected = model(images()).logits
    assert {"PeftModel", "merged", "AutoPeftModel"} <= set(found)
    assert not RECENT or {"AutoModelFor", "load_adapter"} <= set(found)
    for loader, values in found.items():
        assert torch.equal(values, expected), loader


@pytest.mark.slow
def test_stock_peft_reads_a_text_classifier_with_a_task_type_and_a_frozen_head(tmp_path):
    bert().save_pretrained(tmp_path / "base")
    base = type(bert()).from_pretrained(tmp_path / "base")
    base.name_or_path = "base"
    model = tuned(base, "layer0", task_type="SEQ_CLS", saved_blocks=[])

    model.export(tmp_path / "exported")

    inputs = {"input_ids": torch.arange(1, 9).reshape(1, 8)}
    found = stock_logits(
        tmp_path, inputs, "SequenceClassification", auto_task="ForSequenceClassification"
    )
    model.eval()
    with torch.no_grad():
        expected = model(**inputs).logits
    for loader, values in found.items():
        assert torch.equal(values, expected), loader


def test_torchvision_models_are_read_by_stock_peft_where_names_are_clear(tmp_path):
    model = tuned(torchvision_resnet(), "layer4", "head")

    model.export(tmp_path)

    loaded = PeftModel.from_pretrained(torchvision_resnet(), tmp_path)
    assert type(loaded) is PeftModel
    assert torch.equal(logits(loaded), logits(model))


def test_the_exported_form_holds_trained_blocks_and_their_buffers_only(tmp_path):
    model = tuned(resnet(), "stage1", "head")

    model.export(tmp_path)

    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config["modules_to_save"] == ["resnet.encoder.stages.1", "classifier"]
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as file:
        assert {name.removeprefix("base_model.model.") for name in file.keys()} == set(  # noqa: SIM118
            model.base_model.tensor_names()
        )


def test_an_inactive_adapter_is_exported_as_it_is(tmp_path):
    model = tuned(torchvision_resnet(), "head")
    expected = logits(model)
    model.add_adapter("b", BioTuneConfig(lr_multipliers={"layer4": 1.0}))
    model.set_adapter("b")
    train(model)

    model.export(tmp_path, adapter_name="default")

    assert torch.equal(logits(PeftModel.from_pretrained(torchvision_resnet(), tmp_path)), expected)


class _List(nn.Module):
    """Its block is a ModuleList, which nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(3 * 32 * 32, 8)
        self.body = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x.flatten(1))
        for layer in self.body:
            x = layer(x).relu()
        return self.out(x)


def test_a_module_list_is_exported_as_its_parts(tmp_path):
    torch.manual_seed(0)
    base = _List()
    start = {name: value.clone() for name, value in base.state_dict().items()}
    config = BioTuneConfig(blocks={"stem": "stem", "body": "body"}, lr_multipliers={"body": 1.0},
                           saved_blocks=[])  # fmt: skip
    model = get_biotune_model(base, config)
    train(model)

    model.export(tmp_path)

    plain = _List()
    plain.load_state_dict(start)
    assert torch.equal(logits(PeftModel.from_pretrained(plain, tmp_path)), logits(model))


@pytest.mark.parametrize(
    ("make", "block", "message"),
    [
        (torchvision_resnet, "stem", "'conv1' would also replace 'layer1.0.conv1'"),
        (
            lambda: timm.create_model(
                "vit_tiny_patch16_224", img_size=32, embed_dim=12, depth=1, num_classes=3
            ),
            "stem",
            "can't hold the single parameter 'cls_token'",
        ),
        (
            lambda: GPT2LMHeadModel(
                GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=20, n_positions=8)
            ),
            "stem",
            "are one tied tensor, which stock PEFT would take apart",
        ),
    ],
)
def test_what_stock_peft_can_not_hold_is_said_with_the_alternative(make, block, message, tmp_path):
    model = quiet_wrap(make(), BioTuneConfig(lr_multipliers={block: 1.0}))

    with pytest.raises(CheckpointError, match=re.escape(message)) as error:
        model.export(tmp_path / "out")

    assert "merge_and_unload().save_pretrained(directory)" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_no_adapter_is_written_beside_a_whole_model(tmp_path):
    resnet().save_pretrained(tmp_path)

    with pytest.raises(CheckpointError, match=r"holds a whole model \(config\.json\)"):
        tuned(resnet(), "head").export(tmp_path)


def axolotl_unfreezes(patterns: list[str], names: list[str]) -> set[str]:
    """The documented rule: matched at the start, a dot that no `+` follows is a literal one."""
    compiled = [re.compile(re.sub(r"\.(?!\+)", r"\\.", pattern)) for pattern in patterns]
    return {name for name in names if any(pattern.match(name) for pattern in compiled)}


@pytest.mark.parametrize(
    ("make", "blocks"),
    [(resnet, ("stem", "head")), (bert, ("layer1",)), (sequential, ("layer0",)), (vit, ("stem",))],
)
def test_axolotl_unfreezes_exactly_the_trained_parameters(make, blocks, tmp_path):
    model = tuned(make(), *blocks)

    path = model.export(tmp_path, format="axolotl")

    lines = path.read_text().splitlines()
    assert lines[2] == "unfrozen_parameters:"
    patterns = [json.loads(line.removeprefix("  - ")) for line in lines[3:]]
    parameters = dict(model.get_base_model().named_parameters())
    assert axolotl_unfreezes(patterns, list(parameters)) == {
        name for name, parameter in parameters.items() if parameter.requires_grad
    }


def test_the_axolotl_list_is_yaml(tmp_path):
    yaml = pytest.importorskip("yaml")
    path = tuned(bert(), "layer1", "head").export(tmp_path, format="axolotl")

    assert yaml.safe_load(path.read_text()) == {
        "unfrozen_parameters": ["^bert.encoder.layer.1.", "^bert.pooler.", "^classifier."]
    }


def test_a_pattern_does_not_reach_layers_whose_number_only_begins_alike():
    patterns = unfrozen_patterns(("layers.1",), ("layers.1.weight",))

    assert axolotl_unfreezes(patterns, ["layers.1.weight", "layers.10.weight", "x.layers.1.weight"])
    assert axolotl_unfreezes(patterns, ["layers.10.weight", "x.layers.1.weight"]) == set()


def test_the_merged_form_is_the_plain_model(tmp_path):
    model = tuned(resnet(), "stage1", "head")

    model.export(tmp_path, format="merged")

    loaded = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded), logits(model))
    assert not (tmp_path / "adapter_config.json").exists()


def test_the_merged_form_is_of_the_active_adapter_in_place():
    model = tuned(resnet(), "head")
    model.add_adapter("b", BioTuneConfig(lr_multipliers={"head": 1.0}))

    with pytest.raises(ConfigError, match=re.escape("call set_adapter('b') first")):
        model.export("unused", format="merged", adapter_name="b")
    with model.disable_adapter(), pytest.raises(ConfigError, match="not in place"):
        model.export("unused", format="merged")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"format": "gguf"}, ConfigError, "format must be one of 'peft', 'axolotl', 'merged'"),
        ({"adapter_name": "b"}, ConfigError, "no adapter is named 'b'"),
        ({"format": "merged"}, CheckpointError, "Sequential is not a transformers model"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        tuned(sequential(), "head").export(tmp_path, **arguments)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match="is a file"):
        tuned(sequential(), "head").export(tmp_path / "file")
