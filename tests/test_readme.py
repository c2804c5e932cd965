from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from small import digits_split, small_resnet
from transformers import Trainer, default_data_collator

from hf_biotune.cli.app import app
from hf_biotune.search import default_training_arguments

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_python_snippets_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    base = small_resnet()
    args = default_training_arguments(
        str(tmp_path), num_train_epochs=1, use_cpu=True, disable_tqdm=True
    )

    class QuietTrainer(Trainer):
        def __init__(self, *positional, **named):
            super().__init__(*positional, data_collator=default_data_collator, **named)

    names = {
        "model": small_resnet(),
        "base_model": base,
        "model_init": small_resnet,
        "Trainer": QuietTrainer,
        "args": args,
        "train": digits_split(3, 0),
        "validation": digits_split(3, 20),
    }
    codes = snippets("python")
    assert len(codes) == 3
    for code in codes:
        # Half an hour is the reader's budget, not that of a test.
        exec(code.replace('budget="30m"', "budget=4"), names)
    tuned = names["model"].state_dict()
    assert tuned.keys() == base.state_dict().keys()


def test_the_shell_snippets_name_commands_and_targets_that_exist():
    lines = [line for code in snippets("bash") for line in code.splitlines()]
    targets = {line.split()[1] for line in lines if line.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text()
    assert targets == {"demo", "test"}
    assert all(f"\n{target}:" in makefile for target in targets)
    commands = {command.callback.__name__ for command in app.registered_commands}
    assert {line.split()[1] for line in lines if line.startswith("hf-biotune ")} <= commands


@pytest.mark.parametrize("path", ["LICENSE", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"])
def test_what_a_project_needs_is_there(path):
    assert (ROOT / path).stat().st_size > 0
