import json

import pytest
import torch
from hub_examples import contents, logits, make_base, make_tuned, write_run
from transformers import AutoModelForImageClassification

from hf_biotune import BioTuneConfig, BioTuneModel
from hf_biotune.hub import push_directory


def test_a_pushed_adapter_gives_the_same_outputs_when_it_is_pulled(hub, name):
    tuned = make_tuned()
    address = tuned.push_to_hub(name)
    assert address.startswith(f"{hub.url}/{name}/commit/")
    assert set(hub.files(name)) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    pulled = BioTuneModel.from_pretrained(make_base(), name)
    assert torch.equal(logits(pulled), logits(tuned))
    assert not torch.equal(logits(pulled), logits(make_base()))


def test_a_revision_is_the_adapter_of_that_time(hub, name):
    tuned = make_tuned()
    tuned.push_to_hub(name)
    first, before = hub.repositories[name].branches["main"], logits(tuned)
    with torch.no_grad():
        tuned.base_model.model.classifier[1].weight.mul_(2)
    tuned.push_to_hub(name)
    assert torch.equal(logits(BioTuneModel.from_pretrained(make_base(), name)), logits(tuned))
    old = BioTuneModel.from_pretrained(make_base(), name, revision=first)
    assert torch.equal(logits(old), before)


def test_an_adapter_can_be_pushed_to_a_branch(hub, name):
    tuned = make_tuned()
    tuned.push_to_hub(name)
    hub.repositories[name].branches["better"] = hub.repositories[name].branches["main"]
    with torch.no_grad():
        tuned.base_model.model.classifier[1].weight.mul_(2)
    tuned.push_to_hub(name, revision="better")
    pulled = BioTuneModel.from_pretrained(make_base(), name, revision="better")
    assert torch.equal(logits(pulled), logits(tuned))
    main = BioTuneModel.from_pretrained(make_base(), name)
    assert not torch.equal(logits(main), logits(tuned))


def test_the_output_of_a_search_is_pushed_whole_and_nothing_else_is(hub, name, tmp_path):
    tuned = make_tuned()
    push_directory(write_run(tmp_path, tuned), name)
    assert set(hub.files(name)) == {
        "best_config.json",
        "history.csv",
        "comparison.json",
        "report.html",
        "blocks.png",
        "adapter/README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    uploaded = hub.files(name)
    assert all(contents(tmp_path)[path] == uploaded[path] for path in uploaded)


def test_the_adapter_of_a_pushed_search_lies_in_its_subfolder(hub, name, tmp_path):
    tuned = make_tuned()
    push_directory(write_run(tmp_path, tuned), name)
    pulled = BioTuneModel.from_pretrained(make_base(), name, subfolder="adapter")
    assert torch.equal(logits(pulled), logits(tuned))
    config = BioTuneConfig.from_pretrained(name, subfolder="adapter")
    assert config.lr_multipliers == {"layer3": 2.5, "head": 1.0}


def test_a_merged_model_loads_without_us(hub, name):
    tuned = make_tuned()
    expected = logits(tuned)
    tuned.merge_and_unload().push_to_hub(name)
    assert "adapter_config.json" not in hub.files(name)
    plain = AutoModelForImageClassification.from_pretrained(name)
    assert type(plain).__name__ == "ResNetForImageClassification"
    assert torch.equal(logits(plain), expected)


def test_a_pulled_adapter_becomes_a_second_one(hub, name):
    tuned = make_tuned()
    tuned.push_to_hub(name)
    model = BioTuneModel.from_pretrained(make_base(), name)
    model.load_adapter(name, adapter_name="again")
    model.set_adapter("again")
    assert torch.equal(logits(model), logits(tuned))


def test_a_pushed_configuration_holds_no_path_of_this_machine(hub, name, tmp_path):
    tuned = make_tuned()
    write_run(tmp_path, tuned)
    push_directory(tmp_path, name)
    for content in hub.files(name).values():
        assert str(tmp_path).encode() not in content


def test_text_that_people_wrote_into_the_card_is_kept(hub, name):
    tuned = make_tuned()
    tuned.push_to_hub(name)
    repository = hub.repositories[name]
    files = dict(repository.commits[repository.branches["main"]])
    card = hub.files(name)["README.md"].decode()
    files["README.md"] = hub.keep((card + "\n## Where it is used\n\nIn a greenhouse.\n").encode())
    repository.commit("main", files)
    tuned.push_to_hub(name)
    card = hub.files(name)["README.md"].decode()
    assert card.endswith("\n## Where it is used\n\nIn a greenhouse.\n")
    assert card.count("# BioTune adapter") == 1


def test_a_private_repository_stays_private(hub, name):
    make_tuned().push_to_hub(name, private=True)
    assert hub.repositories[name].private


def test_a_configuration_of_another_method_on_the_hub_is_named(hub, name, tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    push_directory(tmp_path, name, files=("*",))
    with pytest.raises(ValueError, match="peft_type must be 'BIOTUNE', got 'LORA'"):
        BioTuneModel.from_pretrained(make_base(), name)
