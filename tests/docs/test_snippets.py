"""Every snippet of README and documentation runs, page by page, on tiny models and data."""

from __future__ import annotations

from pathlib import Path

import pytest
from snippets import PAGES, ROOT, check_command, commands, pages_with, runnable
from snippets import blocks as blocks_of


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_the_python_snippets_of_a_page_run_one_after_the_other(page, names):
    for number, code in enumerate(blocks_of(page, "python"), start=1):
        exec(compile(runnable(code), f"{page.name}, block {number}", "exec"), names)


@pytest.mark.parametrize("page", pages_with("bash"), ids=name_of)
def test_the_shell_snippets_of_a_page_name_what_exists(page):
    lines = commands(page)
    assert lines
    for line in lines:
        check_command(line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("hf-biotune tuen --model a --dataset b", "no command 'tuen'"),
        ("hf-biotune tune --model a --dataset b --bugdet 3", "bugdet"),
        ("hf-biotune tune --dataset b", "--model"),
        ("make everything", "make everything"),
        ("python examples/nothing.py", "there is no"),
        ("python examples/prepare_demo.py --where x", "has no option --where"),
        ('pip install "hf-biotune[everything]"', "no extra 'everything'"),
    ],
)
def test_a_shell_snippet_with_a_slip_is_found(line, message):
    with pytest.raises(AssertionError, match=message):
        check_command(line)


def test_every_page_of_the_documentation_is_in_its_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    for page in PAGES[1:]:
        assert str(page.relative_to(ROOT / "docs")) in navigation
