"""PEFT's and transformers' own loaders open a native checkpoint once hf_biotune is imported."""

from __future__ import annotations

import importlib
import subprocess
import sys

import peft
import pytest
import torch
from peft import (
    AutoPeftModel,
    AutoPeftModelForSequenceClassification,
    LoraConfig,
    PeftConfig,
    PeftModel,
    PeftModelForSequenceClassification,
    get_peft_model,
    get_peft_model_state_dict,
)
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils.import_utils import is_peft_greater_or_equal
from wrapped import bert, logits, quiet_wrap, resnet, snapshot, timm_resnet, train

from hf_biotune import BioTuneConfig, BioTuneModel
from hf_biotune.registration import _PostImportFinder

needs_recent_peft = pytest.mark.skipif(
    not is_peft_greater_or_equal(MIN_PEFT_VERSION),
    reason=f"transformers' own adapter methods need peft >= {MIN_PEFT_VERSION}",
)


# -- the import hook ----------------------------------------------------------------------------


def in_a_new_process(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout.strip()


def test_importing_the_package_is_quick_and_loads_neither_torch_nor_peft():
    code = (
        "import sys, time; start = time.perf_counter(); import hf_biotune;"
        "print(time.perf_counter() - start, *sorted({'torch', 'peft', 'transformers', 'numpy'}"
        " & set(sys.modules)))"
    )
    seconds, *loaded = in_a_new_process(code).split()

    assert loaded == []
    assert float(seconds) <= 0.2


IS_REGISTERED = (
    "import sys, peft; from peft import mapping;"
    "print(*sorted(type(f).__name__ for f in sys.meta_path if 'PostImport' in type(f).__name__),"
    "mapping.PEFT_TYPE_TO_CONFIG_MAPPING['BIOTUNE'].__name__,"
    "mapping.PEFT_TYPE_TO_TUNER_MAPPING['BIOTUNE'].__name__, type(peft.__loader__).__name__,"
    "peft.PeftModel.__new__.is_of_biotune)"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "import hf_biotune",  # and peft after it
        "import peft, hf_biotune",
        "from hf_biotune.config import BioTuneConfig",  # one of our modules imports peft
        "import hf_biotune; from transformers import Trainer",  # transformers does
    ],
)
def test_every_order_of_imports_registers_and_leaves_no_hook_behind(first):
    assert in_a_new_process(f"{first}; {IS_REGISTERED}") == (
        "BioTuneConfig BlockTuner SourceFileLoader True"
    )


@pytest.fixture
def hooked(tmp_path, monkeypatch):
    """A finder that awaits `awaited_one`, watches `watched_pkg` and counts its calls."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "awaited_one.py").write_text("done = True\n")
    (tmp_path / "watched_pkg").mkdir()
    (tmp_path / "watched_pkg" / "__init__.py").write_text("")
    (tmp_path / "watched_pkg" / "inner.py").write_text("import awaited_one\nwhole = True\n")
    (tmp_path / "watched_pkg" / "broken.py").write_text("raise RuntimeError('no')\n")
    calls = []

    def hook() -> None:
        inner = sys.modules.get("watched_pkg.inner")
        calls.append(inner is None or hasattr(inner, "whole"))

    finder = _PostImportFinder("awaited_one", "watched_pkg", hook)
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    yield finder, calls
    for name in ("awaited_one", "watched_pkg", "watched_pkg.inner", "watched_pkg.broken"):
        sys.modules.pop(name, None)


def test_the_hook_runs_once_after_the_awaited_module_and_the_finder_goes(hooked):
    finder, calls = hooked

    module = importlib.import_module("awaited_one")

    assert calls == [True]
    assert finder not in sys.meta_path
    assert type(module.__loader__).__name__ == "SourceFileLoader"
    assert module.__spec__.loader is module.__loader__
    importlib.reload(module)
    assert calls == [True]


def test_the_hook_waits_for_a_watched_module_that_is_half_executed(hooked):
    finder, calls = hooked

    importlib.import_module("watched_pkg.inner")

    assert calls == [True]
    assert finder not in sys.meta_path


def test_a_failed_import_leaves_the_hook_waiting(hooked):
    finder, calls = hooked

    with pytest.raises(RuntimeError, match="no"):
        importlib.import_module("watched_pkg.broken")
    assert calls == []
    assert finder in sys.meta_path
    importlib.import_module("awaited_one")
    assert calls == [True]


def test_other_modules_are_left_to_the_other_finders(hooked):
    finder, calls = hooked

    assert finder.find_spec("json", None) is None
    assert finder.find_spec("awaited_one_too", None) is None
    assert finder.find_spec("watched_pkg.missing", []) is None
    assert calls == []


# -- PEFT's loaders ------------------------------------------------------------------------------


def saved(make, directory, *blocks: str, **kwargs) -> torch.Tensor:
    """Write a base model and a tuned adapter to it; the adapter's logits."""
    make().save_pretrained(directory / "base")
    model = quiet_wrap(
        type(make()).from_pretrained(directory / "base"),
        BioTuneConfig(lr_multipliers=dict.fromkeys(blocks, 1.0), **kwargs),
    )
    train(model)
    model.save_pretrained(directory / "adapter")
    return logits(model)


