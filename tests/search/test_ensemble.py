from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import wrapped
from PIL import Image
from torch import nn
from transformers import ConvNextImageProcessor, Trainer, TrainingArguments, pipeline
from transformers.modeling_outputs import ImageClassifierOutput, SequenceClassifierOutput
from wrapped import batch, same, snapshot, tuned

from hf_biotune import BioTuneConfig, BioTuneEnsemble, BioTuneModel, get_biotune_model
from hf_biotune.checkpoint import write_adapter
from hf_biotune.exceptions import CheckpointError, ConfigError
from hf_biotune.search import EncodedSplit
from hf_biotune.search.ensemble import EnsembleMember, files, trunk

MAKERS = [
    pytest.param(make, marks=[pytest.mark.slow] * (make is wrapped.torchvision_resnet))
    for make in wrapped.LAST_TWO
]


def save_members(make, directory):
    """Adapters of one base model: the last two blocks, the head, everything."""
    directories = []
    last = wrapped.LAST_TWO[make]
    everything = ("stem", *last) if make is not wrapped.sequential else ("layer0", *last)
    for number, blocks in enumerate((last, last[-1:], everything)):
        tuned(make, *blocks, rate=number + 1.0).save_pretrained(directory / str(number))
        directories.append(directory / str(number))
    return directories


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    made = {}

    def of(make):
        if make not in made:
            made[make] = save_members(make, tmp_path_factory.mktemp(make.__name__))
        return made[make]

    return of


@pytest.fixture
def ensemble(adapters):
    def of(make=wrapped.resnet, n=3):
        return BioTuneEnsemble.from_adapters(make(), adapters(make)[:n])

    return of


def inputs(make, n=4):
    return {name: value for name, value in batch(make(), n).items() if name != "labels"}


def call(model, make, **kwargs):
    given = inputs(make)
    takes_names = make in (wrapped.resnet, wrapped.vit, wrapped.bert)
    with torch.no_grad():
        return model(**given, **kwargs) if takes_names else model(*given.values(), **kwargs)


def logits_of(output):
    return output if torch.is_tensor(output) else output["logits"]


@pytest.mark.parametrize(
    ("make", "shared", "own"),
    [
        (wrapped.resnet, "resnet.embedder.embedder.convolution", "classifier.1"),
        (wrapped.bert, "bert.embeddings.word_embeddings", "classifier"),
    ],
)
def test_blocks_that_no_member_changed_are_computed_once(make, shared, own, ensemble):
    together = ensemble(make, n=2)
    call(together, make)  # finds out how
    calls = []
    for name in (shared, own):
        module = together.base_model.get_submodule(name)
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    call(together, make)
    assert calls == [shared, own, own]


def test_texts_of_another_length_are_as_exact(adapters, ensemble, monkeypatch):
    together = ensemble(wrapped.bert, n=2)
    calls = []
    shared = together.base_model.get_submodule("bert.embeddings.word_embeddings")
    shared.register_forward_hook(lambda *_: calls.append(1))
    for n_tokens in (12, 20, 7, 12):
        tokens = torch.arange(3, 3 + 4 * n_tokens).reshape(4, n_tokens) % 30
        with torch.no_grad():
            each = together.member_logits(tokens)
        for directory, logits in zip(adapters(wrapped.bert)[:2], each, strict=True):
            alone = BioTuneModel.from_pretrained(wrapped.bert(), directory)
            with torch.no_grad():
                assert torch.equal(logits, alone(input_ids=tokens)["logits"])
    # Lengths without end are not worth a plan each.
    monkeypatch.setattr(trunk, "MOST_PLANS", 3)
    calls.clear()
    with torch.no_grad():
        together.member_logits(tokens[:, :5])
        together.member_logits(tokens)
    assert len(calls) == 2 + 1


