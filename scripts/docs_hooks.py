"""What mkdocs does with a page besides: formulas, options of the command line, the reference.

Formulas become MathML when the documentation is built, which browsers draw without any script.
"""

from __future__ import annotations

import html
import re
from typing import Any

from docs_links import expanded
from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">(.*?)</\1>', re.DOTALL)
# What the page says once for all commands.
COMMON = ("help", "json", "quiet", "verbose", "debug", "config")
COMMANDS = "<!-- the commands of hf-biotune -->"


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Spell out what a page of the reference leaves to the code."""
    if not page.file.src_uri.startswith("reference/"):
        return markdown
    if COMMANDS in markdown:
        markdown = markdown.replace(COMMANDS, commands())
    return expanded(markdown)


def on_page_content(html: str, **kwargs: Any) -> str:
    """Draw the formulas of a page."""
    return FORMULA.sub(_drawn, html)


def _drawn(match: re.Match[str]) -> str:
    is_block = match[1] == "div"
    latex = html.unescape(match[2]).strip()[2:-2]
    drawn = convert(latex, display="block" if is_block else "inline")
    return f'<{match[1]} class="formula">{drawn}</{match[1]}>'


def commands() -> str:
    """Every command with its options, from the command line itself."""
    import typer

    from hf_biotune.cli.app import app

    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="hf-biotune")
    parts = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        help_text = (command.help or "").strip().partition("\n\n")[0]
        lines = [f"## `hf-biotune {name}`", "", " ".join(help_text.split()), ""]
        lines += ["| option | default | meaning |", "|---|---|---|"]
        for parameter in command.params:
            if parameter.name not in COMMON:
                lines.append(_row(parameter))
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    name = parameter.name.upper() if is_argument else ", ".join(parameter.opts)
    default = parameter.default
    if parameter.required:
        shown = "*required*"
    elif default in (None, [], (), ""):
        shown = ""
    else:
        shown = f"`{getattr(default, 'value', default)}`"
    meaning = " ".join((parameter.help or "").split()).replace("|", "\\|")
    return f"| `{name}` | {shown} | {meaning} |"