@pytest.mark.parametrize("task_type", [None, "SEQ_CLS", "FEATURE_EXTRACTION", "CAUSAL_LM"])
def test_peft_model_opens_a_native_checkpoint_whatever_its_task_type(tmp_path, task_type):
    expected = saved(bert, tmp_path, "layer1", "head", task_type=task_type)

    model = PeftModel.from_pretrained(bert(), tmp_path / "adapter")

    assert type(model) is BioTuneModel
    assert model.peft_config["default"].task_type == task_type
    assert torch.equal(logits(model), expected)
    assert not model.training
    assert model.get_nb_trainable_parameters()[0] == 0
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(bert()))


def test_peft_model_opens_one_for_training(tmp_path):
    saved(resnet, tmp_path, "head")

    model = PeftModel.from_pretrained(resnet(), tmp_path / "adapter", "mine", is_trainable=True)

    assert model.active_adapter == "mine"
    assert model.get_nb_trainable_parameters()[0] > 0
    train(model)


def test_peft_model_opens_one_for_a_timm_model(tmp_path):
    model = quiet_wrap(timm_resnet(), BioTuneConfig(lr_multipliers={"layer4": 1.0, "head": 1.0}))
    train(model)
    model.save_pretrained(tmp_path)

    assert torch.equal(logits(PeftModel.from_pretrained(timm_resnet(), tmp_path)), logits(model))


def test_a_class_for_a_task_gives_a_biotune_model_too(tmp_path):
    expected = saved(bert, tmp_path, "head", task_type="SEQ_CLS")

    model = PeftModelForSequenceClassification.from_pretrained(bert(), tmp_path / "adapter")

    assert type(model) is BioTuneModel
    assert torch.equal(logits(model), expected)


def test_get_peft_model_gives_a_biotune_model():
    config = BioTuneConfig(lr_multipliers={"head": 1.0}, task_type="SEQ_CLS")

    model = get_peft_model(bert(), config)

    assert type(model) is BioTuneModel
    train(model)


def test_auto_peft_model_finds_the_base_model(tmp_path):
    expected = saved(resnet, tmp_path, "stage1", "head")

    model = AutoPeftModel.from_pretrained(tmp_path / "adapter")

    assert type(model) is BioTuneModel
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("task_type", [None, "SEQ_CLS"])
def test_auto_peft_model_for_a_task_finds_the_base_model(tmp_path, task_type):
    expected = saved(bert, tmp_path, "layer1", "head", task_type=task_type)

    model = AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "adapter")

    assert type(model) is BioTuneModel
    assert torch.equal(logits(model), expected)


def test_peft_config_opens_the_configuration(tmp_path):
    saved(resnet, tmp_path, "head")

    assert isinstance(PeftConfig.from_pretrained(tmp_path / "adapter"), BioTuneConfig)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_other_methods_of_peft_are_as_before():
    lora = LoraConfig(target_modules=["query"], task_type="SEQ_CLS")

    model = get_peft_model(bert(), lora)

    assert type(model) is PeftModelForSequenceClassification
    plain = PeftModel(resnet(), LoraConfig(target_modules=["convolution"]))
    assert type(plain) is PeftModel
    with pytest.raises(TypeError):
        PeftModel()


def test_peft_state_dict_is_that_of_the_file(tmp_path):
    if not hasattr(peft.tuners.tuners_utils.BaseTuner, "_get_adapter_state_dict"):
        pytest.skip("PEFT asks the tuner since 0.21")
    model = quiet_wrap(resnet(), BioTuneConfig(lr_multipliers={"stage1": 1.0, "head": 1.0}))

    state = get_peft_model_state_dict(model)

    names = {name.removeprefix("base_model.model.") for name in state}
    assert names == set(model.base_model.tensor_names())
    start = snapshot(model)
    peft.set_peft_model_state_dict(model, {name: v + 1 for name, v in state.items()})
    assert all(snapshot(model)[name].equal(start[name] + 1) for name in state)
