from __future__ import annotations

import pytest
import timm

from hf_biotune import partition
from hf_biotune.exceptions import ConfigError
from hf_biotune.recipes import read_recipe, recipe_names, recipe_of
from hf_biotune.search.models import architecture

PAPER_CLASSES = {
    "mnist": 10,
    "usps": 10,
    "svhn": 10,
    "cifar-10": 10,
    "stl-10": 10,
    "flowers-102": 102,
    "dtd": 47,
    "fgvc-aircraft": 100,
    "isic-2020": 2,
}
NETWORKS = ("resnet-50", "densenet-121", "vgg-19", "inception-v3")
LOCAL = (
    "digits-100",
    "elpv-256",
    "elpv-4",
    "libraries-200",
    "mnist-200",
    "mnist-to-digits",
    "scipy-200",
)
VALID = """\
description: one line
source: here
dataset: data
classes: 3
model: model
"""


def test_the_recipes_are_those_of_the_paper_and_the_local_ones():
    of_paper = [f"{data}-{network}" for data in PAPER_CLASSES for network in NETWORKS]
    assert recipe_names() == sorted([*of_paper, *LOCAL])
    for data, classes in PAPER_CLASSES.items():
        for network in NETWORKS:
            recipe = read_recipe(f"{data}-{network}")
            assert recipe.classes == recipe.arena.n_classes == classes
            assert (recipe.arena.epochs, recipe.arena.patience) == (30, 3)
            assert recipe.arena.learning_rate == 1e-3


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_of_the_paper_have_its_blocks_and_are_on_the_hub(network):
    recipe = read_recipe(f"mnist-{network}")
    assert len(partition(architecture(recipe.architecture), "paper")) == recipe.n_blocks
    # timm's own list of what it has published.
    name = recipe.arena.model.removeprefix("timm/")
    assert timm.get_pretrained_cfg(name).hf_hub_id == recipe.arena.model


def test_local_recipes_say_how_their_files_are_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in LOCAL:
        recipe = read_recipe(name)
        assert "prepare_demo.py" in recipe.prepare
        with pytest.raises(ConfigError, match="which is not there; make it with"):
            recipe.check_files()


def test_a_recipe_can_be_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(VALID + "training: {epochs: 4, image_size: 32}\nseeds: [7]\n")
    recipe = read_recipe(str(path))
    assert (recipe.name, recipe.seeds, recipe.splits) == ("mine", (7,), 3)
    assert recipe.arena_with(epochs=5).image_size == 32


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "must be a mapping of fields to values, got list"),
        ("a: [", "is not valid YAML"),
        (VALID.replace("classes: 3\n", ""), "lacks classes"),
        (VALID + "colour: red\n", "must have only description, .*, got colour"),
        (VALID.replace("3", "three"), "classes must be int, got 'three'"),
        (VALID.replace("3", "1"), "classes must be at least 2, got 1"),
        (VALID + "training: {speed: 3}\n", "training must have only batch_size, .*, got speed"),
        (VALID + "networks: [vgg-19]\n", "must have either model or networks"),
        (VALID.replace("model: model", "networks: [vgg]"), "networks must be among .*, got 'vgg'"),
        (VALID + "training: {epochs: 0}\n", "epochs must be an integer of at least 1, got 0"),
    ],
)
def test_mistakes_in_a_recipe_are_named(text, message, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_recipe(str(path))


def test_unknown_recipes_are_answered_with_the_list():
    with pytest.raises(ConfigError, match=r"one of cifar-10-densenet-121, .*usps-vgg-19, got 'no'"):
        read_recipe("no")
    with pytest.raises(ConfigError, match=r"'no.yaml' can't be read"):
        read_recipe("no.yaml")


def test_a_model_and_a_data_set_do_without_a_recipe():
    assert recipe_of(None, "model", "data").arena.model == "model"
    with pytest.raises(ConfigError, match="needs a recipe, or a model and a data set"):
        recipe_of(None, "model", None)
