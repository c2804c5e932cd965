from __future__ import annotations

import json

import pytest


@pytest.fixture
def source(model_directory, image_folder):
    return ["--model", model_directory, "--dataset", image_folder]


def test_compare_writes_tables_and_joins_what_is_there(run, source, tmp_path):
    options = ["--methods", "linear-probe", "--seeds", "1", "--splits", "1", "--epochs", "1"]
    out = tmp_path / "out"
    status, output, errors = run("compare", *source, *options, "--cpu", "--output-dir", out)
    assert status == 0, errors
    assert "split 0, linear-probe: tuning" in output
    assert "linear probe" in (out / "table.md").read_text()
    status, output, errors = run(
        "compare", *source, *options, "--cpu", "--output-dir", out, "--json"
    )
    assert status == 0
    assert "done] split 0" not in errors
    assert json.loads(output)["methods"][0]["name"] == "linear-probe"


def test_a_comparison_and_a_search_keep_out_of_each_others_directories(run, source, tmp_path):
    options = ["--methods", "linear-probe", "--seeds", "1", "--splits", "1", "--epochs", "1"]
    (tmp_path / "searched").mkdir()
    (tmp_path / "searched" / "comparison.json").write_text("[{}]")
    status, _, errors = run("compare", *source, *options, "--output-dir", tmp_path / "searched")
    assert status == 2
    assert "is not of a comparison of methods" in errors
    (tmp_path / "compared" / "units").mkdir(parents=True)
    for command in ("search", "tune"):
        status, _, errors = run(command, *source, "--output-dir", tmp_path / "compared")
        assert status == 2
        assert "holds a comparison of methods" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "no-such"], "recipe must be a YAML file or one of cifar-10-densenet-121"),
        (["--methods", "luck"], "a comparison needs a recipe, or a model and a data set"),
        (["--recipe", "digits-100", "--model", "m"], "brings its own model and data set, got 'm'"),
        (["--recipe", "digits-100"], "needs 'demo/efficientnet-lite0', which is not there; make"),
    ],
)
def test_mistakes_of_a_comparison_are_named(run, words, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    status, _, errors = run("compare", *words)
    assert status == 2
    assert message in errors


def test_unknown_methods_are_answered_with_the_list(run, source, tmp_path):
    status, _, errors = run("compare", *source, "--methods", "luck", "--output-dir", tmp_path)
    assert status == 2
    assert "methods must be among linear-probe, full," in errors
    assert "got 'luck'" in errors
    status, _, errors = run("compare", *source, "--seeds", "one", "--output-dir", tmp_path)
    assert "--seeds must be numbers separated by commas, such as 1,2,3, got 'one'" in errors


def test_backbones_are_ranked(run, model_directory, image_folder):
    status, output, errors = run(
        "rank-backbones", model_directory, "--dataset", image_folder, "--cpu"
    )
    assert status == 0, errors
    assert "LogME" in output
