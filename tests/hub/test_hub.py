import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
FILES = sorted(path.name for path in (HERE / "loopback").glob("test_*.py"))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """The lines that a process of its own prints for each test file; it takes seconds to start."""
    paths = [str(HERE), str(HERE.parent / "report"), os.environ.get("PYTHONPATH", "")]
    options = ["-p", "loopback_hub", "-p", "no:cacheprovider", "-v"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(HERE / "loopback")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return {"returncode": str(done.returncode), "output": done.stdout + done.stderr}


@pytest.mark.parametrize("file", FILES)
def test_against_a_hub_on_loopback(file, outcomes):
    results = re.findall(rf"{re.escape(file)}::\S+.* (PASSED|FAILED|ERROR)", outcomes["output"])
    assert results, outcomes["output"]
    assert set(results) == {"PASSED"}, outcomes["output"]


def test_the_hub_process_ends_well(outcomes):
    assert outcomes["returncode"] == "0", outcomes["output"]
