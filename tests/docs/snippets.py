"""The code blocks of README and documentation, and what they mean on a machine without weights."""

from __future__ import annotations

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import typer

from hf_biotune.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Of typer's own click, which has no public name.
USAGE_ERROR = typer.BadParameter.__mro__[1]

# What a reader would use, and the tiny thing that stands for it in a test.
STAND_INS = {
    '"microsoft/resnet-50"': '"my-model"',
    '"google/vit-base-patch16-224"': '"my-model"',
    '"sentence-transformers/all-MiniLM-L6-v2"': '"my-language-model"',
    '"me/my-dataset"': '"my-images"',
    "import resnet50": "import resnet18",
    'resnet50(weights="DEFAULT")': "resnet18(weights=None)",
}
# A reader's budget and patience are not those of a test.
CHEAPER = (
    (re.compile(r'SearchConfig\(budget=(?:"[^"]*"|\d+)'), "SearchConfig(budget=3, seeds=(0, 1)"),
    (re.compile(r"\bnum_train_epochs=\d+"), "num_train_epochs=1"),
)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of one language, without the indent of a list or tab that they stand in."""
    found = re.findall(
        rf"^( *)```{language}\n(.*?)^\1```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def runnable(code: str) -> str:
    """The block as a test runs it."""
    for there, here in STAND_INS.items():
        code = code.replace(there, here)
    for pattern, cheaper in CHEAPER:
        code = pattern.sub(cheaper, code)
    return code


def commands(page: Path) -> list[str]:
    """The lines of a page's bash blocks, continued ones joined, comments and output left out."""
    lines = []
    for code in blocks(page, "bash"):
        joined = re.sub(r"\\\n\s*", " ", code)
        lines += [line.strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def check_command(line: str) -> None:
    """Raise if a line would fail for what is written there: program, command, option, file."""
    words = shlex.split(line, comments=True)
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    program, *rest = words
    if program == "hf-biotune":
        _check_cli(rest)
    elif program == "make":
        assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text("utf-8"), line
    elif program in ("python", "torchrun"):
        _check_script(rest, line)
    elif program == "pip":
        _check_pip(rest, line)
    else:
        assert program in ("git", "cd", "source", "optuna-dashboard", "ray"), line


@cache
def _group() -> typer.core.TyperGroup:
    return typer.main.get_command(app)


def _check_cli(words: list[str]) -> None:
    """Parse the options as the program does, without running it."""
    group = _group()
    name, *rest = words
    context = typer.Context(group, info_name="hf-biotune")
    if name.startswith("-"):
        assert name in ("--help", "--version", "--install-completion", "--show-completion"), name
        return
    command = group.get_command(context, name)
    assert command is not None, f"hf-biotune has no command {name!r}"
    if "--config" in rest:
        # A file that a reader would have, with all that is required.
        at = rest.index("--config")
        rest = [*rest[:at], *rest[at + 2 :], "--model", "m", "--dataset", "d"]
    if "--help" not in rest:
        try:
            command.make_context(name, rest, parent=context)
        except USAGE_ERROR as error:
            raise AssertionError(error.format_message()) from error


def _check_script(words: list[str], line: str) -> None:
    if words[0] == "-m":
        assert words[1] in ("hf_biotune", "pytest", "build", "venv"), line
        return
    scripts = [word for word in words if word.endswith(".py")]
    assert scripts, line
    script = ROOT / scripts[0]
    assert script.is_file(), f"{line}: there is no {scripts[0]}"
    known = _options_of(script)
    for word in words[words.index(scripts[0]) + 1 :]:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{scripts[0]} has no option {word}"


def _options_of(script: Path) -> set[str]:
    """The options of a script: of typer by the arguments of `main`, of argparse by their names."""
    text = script.read_text("utf-8")
    tree = ast.parse(text)
    names = {
        argument.arg.replace("_", "-")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name == "main"
        for argument in (*node.args.args, *node.args.kwonlyargs)
    }
    names |= {"help"}
    return {f"--{name}" for name in names} | set(re.findall(r'"(--[\w-]+)"', text))


def _check_pip(words: list[str], line: str) -> None:
    _, _, section = (
        (ROOT / "pyproject.toml").read_text("utf-8").partition("[project.optional-dependencies]")
    )
    known = re.findall(r"^(\w+) = \[", section, re.MULTILINE)
    for several in re.findall(r"\[([\w,]+)\]", line):
        for extra in several.split(","):
            assert extra in known, f"{line}: no extra {extra!r}"


def pages_with(language: str) -> list[Path]:
    """The pages that have a block of that language."""
    return [page for page in PAGES if blocks(page, language)]