@pytest.mark.parametrize("make", MAKERS)
def test_a_member_gives_the_logits_of_its_own_adapter_bit_for_bit(make, adapters, ensemble):
    together = ensemble(make)
    with torch.no_grad():
        each = together.member_logits(*inputs(make).values())
    for directory, logits in zip(adapters(make), each, strict=True):
        alone = BioTuneModel.from_pretrained(make(), directory)
        assert torch.equal(logits, logits_of(call(alone, make)))
    assert len({logits.sum().item() for logits in each}) == 3


@pytest.mark.parametrize("make", MAKERS)
def test_probabilities_are_the_mean_of_the_members(make, ensemble):
    together = ensemble(make)
    with torch.no_grad():
        each = together.member_logits(*inputs(make).values())
    mean = logits_of(call(together, make)).softmax(-1)
    torch.testing.assert_close(mean, each.softmax(-1).mean(0))
    labels = torch.tensor([0, 1, 2, 0])
    loss = call(together, make, labels=labels)["loss"]
    assert loss.item() == pytest.approx(-mean.log()[range(4), labels].mean().item(), rel=1e-5)


def test_the_base_model_keeps_its_weights(ensemble, adapters):
    base = wrapped.resnet()
    before = snapshot(base)
    together = BioTuneEnsemble.from_adapters(base, adapters(wrapped.resnet))
    call(together, wrapped.resnet)
    assert together.base_model is base
    assert same(before, snapshot(base))
    assert not hasattr(base, "peft_config")


def test_outputs_have_the_form_of_the_base_model(ensemble):
    assert isinstance(call(ensemble(wrapped.resnet), wrapped.resnet), ImageClassifierOutput)
    assert isinstance(call(ensemble(wrapped.bert), wrapped.bert), SequenceClassifierOutput)
    assert torch.is_tensor(call(ensemble(wrapped.timm_resnet), wrapped.timm_resnet))
    labels = torch.tensor([0, 1, 2, 0])
    loss, logits = call(ensemble(), wrapped.resnet, labels=labels, return_dict=False)
    assert (loss.ndim, logits.shape) == (0, (4, 3))
    named = ensemble(wrapped.timm_resnet)(pixel_values=wrapped.images())
    assert set(named) == {"logits"}


def test_nothing_of_it_is_ever_in_train_mode(ensemble):
    together = ensemble(wrapped.vit)  # with dropout
    before = call(together, wrapped.vit).logits
    assert torch.equal(call(together.train(), wrapped.vit).logits, before)
    assert not any(parameter.requires_grad for parameter in together.parameters())


def test_members_follow_the_ensemble_to_another_precision(ensemble):
    together = ensemble().to(torch.float64)
    logits = together(pixel_values=wrapped.images().double()).logits
    assert together.member_logits(wrapped.images().double()).dtype == torch.float64
    torch.testing.assert_close(logits, call(ensemble(), wrapped.resnet).logits)


