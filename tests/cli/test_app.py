from __future__ import annotations

import json
import shutil
from inspect import signature

import pandas as pd
import pytest
from PIL import Image
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from hf_biotune import BioTuneConfig, BioTuneEnsemble, BioTuneModel, __version__
from hf_biotune.cli import app
from hf_biotune.search.storages import STUDY_NAME

TINY = [
    *("--epochs", "2"),
    *("--batch-size", "20"),
    *("--population-size", "5"),
    *("--budget", "8"),
    "--cpu",
]


@pytest.fixture
def source(model_directory, image_folder):
    return ["--model", model_directory, "--dataset", image_folder]


def test_version_and_help(run):
    assert run("--version")[1].strip() == __version__
    status, output, _ = run("--help")
    assert status == 0
    assert len(output.splitlines()) <= 30
    for command in ("blocks", "search", "train", "tune", "push"):
        assert command in output


@pytest.mark.parametrize("command", [app.search, app.tune])
def test_a_study_has_the_name_that_the_library_gives_it(command):
    # Not imported there: it would slow down every command's start.
    assert signature(command).parameters["study_name"].default == STUDY_NAME


def test_blocks_prints_every_block_with_its_parameters(run):
    status, output, _ = run("blocks", "timm:resnet18")
    assert status == 0
    for text in ("stem", "layer1", "layer4", "head", "513,000", "8,393,728"):
        assert text in output


def test_tune_does_the_whole_job(run, source, tmp_path):
    out = tmp_path / "out"
    status, output, errors = run("tune", *source, "--output-dir", out, *TINY)
    assert status == 0, errors
    for file in ("best_config.json", "study.journal", "history.csv", "report.html", "README.md"):
        assert (out / file).stat().st_size > 0
    # A search alone would leave this winner's adapter beside the configuration of its own.
    status, _, errors = run("search", *source, "--output-dir", out, *TINY)
    assert status == 2
    assert "holds what `hf-biotune tune` (or train) has made" in errors
    for picture in ("evolution", "individuals", "blocks", "comparison"):
        with Image.open(out / f"{picture}.png") as image:
            assert image.width > 400
    assert "full fine-tuning" in output
    assert not list(out.glob("checkpoints-*"))
    report = (out / "report.html").read_text()
    assert "hf-biotune tune --model" in report
    line = (out / "reproduce.sh").read_text().splitlines()[1]
    assert line.startswith(f"hf-biotune tune --model {source[1]} --dataset {source[3]}")

    config = json.loads((out / "best_config.json").read_text())
    history = pd.read_csv(out / "history.csv")
    assert set(config["lr_multipliers"]) <= {"stem", "layer1", "layer2", "layer3", "layer4", "head"}
    assert {"trial", "generation", "score", "multiplier:head"} <= set(history.columns)

    base = AutoModelForImageClassification.from_pretrained(source[1])
    tuned = BioTuneModel.from_pretrained(base, str(out / "adapter"))
    assert tuned.active_peft_config.lr_multipliers == config["lr_multipliers"]

    comparison = pd.read_json(out / "comparison.json")
    assert comparison.method.tolist() == ["linear probe", "full fine-tuning", "BioTune"]
    assert all(len(scores) == 3 for scores in comparison.test_scores)


@pytest.mark.slow
def test_tune_can_keep_what_the_search_trained_and_save_an_ensemble(run, source, tmp_path):
    final = ["--retrain", "none", "--ensemble", "3"]
    status, output, errors = run("tune", *source, "--output-dir", tmp_path, *TINY, *final)
    assert status == 0, errors
    assert "BioTune ensemble of 3" in output
    assert " kept " in output
    assert f"Ensemble: {tmp_path / 'ensemble'}" in output
    base = AutoModelForImageClassification.from_pretrained(source[1])
    ensemble = BioTuneEnsemble.from_pretrained(base, tmp_path / "ensemble")
    assert len(ensemble.members) == 3


