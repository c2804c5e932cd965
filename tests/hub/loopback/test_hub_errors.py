import pytest
import torch
from hub_examples import contents, logits, make_base, make_tuned, write_run
from hub_server import READER

from hf_biotune import BioTuneModel
from hf_biotune.exceptions import CheckpointError
from hf_biotune.hub import push_directory

BATCH = r"\.git/info/lfs/objects/batch"


@pytest.fixture
def base():
    return make_base()


def pull(base, name, **kwargs):
    """Try to load; whatever happens, the base model must be usable as before."""
    try:
        return BioTuneModel.from_pretrained(base, name, **kwargs)
    except CheckpointError:
        assert torch.equal(logits(base), logits(make_base()))
        assert all(parameter.requires_grad for parameter in base.parameters())
        assert not hasattr(base, "peft_config")
        raise


def test_a_missing_repository_is_named(hub, name, base):
    with pytest.raises(CheckpointError, match=rf"'{name}' can't be read: there is no such repo"):
        pull(base, name)


def test_a_name_that_is_no_repository_is_explained(hub, base):
    with pytest.raises(CheckpointError, match=r"^\S+ of 'a/b/c' can't be read: .* must be like"):
        pull(base, "a/b/c")


def test_a_repository_without_an_adapter_says_which_file_is_missing(hub, name, base, tmp_path):
    (tmp_path / "best_config.json").write_text("")
    push_directory(tmp_path, name)
    with pytest.raises(CheckpointError, match=r"^adapter_config.json of .* has no such file"):
        pull(base, name)


def test_an_adapter_without_weights_says_which_file_is_missing(hub, name, base):
    make_tuned().push_to_hub(name)
    repository = hub.repositories[name]
    files = dict(repository.commits[repository.branches["main"]])
    files.pop("adapter_model.safetensors")
    repository.commit("main", files)
    with pytest.raises(CheckpointError, match=r"^adapter_model.safetensors of .* no such file"):
        pull(base, name)


def test_a_wrong_subfolder_is_a_missing_file(hub, name, base):
    make_tuned().push_to_hub(name)
    with pytest.raises(CheckpointError, match="is `subfolder` right"):
        pull(base, name, subfolder="elsewhere")


def test_a_wrong_revision_is_named(hub, name, base):
    make_tuned().push_to_hub(name)
    with pytest.raises(CheckpointError, match="has no revision 'v9'; give a branch, tag or commit"):
        pull(base, name, revision="v9")


def test_a_wrong_token_is_explained(hub, name, base):
    make_tuned().push_to_hub(name)
    with pytest.raises(CheckpointError, match=r"token is missing or wrong; .*hf auth login.*401"):
        pull(base, name, token="hf_wrong")


def test_a_private_repository_needs_a_token(hub, name, base):
    make_tuned().push_to_hub(name, private=True)
    with pytest.raises(CheckpointError, match=r"or it is private.*401"):
        pull(base, name, token=False)


def test_a_pull_that_fails_once_works_the_next_time(hub, name, base):
    tuned = make_tuned()
    tuned.push_to_hub(name)
    hub.fail("GET", "safetensors", status=500)
    with pytest.raises(CheckpointError, match=r"the Hub failed \(500\).*try again later"):
        pull(base, name)
    hub.faults.clear()
    assert torch.equal(logits(pull(base, name)), logits(tuned))


@pytest.mark.parametrize(("token", "message"), [(READER, "write access.*403"), ("hf_no", "401")])
def test_who_may_not_write_is_told_so_and_keeps_the_files(hub, name, tmp_path, token, message):
    directory = write_run(tmp_path, make_tuned())
    before = contents(directory)
    with pytest.raises(CheckpointError, match=rf"'{name}' can't be written: .*{message}"):
        push_directory(directory, name, token=token)
    with pytest.raises(CheckpointError, match=message):
        make_tuned().push_to_hub(name, token=token)
    assert contents(directory) == before
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/api/repos/create", 500),
        ("POST", "/preupload/", 503),
        ("POST", BATCH, 500),
        ("PUT", "/lfs/", 500),
        ("POST", "/commit/", 500),
    ],
)
def test_an_upload_that_breaks_off_changes_nothing_and_can_be_repeated(
    hub, name, base, tmp_path, method, path, status
):
    tuned = make_tuned()
    directory = write_run(tmp_path, tuned)
    before = contents(directory)
    hub.fail(method, path, status)
    with pytest.raises(CheckpointError, match=rf"Hub failed \({status}\); nothing was changed"):
        push_directory(directory, name)
    assert contents(directory) == before
    assert name not in hub.repositories or hub.files(name) == {}
    hub.faults.clear()
    push_directory(directory, name)
    assert torch.equal(logits(pull(base, name, subfolder="adapter")), logits(tuned))


def test_one_failure_in_mid_upload_is_overcome_without_asking(hub, name, base):
    tuned = make_tuned()
    hub.fail("PUT", "/lfs/", status=500, times=1)
    tuned.push_to_hub(name)
    assert torch.equal(logits(pull(base, name)), logits(tuned))


def test_an_adapter_whose_upload_broke_off_is_as_before(hub, name):
    tuned = make_tuned()
    before, training = logits(tuned), [p.requires_grad for p in tuned.parameters()]
    hub.fail("POST", "/commit/", status=500)
    with pytest.raises(CheckpointError, match="try again later"):
        tuned.push_to_hub(name)
    assert torch.equal(logits(tuned), before)
    assert [p.requires_grad for p in tuned.parameters()] == training


def test_a_broken_upload_leaves_what_is_on_the_hub(hub, name):
    tuned = make_tuned()
    tuned.push_to_hub(name)
    before = hub.files(name)
    with torch.no_grad():
        tuned.base_model.model.classifier[1].weight.mul_(2)
    hub.fail("POST", "/commit/", status=500)
    with pytest.raises(CheckpointError):
        tuned.push_to_hub(name)
    assert hub.files(name) == before


def test_a_missing_branch_to_push_to_is_named(hub, name):
    make_tuned().push_to_hub(name)
    with pytest.raises(CheckpointError, match="has no revision 'v9'"):
        make_tuned().push_to_hub(name, revision="v9")


def test_a_directory_with_nothing_to_push_is_refused_before_anything_is_asked(hub, name, tmp_path):
    (tmp_path / "secrets.env").write_text("PASSWORD=1")
    with pytest.raises(CheckpointError, match="nothing to upload; give the output directory"):
        push_directory(tmp_path, name)
    assert hub.requests == []


def test_a_directory_of_something_else_is_refused_though_it_has_a_card(hub, name, tmp_path):
    (tmp_path / "README.md").write_text("# My project")
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"none of report.json, best_config.json, adapter/"):
        push_directory(tmp_path, name)
    assert hub.requests == []


def test_a_failed_second_adapter_leaves_the_first_alone(hub, name):
    tuned = make_tuned()
    before = logits(tuned)
    tuned.push_to_hub(name)
    repository = hub.repositories[name]
    files = dict(repository.commits[repository.branches["main"]])
    files["adapter_model.safetensors"] = hub.keep(b"\0" * 100)
    repository.commit("main", files)
    with pytest.raises(CheckpointError):
        tuned.load_adapter(name, adapter_name="second")
    assert list(tuned.peft_config) == ["default"]
    assert torch.equal(logits(tuned), before)