def test_members_follow_the_ensemble_to_another_memory_layout(ensemble):
    together = ensemble().to(memory_format=torch.channels_last)
    weights = [t for m in together.weights for t in m.by_name().values() if t.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_a_saved_ensemble_holds_what_changed_and_gives_the_same_outputs(ensemble, tmp_path):
    together = ensemble()
    together.save_pretrained(tmp_path)
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {
        "README.md",
        "ensemble_config.json",
        *(f"member-{n}/{f}" for n in range(3) for f in ("adapter_config.json",)),
        *(f"member-{n}/{f}" for n in range(3) for f in ("adapter_model.safetensors",)),
    }
    loaded = BioTuneEnsemble.from_pretrained(wrapped.resnet(), tmp_path)
    expected = call(together, wrapped.resnet).logits
    assert torch.equal(call(loaded, wrapped.resnet).logits, expected)
    assert [m.name for m in loaded.members] == ["member-0", "member-1", "member-2"]
    sizes = [
        (tmp_path / m.name / "adapter_model.safetensors").stat().st_size for m in loaded.members
    ]
    assert sizes[1] < sizes[0] < sizes[2]
    alone = BioTuneModel.from_pretrained(wrapped.resnet(), tmp_path, subfolder="member-1")
    with torch.no_grad():
        each = loaded.member_logits(wrapped.images())
        assert torch.equal(alone(pixel_values=wrapped.images()).logits, each[1])


def test_an_ensemble_that_can_not_be_saved_leaves_the_older_one_whole(
    ensemble, tmp_path, monkeypatch
):
    older = ensemble(n=2)
    older.save_pretrained(tmp_path)
    expected = call(older, wrapped.resnet).logits
    newer = ensemble(n=2)
    for weights in newer.weights:
        for tensor in weights.by_name().values():
            tensor.zero_()

    def full(directory, *rest):
        if directory.name == "member-1":
            raise OSError("No space left on device")
        write_adapter(directory, *rest)

    monkeypatch.setattr(files, "write_adapter", full)
    with pytest.raises(OSError, match="No space left"):
        newer.save_pretrained(tmp_path)
    loaded = BioTuneEnsemble.from_pretrained(wrapped.resnet(), tmp_path)
    assert torch.equal(call(loaded, wrapped.resnet).logits, expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "README.md",
        "ensemble_config.json",
        "member-0",
        "member-1",
    ]


class Prompted(nn.Module):
    """What its head's block holds counts from the first layer on."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.late, self.head = (nn.Linear(8, 8) for _ in range(3))
        self.prompts = nn.ParameterList([torch.zeros(8)])

    def forward(self, pixel_values):
        return self.head(self.late((self.embed(pixel_values) + self.prompts[0]).tanh()))


def test_a_member_that_changed_what_shared_blocks_depend_on_gives_its_own_logits(tmp_path, caplog):
    torch.manual_seed(0)
    base = Prompted()
    blocks = {"embed": ["embed"], "late": ["late"], "head": ["prompts", "head"]}
    batch, directories = torch.randn(4, 8), []
    for block in ("late", "head"):
        config = BioTuneConfig(blocks=blocks, lr_multipliers={block: 1.0}, saved_blocks=[])
        model = get_biotune_model(copy.deepcopy(base), config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(parameter.requires_grad)
        model.save_pretrained(tmp_path / block)
        directories.append(tmp_path / block)
    together = BioTuneEnsemble.from_adapters(copy.deepcopy(base), directories)
    with torch.no_grad():
        each = together.member_logits(batch)
        for directory, logits in zip(directories, each, strict=True):
            alone = BioTuneModel.from_pretrained(copy.deepcopy(base), directory)
            assert torch.equal(logits, alone(batch))


def test_scores_and_names_are_kept(adapters, tmp_path):
    base = wrapped.resnet()
    model = BioTuneModel.from_pretrained(base, adapters(wrapped.resnet)[0])
    member = EnsembleMember.take_from(model, "trial-7-seed-684", 0.9625)
    BioTuneEnsemble(base, [member]).save_pretrained(tmp_path)
    (loaded,) = BioTuneEnsemble.from_pretrained(wrapped.resnet(), tmp_path).members
    assert (loaded.name, loaded.validation_score) == ("trial-7-seed-684", 0.9625)
    card = (tmp_path / "README.md").read_text()
    assert "`trial-7-seed-684` | `stage1`, `head` |" in card
    assert "| 0.9625 |" in card


def test_a_whole_data_set_and_a_batch_can_be_predicted(ensemble):
    together = ensemble()
    pixels = torch.randint(0, 256, (7, 3, 32, 32), dtype=torch.uint8)
    split = EncodedSplit(
        {"pixel_values": pixels}, torch.arange(7) % 3, ("a", "b", "c"), (0.5,) * 3, (0.5,) * 3
    )
    whole = together.predict(split, batch_size=3)
    assert whole.shape == (7, 3)
    first = together.predict(split.batch(range(3)))
    assert torch.equal(whole[:3], first)
    assert torch.equal(together.predict(split.view(np.arange(3))), first)
    torch.testing.assert_close(whole.exp().sum(-1), torch.ones(7))


@pytest.mark.parametrize("make", [wrapped.timm_resnet, wrapped.bert])
def test_batches_of_other_models_can_be_predicted(ensemble, make):
    together = ensemble(make)
    assert torch.equal(together.predict(batch(make())), logits_of(call(together, make)))


def test_it_works_in_a_pipeline(ensemble):
    together = ensemble()
    processor = ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0)
    classify = pipeline("image-classification", together, image_processor=processor, device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    answer = classify(Image.fromarray(noise), top_k=3)
    pixels = processor(Image.fromarray(noise), return_tensors="pt")
    expected = together.predict(pixels)[0].exp()
    got = {entry["label"]: entry["score"] for entry in answer}
    for number, label in together.config.id2label.items():
        assert got[label] == pytest.approx(expected[number].item(), rel=1e-5)
    assert "BioTuneEnsemble" in repr(classify)


def test_trainer_evaluates_it(ensemble, tmp_path):
    together = ensemble()
    samples = [{"pixel_values": x, "labels": n % 3} for n, x in enumerate(wrapped.images())]
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", remove_unused_columns=False,
        label_names=["labels"], dataloader_pin_memory=False,
    )  # fmt: skip
    predicted = Trainer(together, args).predict(samples)
    np.testing.assert_allclose(predicted.predictions, call(together, wrapped.resnet).logits, 1e-5)


@pytest.mark.parametrize("failing", [0, 2])
def test_a_base_model_is_as_before_if_a_member_does_not_fit(adapters, tmp_path, failing):
    directories = list(adapters(wrapped.resnet))
    directories[failing] = adapters(wrapped.timm_resnet)[0]
    base = wrapped.resnet().train()
    before = snapshot(base)
    with pytest.raises((CheckpointError, ConfigError)):
        BioTuneEnsemble.from_adapters(base, directories)
    assert same(before, snapshot(base))
    assert all(parameter.requires_grad for parameter in base.parameters())
    assert all(module.training for module in base.modules())
    assert not hasattr(base, "peft_config")


def test_what_can_be_no_ensemble_is_refused(ensemble, adapters, tmp_path):
    members = ensemble().members
    with pytest.raises(ConfigError, match=r"at least one member, each of another name, got \[\]"):
        BioTuneEnsemble(wrapped.resnet(), [])
    with pytest.raises(ConfigError, match=r"got \['member-0', 'member-0'\]"):
        BioTuneEnsemble(wrapped.resnet(), [members[0], members[0]])
    holding = BioTuneModel.from_pretrained(wrapped.resnet(), adapters(wrapped.resnet)[0])
    with pytest.raises(ConfigError, match="must be plain, but holds an adapter"):
        BioTuneEnsemble(holding, members)
    several = wrapped.resnet()
    several.config.problem_type = "multi_label_classification"
    with pytest.raises(ConfigError, match="problem_type is 'multi_label_classification'"):
        BioTuneEnsemble(several, members)
    with pytest.raises(ConfigError, match="only safetensors are written"):
        ensemble().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(CheckpointError, match=r"no ensemble_config\.json in"):
        BioTuneEnsemble.from_pretrained(wrapped.resnet(), adapters(wrapped.resnet)[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="must be a directory"):
        ensemble().save_pretrained(tmp_path / "file")


def test_one_member_is_that_model(ensemble):
    logits = call(ensemble(n=1), wrapped.resnet).logits
    with torch.no_grad():
        member = ensemble(n=1).member_logits(wrapped.images())[0]
    torch.testing.assert_close(logits, member.log_softmax(-1))
    assert math.isclose(logits.exp().sum().item(), 4, rel_tol=1e-5)