def test_search_then_train_gives_an_adapter(run, source, tmp_path):
    rate = ("--learning-rate", "3e-4")
    status, output, errors = run("search", *source, "--output-dir", tmp_path, *TINY, *rate)
    assert status == 0, errors
    assert "winner" in output
    assert json.loads((tmp_path / "best_config.json").read_text())["base_learning_rate"] == 3e-4
    report = json.loads((tmp_path / "report.json").read_text())
    # There is no adapter yet, and nothing was compared.
    assert 'read_config("best_config.json"))  # not trained yet' in report["python"]
    facts = str(report["facts"])
    assert "base learning rate" in facts
    assert "compared methods" not in facts
    assert "final trainings" not in facts
    # Warnings are errors here: another rate than that of the search would be one.
    status, output, errors = run(
        *("train", *source, "--adapter-config", tmp_path / "best_config.json"),
        *("--output-dir", tmp_path / "trained", "--epochs", 2, "--cpu"),
    )
    assert status == 0, errors
    assert "epoch 2/2" in output
    assert "test macro_accuracy: 0." in output
    assert (tmp_path / "trained" / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.slow
def test_texts_are_tuned_by_the_same_command(run, language_model_directory, text_tables, tmp_path):
    source = ["--model", language_model_directory, "--dataset", text_tables]
    status, output, errors = run("tune", *source, "--output-dir", tmp_path, *TINY)
    assert status == 0, errors
    assert "scipy-parts: test macro_accuracy" in output
    card = (tmp_path / "README.md").read_text()
    assert "pipeline_tag: text-classification" in card
    assert "AutoModelForSequenceClassification.from_pretrained" in card
    classifier = AutoModelForSequenceClassification.from_pretrained(
        language_model_directory, num_labels=3, ignore_mismatched_sizes=True
    )
    tuned = BioTuneModel.from_pretrained(classifier, str(tmp_path / "adapter"))
    tokens = AutoTokenizer.from_pretrained(language_model_directory)(["mean"], return_tensors="pt")
    assert tuned(**tokens).logits.shape == (1, 3)


def test_an_option_for_images_is_refused_for_texts(
    run, language_model_directory, text_tables, tmp_path
):
    source = ["--model", language_model_directory, "--dataset", text_tables]
    status, _, errors = run("search", *source, "--output-dir", tmp_path, "--image-size", "32")
    assert status == 2
    assert "--image-size has no meaning for" in errors
    assert "which is for text classification" in errors


def test_a_text_longer_than_the_model_takes_is_refused(
    run, language_model_directory, text_tables, tmp_path
):
    model = tmp_path / "model"
    shutil.copytree(language_model_directory, model)
    tokenizer = AutoTokenizer.from_pretrained(language_model_directory, model_max_length=None)
    tokenizer.save_pretrained(model)
    source = ["--model", model, "--dataset", text_tables]
    status, _, errors = run("search", *source, "--output-dir", tmp_path, "--max-length", "65")
    assert status == 2
    assert "max_length must be in [8, 64]" in errors


def test_searching_again_goes_on_with_what_is_there(run, source, tmp_path):
    run("search", *source, "--output-dir", tmp_path, *TINY)
    status, output, _ = run("search", *source, "--output-dir", tmp_path, *TINY)
    assert status == 0
    assert "going on after" in output
    assert "individual  " not in output.split("going on after")[1].split("finalist")[0]


def test_a_storage_may_hold_several_searches(run, source, tmp_path):
    shared = (*source, "--storage", f"sqlite:///{tmp_path / 'studies.db'}", *TINY)
    for name, seed in (("one", 0), ("two", 1)):
        options = ("--study-name", name, "--seed", seed, "--output-dir", tmp_path / name)
        status, _, errors = run("search", *shared, *options)
        assert status == 0, errors
    options = ("--study-name", "one", "--seed", 2, "--output-dir", tmp_path / "three")
    status, _, errors = run("search", *shared, *options)
    assert status == 2
    assert "another study name" in errors
    # Of the study that the run was about, also if it has not ended.
    (tmp_path / "two" / "report.json").unlink()
    assert run("report", tmp_path / "two")[0] == 0


def test_another_search_in_the_same_directory_is_refused(run, source, tmp_path):
    run("search", *source, "--output-dir", tmp_path, *TINY)
    status, _, errors = run("search", *source, "--output-dir", tmp_path, *TINY, "--seed", 3)
    assert status == 2
    assert "seed (there 0, here 3)" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "./no/such/model"], "no model './no/such/model'"),
        (["--text-column", "text"], "--text-column has no meaning for"),
        (["--max-length", "32"], "which is for image classification; leave it out"),
        (["--dataset", "./no/such/data"], "no data set at './no/such/data'"),
        (["--dataset-config", "plain"], "a configuration is for data sets on the Hub"),
        (["--label-column", "species"], "species"),
        (["--blocks", "classifier,layer9"], "no module or parameter matches 'layer9'"),
        (["--budget", "soon"], "budget must be a number of trainings, a time or"),
        (["--budget", "0"], "budget must be greater than 0"),
        (["--population-size", "2"], "population_size must be at least n_elites + 2 = 3, got 2"),
        (["--extra-gene", "momentum"], "extra_genes must be among base_lr, l2sp, norm_statistics"),
        (["--objective", "accuracy", "--objective", "flops"], "among trainable_parameters, sec"),
        (["--sampler", "annealing"], "sampler must be one of biotune, random, tpe, cmaes, gp"),
        (["--metric", "auc"], "metric must be one of macro_accuracy, accuracy, f1, loss"),
        (["--train-fraction", "0"], "train_fraction"),
        (["--learning-rate", "0"], "learning_rate must be greater than 0, got 0.0"),
        (["--report-to", "foo"], "report_to must be none or one of"),
        (["--norm-statistics", "moving"], "norm_statistics must be one of 'auto', 'epoch'"),
    ],
)
def test_a_mistake_is_one_clear_line_without_a_traceback(run, source, tmp_path, options, message):
    command = ["search", *source, "--output-dir", tmp_path, *TINY, *options]
    status, _, errors = run(*command)
    assert status == 2
    assert errors.startswith("error:")
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("command", ["search", "tune", "train", "compare"])
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_directory_that_is_a_file_is_a_mistake(run, source, tmp_path, command, place):
    (tmp_path / "file").write_text("mine")
    more = []
    if command == "train":
        BioTuneConfig(lr_multipliers={"head": 1.0}).save_pretrained(tmp_path)
        more = ["--adapter-config", tmp_path / "adapter_config.json"]
    status, _, errors = run(command, *source, *more, "--output-dir", tmp_path / place)
    assert status == 2
    assert f"'{tmp_path / 'file'}' is a file; give another one" in errors


