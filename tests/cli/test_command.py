"""What all commands have in common: help, files of options, output for machines, exit statuses."""

from __future__ import annotations

import json

import pytest
import typer
import yaml
from report.report_examples import make_data
from typer.core import TyperArgument

from hf_biotune.cli.app import app
from hf_biotune.cli.command import command_line
from hf_biotune.cli.output import output
from hf_biotune.cli.run_file import read_run_file, write_run_file
from hf_biotune.exceptions import ConfigError
from hf_biotune.report import write_report

TINY = ["--epochs", 1, "--batch-size", 20, "--population-size", 5, "--budget", 4, "--cpu"]
OUTPUT = ("json", "quiet", "verbose", "debug")
COMMANDS = typer.main.get_command(app).commands


@pytest.fixture
def source(model_directory, image_folder):
    return ["--model", model_directory, "--dataset", image_folder]


def parameters():
    return [(name, p) for name, command in COMMANDS.items() for p in command.params]


def test_the_help_of_the_program_fits_a_screen(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, output, _ = run("--help", columns=80)
    assert status == 0
    assert len(output.rstrip().splitlines()) <= 30
    assert "Exit status: 0 done, 1 failed, 2 a mistake in the use, 130 interrupted." in output
    assert "--install-completion" in output


@pytest.mark.parametrize(("command", "parameter"), parameters())
def test_every_option_has_help_and_says_its_default(command, parameter):
    assert parameter.help, f"{command} {parameter.name}"
    is_known = parameter.required or getattr(parameter, "is_flag", False)
    assert is_known or parameter.default is not None or "Default: " in parameter.help
    # It means the same in every environment.
    assert parameter.envvar is None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_speak_to_machines_and_be_quiet(command):
    names = [parameter.name for parameter in COMMANDS[command].params]
    assert set(OUTPUT) <= set(names)
    is_run = any(
        parameter.name == "output_dir" and not isinstance(parameter, TyperArgument)
        for parameter in COMMANDS[command].params
    )
    assert ("config" in names) == is_run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_one_line_help_that_fits(command):
    assert len(COMMANDS[command].get_short_help_str(200)) <= 80 - 6 - max(map(len, COMMANDS))


def test_a_file_of_options_and_the_command_line_merge_and_are_saved(run, source, tmp_path):
    out = tmp_path / "out"
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"model: {source[1]}\ndataset: {source[3]}\noutput-dir: {out}\nepochs: 3\nbatch_size: 20\n"
        "population_size: 5\nbudget: 4\ncpu: true\nextra_gene: [base_lr]\nimage_size: null\n"
        "objective: [accuracy, trainable_parameters]\n"
    )
    status, _, errors = run("search", "--config", file, "--epochs", 1, "--quiet")
    assert status == 0, errors
    saved = yaml.safe_load((out / "run.yaml").read_text())
    assert (saved["epochs"], saved["batch_size"], saved["cpu"]) == (1, 20, True)
    assert saved["extra_gene"] == ["base_lr"]
    assert saved["objective"] == ["accuracy", "trainable_parameters"]
    assert saved["learning_rate"] == 1e-3
    assert not {"config", "image_size", *OUTPUT} & set(saved)
    line = (out / "reproduce.sh").read_text().splitlines()[1]
    assert line.startswith(f"hf-biotune search --model {source[1]} --dataset {source[3]}")
    assert "--epochs 1 --batch-size 20" in line
    assert "--config" not in line

    status, output, errors = run("search", "--config", out / "run.yaml", "--json")
    assert status == 0, errors
    assert "going on after" in errors
    assert yaml.safe_load((out / "run.yaml").read_text()) == saved
    document = json.loads(output)
    assert document["config"] == str(out / "best_config.json")
    assert sum(row["knee"] for row in document["front"]) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "'epoch' is no option of search; did you mean epochs?"),
        ("ensemble: 3", "'ensemble' is an option of tune, not of search; leave it out"),
        ("xyzzy: 3", "'xyzzy' is no option of search; search knows model, dataset,"),
        ("json: true", "'json' is no option of search"),
        ("- epochs", "must hold lines of the form 'option: value', such as 'epochs: 5'"),
        ("epochs: [", "is no YAML"),
        ("epochs: {a: 1}", "'epochs' must be a text, a number, true or false, or a list"),
    ],
)
def test_a_file_of_options_that_is_wrong_is_refused(run, tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    status, output, errors = run("search", "--config", file)
    assert (status, output) == (2, "")
    assert errors.startswith("error:")
    assert message in errors


def test_values_from_a_file_are_checked_like_typed_ones(run, source, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("epochs: 1.5")
    status, _, errors = run("search", *source, "--config", file)
    assert status == 2
    assert "Invalid value for '--epochs'" in errors


def test_a_missing_file_of_options_is_named(run, tmp_path):
    status, _, errors = run("search", "--config", tmp_path / "none.yaml")
    assert status == 2
    assert "none.yaml' can't be read" in errors


def test_json_is_one_document_and_all_else_is_on_standard_error(run, source, tmp_path):
    words = ["search", *source, "--output-dir", tmp_path, *TINY, "--json"]
    status, output, errors = run(*words)
    assert status == 0, errors
    document = json.loads(output)
    assert document["individuals"]
    assert set(document["lr_multipliers"]).isdisjoint(document["frozen"])
    assert "winner" in errors


def test_blocks_and_doctor_speak_json(run, tmp_path):
    document = json.loads(run("blocks", "timm:resnet18", "--json")[1])
    assert [block["name"] for block in document["blocks"]][:2] == ["stem", "layer1"]
    assert document["parameters"] == sum(block["parameters"] for block in document["blocks"])
    findings = json.loads(run("doctor", tmp_path, "--json")[1])["findings"]
    assert {"topic", "name", "value", "problem"} == set(findings[0])


def test_a_mistake_is_a_document_too(run, tmp_path):
    status, output, _ = run("push", tmp_path, "me/model", "--json")
    error = json.loads(output)["error"]
    assert (status, error["exit_status"]) == (2, 2)
    assert str(tmp_path) in error["message"]
    status, output, _ = run("search", "--json", "--epochs", "many")
    assert (status, json.loads(output)["error"]["type"]) == (2, "UsageError")


def test_quiet_leaves_progress_out_and_keeps_the_result(run, source, tmp_path):
    status, output, errors = run("search", *source, "--output-dir", tmp_path, *TINY, "--quiet")
    assert status == 0, errors
    assert "plan:" not in output
    assert "best " not in output
    assert "Configuration: " in output


def test_quiet_and_verbose_exclude_each_other(run, tmp_path):
    status, _, errors = run("doctor", tmp_path, "--quiet", "--verbose")
    assert status == 2
    assert "--quiet and --verbose can't be used together" in errors


def test_what_is_no_mistake_of_the_user_exits_with_1_and_debug_shows_where(run, monkeypatch):
    def broken(directory):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr("hf_biotune.doctor.diagnose", broken)
    status, _, errors = run("doctor")
    assert status == 1
    assert errors.startswith("error: RuntimeError: the disk is gone")
    assert "--debug" in errors
    assert "Traceback" not in errors
    status, _, errors = run("doctor", "--debug")
    assert status == 1
    assert "Traceback" in errors


def test_debug_shows_where_a_mistake_was_noticed(run, source, tmp_path):
    words = ["search", *source, "--output-dir", tmp_path, *TINY, "--metric", "auc"]
    status, _, errors = run(*words, "--debug")
    assert status == 2
    assert "Traceback" in errors
    assert ConfigError.__name__ in errors


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete_commands(run, monkeypatch, shell):
    monkeypatch.setenv("_HF_BIOTUNE_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", "hf-biotune se")
    monkeypatch.setenv("COMP_CWORD", "1")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "hf-biotune se")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    _, output, _ = run()
    assert "search" in output


def test_neither_the_command_nor_the_run_file_keeps_a_password(monkeypatch, tmp_path):
    url = "postgresql://me:s3cret@host/studies"
    monkeypatch.setattr(output, "command_line", "")
    monkeypatch.setattr("sys.argv", ["hf-biotune", "search", f"--storage={url}", "--seed", "1"])
    kept = "postgresql://me@host/studies"
    assert command_line() == f"hf-biotune search --storage={kept} --seed 1"
    path = write_run_file(tmp_path, {"storage": url, "seed": 1}, "search")
    assert yaml.safe_load(path.read_text()) == {"storage": kept, "seed": 1}


def test_a_report_is_rendered_again_without_model_and_data(run, tmp_path):
    write_report(tmp_path, make_data())
    (tmp_path / "report.html").unlink()
    status, output, errors = run("report", tmp_path, "--json")
    assert status == 0, errors
    assert json.loads(output) == {"report": str(tmp_path / "report.html")}
    assert (tmp_path / "report.html").stat().st_size > 0


def test_a_directory_without_a_run_has_no_report(run, tmp_path):
    status, _, errors = run("report", tmp_path)
    assert status == 2
    assert "give a directory that `tune` or `search` wrote" in errors


def test_a_search_that_goes_on_has_a_report_too(run, source, tmp_path, monkeypatch):
    """Its options are kept before the first training, and its study is read."""
    for_two = ("--objective", "loss", "--objective", "checkpoint_size")
    assert run("search", *source, "--output-dir", tmp_path, *TINY, *for_two)[0] == 0
    finished = (tmp_path / "report.html").read_text()
    for name in ("report.json", "report.html"):
        (tmp_path / name).unlink()
    status, _, errors = run("report", tmp_path)
    assert status == 0, errors
    page = (tmp_path / "report.html").read_text()
    assert "BioTune on digits (unfinished)" in page
    assert f"hf-biotune search --config {tmp_path / 'run.yaml'}" in page
    assert "validation loss" in page
    assert page.count('<tr id="individual-') == finished.count('<tr id="individual-')
    assert not (tmp_path / "report.json").exists()

    def killed(*args, **kwargs):
        raise RuntimeError("killed")

    monkeypatch.setattr("hf_biotune.search.biotune_search", killed)
    other = tmp_path / "other"
    assert run("search", *source, "--output-dir", other, *TINY)[0] == 1
    assert yaml.safe_load((other / "run.yaml").read_text())["model"] == str(source[1])
    status, _, errors = run("report", other)
    assert status == 2
    assert "there is no study at" in errors


def test_yaml_means_what_is_typed_in_it(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "extra_gene: base_lr\nlabel_column: yes\ndataset_config: 1.10\nbudget: 1:30\n"
        "blocks: [stem, head]\nimage_size: ~\n"
    )
    known = dict.fromkeys(
        ("label_column", "dataset_config", "budget", "blocks", "image_size"), False
    )
    assert read_run_file(file, {**known, "extra_gene": True}, "search", {}) == {
        "extra_gene": ["base_lr"],
        "label_column": "yes",
        "dataset_config": "1.10",
        "budget": "1:30",
        "blocks": "stem,head",
    }
