import pytest
import torch
from hub_examples import logits, make_base, make_tuned, write_run
from huggingface_hub import ModelCard
from report_examples import make_comparison, make_data

from hf_biotune import BioTuneConfig, get_biotune_model
from hf_biotune.hub import push_directory
from hf_biotune.report import write_report
from hf_biotune.report.card import write_model_card

HOSTILE = 'x: [y]\n---\n# "{&}*!|>%@`'


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("comparison", [None, make_comparison(), make_comparison((0.9,), (0.8,))])
def test_the_card_of_a_run_is_valid(hub, tmp_path, seed, comparison):
    if comparison is not None:
        comparison = comparison.iloc[1:]
    path = write_model_card(
        tmp_path,
        make_data(comparison=comparison),
        base_model="timm/tf_efficientnet_lite0.in1k",
        dataset="ylecun/mnist",
        license="apache-2.0",
        seed=seed,
    )
    card = ModelCard.load(path)
    card.validate()
    assert hub.requests == ["POST /api/validate-yaml"]
    assert bool(card.data.eval_results) == (comparison is not None)


def test_a_card_of_hostile_names_is_valid(hub, tmp_path):
    data = make_data(title=HOSTILE, model_name=HOSTILE, dataset_name=HOSTILE, metric=HOSTILE)
    ModelCard.load(write_model_card(tmp_path, data, base_model=HOSTILE, dataset=HOSTILE)).validate()


def test_the_server_does_refuse_a_bad_card(hub):
    with pytest.raises(ValueError, match="base_model"):
        ModelCard("---\nbase_model: a b\n---\n").validate()


@pytest.mark.parametrize("base", ["timm/resnet18", "/home/me/model", HOSTILE, ".", None])
def test_the_card_of_an_adapter_is_valid(hub, tmp_path, base):
    config = BioTuneConfig(
        blocks={"a | b\n<script>": "resnet", "head": "classifier"},
        lr_multipliers={"head": 1.0},
    )
    model = get_biotune_model(make_base(), config)
    model.active_peft_config.base_model_name_or_path = base
    for _ in range(2):
        model.save_pretrained(tmp_path)
        card = ModelCard.load(tmp_path / "README.md")
        card.validate()
        assert card.data.to_dict().get("base_model") == (base if base == "timm/resnet18" else None)
        assert card.text.count("# BioTune adapter") == 1
        assert "<script>" not in card.text.replace("`a \N{BROKEN BAR} b <script>`", "")
        assert "/home/me" not in card.text


def test_the_card_and_its_figures_are_pushed_with_the_run(hub, name, tmp_path):
    write_run(tmp_path, make_tuned())
    write_report(tmp_path, make_data())
    write_model_card(tmp_path, make_data())
    push_directory(tmp_path, name)
    assert hub.files(name)["README.md"] == (tmp_path / "README.md").read_bytes()
    assert "![Scores by generation](evolution.png)" in ModelCard.load(name).text
    assert "evolution.png" in hub.files(name)


def test_the_snippet_that_loads_without_us_gives_the_same_outputs(hub, tmp_path, monkeypatch):
    tuned = make_tuned()
    tuned.save_pretrained(tmp_path / "adapter")
    text = write_model_card(tmp_path, make_data()).read_text(encoding="utf-8")
    snippet = text.split("Without it")[1].split("```python\n")[1].split("```")[0]
    assert "biotune" not in snippet
    base = make_base()
    monkeypatch.chdir(tmp_path)
    exec(snippet, {"base": base})
    assert torch.equal(logits(base), logits(tuned))


def test_pictures_and_folders_that_are_not_of_the_run_stay_at_home(hub, name, tmp_path):
    write_run(tmp_path, make_tuned())
    write_report(tmp_path, make_data())
    for path in ("patient.png", "patients/xray.png", "adapter/checkpoints/optimizer.pt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"private")
    push_directory(tmp_path, name)
    pushed = hub.files(name)
    assert b"private" not in pushed.values()
    assert "adapter/adapter_model.safetensors" in pushed
    assert "report.html" in pushed
