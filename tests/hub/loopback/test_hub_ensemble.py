import pytest
import torch
from hub_examples import logits, make_base, make_tuned, write_run

from hf_biotune import BioTuneEnsemble, BioTuneModel
from hf_biotune.exceptions import CheckpointError
from hf_biotune.hub import push_directory


def make_ensemble(tmp_path):
    for number in range(2):
        tuned = make_tuned()
        with torch.no_grad():
            tuned.base_model.model.classifier[1].weight.mul_(number + 1)
        tuned.save_pretrained(tmp_path / str(number))
    return BioTuneEnsemble.from_adapters(make_base(), [tmp_path / "0", tmp_path / "1"])


def test_a_pushed_ensemble_gives_the_same_outputs_when_it_is_pulled(hub, name, tmp_path):
    together = make_ensemble(tmp_path)
    address = together.push_to_hub(name)
    assert address.startswith(f"{hub.url}/{name}/commit/")
    assert set(hub.files(name)) == {
        "README.md",
        "ensemble_config.json",
        *(f"member-{n}/adapter_{f}" for n in (0, 1) for f in ("config.json", "model.safetensors")),
    }
    pulled = BioTuneEnsemble.from_pretrained(make_base(), name)
    assert torch.equal(logits(pulled), logits(together))
    member = BioTuneModel.from_pretrained(make_base(), name, subfolder="member-1")
    assert not torch.equal(logits(member), logits(together))


def test_an_ensemble_of_adapters_on_the_hub(hub, name, tmp_path):
    tuned = make_tuned()
    tuned.push_to_hub(name)
    together = BioTuneEnsemble.from_adapters(make_base(), [name])
    torch.testing.assert_close(logits(together), logits(tuned).log_softmax(-1))


def test_the_ensemble_of_a_pushed_run_lies_in_its_subfolder(hub, name, tmp_path):
    together = make_ensemble(tmp_path)
    run = write_run(tmp_path / "run", make_tuned())
    together.save_pretrained(run / "ensemble")
    push_directory(run, name)
    pulled = BioTuneEnsemble.from_pretrained(make_base(), name, subfolder="ensemble")
    assert torch.equal(logits(pulled), logits(together))


def test_a_repository_without_an_ensemble_is_explained(hub, name, tmp_path):
    make_tuned().push_to_hub(name)
    with pytest.raises(CheckpointError, match=r"^ensemble_config.json of .* has no such file"):
        BioTuneEnsemble.from_pretrained(make_base(), name)
