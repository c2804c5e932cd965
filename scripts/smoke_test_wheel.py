"""Build wheel and sdist, install each into an empty environment, and try it there.

    python scripts/smoke_test_wheel.py

Dependencies are not downloaded again: the new environment sees those of the one that runs this,
but not the checkout, whose place on the path is taken by what was built.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TRIAL = """
import pathlib, sys
import torch
import hf_biotune
from hf_biotune import BioTuneConfig, BioTuneModel, get_biotune_model, partition
from hf_biotune.report import plot_blocks
import hf_biotune.report

environment = pathlib.Path(sys.prefix)
assert environment in pathlib.Path(hf_biotune.__file__).parents, hf_biotune.__file__
templates = pathlib.Path(hf_biotune.report.__file__).parent / "templates"
assert list(templates.glob("*.j2")), "the report's templates are missing"
assert (pathlib.Path(hf_biotune.__file__).parent / "py.typed").is_file()

def body():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))

model = get_biotune_model(body(), BioTuneConfig(lr_multipliers={"head": 2.0}))
with torch.no_grad():
    model.get_base_model()[2].weight.add_(1)
model.save_pretrained("adapter")
again = BioTuneModel.from_pretrained(body(), "adapter")
x = torch.ones(1, 4)
assert torch.equal(model.eval()(x), again.eval()(x))
plot_blocks(partition(body()), {"head": 2.0})
print(hf_biotune.__version__)
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints; its errors, if it fails.

    Raises:
        SystemExit: it failed.
    """
    # Nothing of the caller's environment may stand in for what is missing.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def build(directory: Path) -> list[Path]:
    """Build wheel and sdist from the checkout, without fetching a build backend."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", directory, cwd=ROOT)
    return sorted(directory.iterdir())


def check_contents(wheel: Path) -> None:
    """The wheel holds the package and its licence, and nothing else.

    Raises:
        SystemExit: it holds something else, or the licence is missing.
    """
    names = zipfile.ZipFile(wheel).namelist()
    foreign = [name for name in names if not name.startswith(("hf_biotune/", "hf_biotune-"))]
    if foreign or not any(name.endswith("licenses/LICENSE") for name in names):
        raise SystemExit(f"{wheel.name} holds {foreign or 'no LICENSE'}")


def try_out(distribution: Path, directory: Path) -> str:
    """Install a distribution into an empty environment and use it.

    Returns:
        The version that it says it has.
    """
    venv.EnvBuilder(with_pip=True).create(directory)
    scripts = directory / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    # Some versions of Python bring an old one, which would hide the one that builds.
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "setuptools")
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    # After the environment's own packages, so that what is installed there comes first.
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    # `--ignore-installed`: the checkout may be installed among the dependencies.
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--ignore-installed"]
    run(python, "-m", "pip", "install", *options, distribution)
    version = run(python, "-c", TRIAL, cwd=directory).split()[-1]
    assert run(scripts / "hf-biotune", "--version", cwd=directory).strip() == version
    run(scripts / "hf-biotune", "blocks", "timm:resnet18", cwd=directory)
    return version


def main() -> None:
    """Build, look inside, install, try."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        distributions = build(directory / "dist")
        for number, distribution in enumerate(distributions):
            if distribution.suffix == ".whl":
                check_contents(distribution)
            version = try_out(distribution, directory / f"environment-{number}")
            size = distribution.stat().st_size / 1024
            print(f"{distribution.name}: {size:.0f} kB, version {version}, works")


if __name__ == "__main__":
    main()
