from __future__ import annotations

import subprocess
import sys

import pytest

import hf_biotune


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return result.stdout.strip()


def test_importing_the_package_loads_neither_torch_nor_peft_nor_optuna():
    heavy = ("torch", "peft", "optuna")
    code = f"import sys, hf_biotune; print([m for m in {heavy} if m in sys.modules])"
    assert run(code) == "[]"


def test_importing_the_command_line_does_not_load_torch():
    assert run("import sys, hf_biotune.cli; print('torch' in sys.modules)") == "False"


def test_every_public_name_can_be_imported():
    for name in hf_biotune.__all__:
        assert getattr(hf_biotune, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'hf_biotune' has no attribute 'nothing'"):
        hf_biotune.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "limit"),
    [(["-c", "import hf_biotune"], 0.2), (["-m", "hf_biotune", "--help"], 0.5)],
)
def test_a_new_user_does_not_wait(arguments, limit):
    """In time of the processor: other work on the machine doesn't count."""
    code = (
        "import resource, subprocess, sys\n"
        f"subprocess.run([sys.executable, *{arguments!r}], check=True, capture_output=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(used.ru_utime + used.ru_stime)"
    )
    assert any(float(run(code)) <= limit for _ in range(3))
