"""Run the wrapper's tests against other versions of the libraries it builds on.

    .venv/bin/python scripts/check_versions.py
    .venv/bin/python scripts/check_versions.py "peft==0.20.0" "transformers==5.20.0 timm==1.0.20"

Each argument is one row of the table: what is installed, without dependencies, into a folder that
comes before the environment's own packages. So torch is not installed again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = (
    "peft==0.18.1",
    "peft==0.19.1",
    "peft==0.20.0",
    "peft==0.21.2",
    "transformers==5.18.0",
    "timm==1.0.16",
    "peft==0.18.1 transformers==5.18.0 timm==1.0.16",
)
TESTS = tuple(
    f"tests/test_{name}.py"
    for name in (
        "checkpoint",
        "config",
        "export",
        "injected_adapters",
        "model",
        "model_adapters",
        "model_copies",
        "model_gradients",
        "optim",
        "registration",
        "trainer",
        "trainer_features",
    )
)
# Other versions deprecate other things; that they work is what counts here.
TOLERANT = ("-W", "default::DeprecationWarning", "-W", "default::FutureWarning")


@dataclass(frozen=True)
class Row:
    """What a run of the tests gave.

    Args:
        installed: what was installed over the environment.
        outcome: pytest's last line, or why the tests did not run.
        seconds: how long the tests took.
        failures: the tests that failed, and the last lines of output if none ran.
        passed: whether all did.
    """

    installed: str
    outcome: str
    seconds: float
    failures: tuple[str, ...]
    passed: bool


def check(installed: str, tests: list[str], marker: str) -> Row:
    """Install the packages of one row and run the tests with them."""
    with tempfile.TemporaryDirectory() as overlay:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        install = subprocess.run(
            [*pip, "--no-deps", "--target", overlay, *installed.split()],
            capture_output=True,
            text=True,
        )
        if install.returncode:
            reason = install.stderr.strip().splitlines()[-1:]
            return Row(installed, "not installable", 0.0, tuple(reason), passed=False)
        environment = {**os.environ, "PYTHONPATH": overlay, "PYTHONDONTWRITEBYTECODE": "1"}
        start = time.monotonic()
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TOLERANT]
        run = subprocess.run(
            [*pytest, "-m", marker, *tests],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
        )
    return _row(installed, run, time.monotonic() - start)


def _row(installed: str, run: subprocess.CompletedProcess[str], seconds: float) -> Row:
    lines = run.stdout.strip().splitlines()
    failures = tuple(line for line in lines if line.startswith(("FAILED", "ERROR")))
    summary = re.sub(r" in [\d.]+s.*", "", lines[-1]) if lines else "no output"
    if not failures and run.returncode:
        failures = tuple((run.stderr.strip().splitlines() or lines)[-3:])
    return Row(installed, summary, seconds, failures, passed=run.returncode == 0)


def main() -> int:
    """Print a table; the exit status is the number of rows that failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", default=ROWS, help="requirements, one row each")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="default: those of the wrapper")
    parser.add_argument("--fast", action="store_true", help="leave the slow tests out")
    arguments = parser.parse_args()
    marker = "not slow" if arguments.fast else ""
    tests = [test for test in arguments.tests if (ROOT / test.partition("::")[0]).exists()]
    rows = []
    print(f"{'installed':<40}  {'passed':<6}  {'seconds':>7}  outcome", flush=True)
    for installed in arguments.rows:
        row = check(installed, tests, marker)
        verdict = "yes" if row.passed else "NO"
        print(f"{installed:<40}  {verdict:<6}  {row.seconds:>7.0f}  {row.outcome}", flush=True)
        rows.append(row)
    for row in rows:
        for failure in row.failures:
            print(f"\n{row.installed}: {failure}")
    return sum(not row.passed for row in rows)


if __name__ == "__main__":
    sys.exit(main())