def test_images_of_one_class_are_nothing_to_search_for(run, source, image_folder, tmp_path):
    for split in ("train", "validation"):
        shutil.copytree(image_folder / split / "digit1", tmp_path / "data" / split / "digit1")
    command = ["search", *source[:3], tmp_path / "data", "--output-dir", tmp_path / "out", *TINY]
    status, _, errors = run(*command)
    assert status == 2
    assert "at least 2 classes are needed" in errors


def test_the_mode_of_batch_norm_may_be_left_to_evolution(run, source, tmp_path):
    command = ("search", *source, "--output-dir", tmp_path, *TINY, "--norm-statistics", "auto")
    status, _, errors = run(*command)
    assert status == 0, errors
    history = pd.read_csv(tmp_path / "history.csv")
    assert history.start.tolist()[2] == "full fine-tuning, frozen statistics"
    assert set(history.norm_statistics) == {"epoch", "frozen"}


@pytest.mark.parametrize("command", ["search", "tune"])
def test_one_of_several_processes_is_no_place_for_a_command(
    run, source, tmp_path, monkeypatch, command
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, errors = run(command, *source, "--output-dir", tmp_path, *TINY)
    assert status == 2
    assert errors.startswith("error: hf-biotune trains in one process, but torchrun or accelerate")


def test_a_corrupt_image_is_named_and_can_be_skipped(run, source, image_folder, tmp_path):
    broken = tmp_path / "digits"
    shutil.copytree(image_folder, broken)
    victim = sorted((broken / "train" / "digit3").glob("*.png"))[0]
    victim.write_bytes(victim.read_bytes()[:60])
    command = ["search", "--model", source[1], "--dataset", broken, "--output-dir", tmp_path / "o"]
    status, _, errors = run(*command, *TINY)
    assert status == 2
    assert victim.name in errors
    status, _, errors = run(*command, *TINY, "--skip-bad-images")
    assert status == 0, errors


def test_an_interrupt_says_how_to_go_on(run, source, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_biotune.search.biotune_search", interrupt)
    status, _, errors = run("search", *source, "--output-dir", tmp_path, *TINY)
    assert status == 130
    assert "every finished individual is kept. Go on" in errors
    assert "Go on with the same command:" in errors
    assert f"--output-dir {tmp_path}" in errors


def test_an_interrupted_training_says_that_nothing_is_kept(run, source, tmp_path, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    BioTuneConfig(lr_multipliers={"head": 1.0}).save_pretrained(tmp_path)
    monkeypatch.setattr("hf_biotune.search.FineTuner.fit", interrupt)
    status, _, errors = run(
        *("train", *source, "--adapter-config", tmp_path / "adapter_config.json"),
        *("--output-dir", tmp_path / "trained", "--cpu"),
    )
    assert status == 130
    assert "stopped; nothing of the training is kept. The same command begins anew:" in errors


def test_train_refuses_a_file_that_is_no_configuration(run, source, tmp_path):
    (tmp_path / "config.json").write_text("[1, 2]")
    status, _, errors = run("train", *source, "--adapter-config", tmp_path / "config.json")
    assert status == 2
    assert errors.startswith("error:")


def test_push_refuses_a_directory_that_holds_no_run(run, tmp_path):
    status, _, errors = run("push", tmp_path, "me/model")
    assert status == 2
    assert errors.startswith("error:")
    assert str(tmp_path) in errors
