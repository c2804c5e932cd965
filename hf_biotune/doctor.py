"""What this machine has: versions, devices, precision, space; and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

PACKAGE = "hf-biotune"
# Below this a pre-trained model or a data set may not fit.
LITTLE_SPACE_GIB = 5.0
_GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis.

    Args:
        topic: such as `"versions"` or `"devices"`.
        name: of what was looked at.
        value: what was found.
        problem: what is wrong with it and how to put it right; `""` if nothing is.
    """

    topic: str
    name: str
    value: str
    problem: str = ""


def diagnose(directory: str | os.PathLike[str] = ".") -> list[Finding]:
    """Look at everything that a search depends on. Nothing is changed, no network is used.

    Args:
        directory: where a search would write.

    Example:
        >>> findings = diagnose()
        >>> sorted({finding.topic for finding in findings})
        ['devices', 'extras', 'precision', 'space', 'versions']
    """
    return [
        *_versions(),
        *_extras(),
        *_devices(),
        *_precision(),
        _space("output directory", Path(directory)),
        _space("Hugging Face cache", _cache()),
    ]


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "Python", platform.python_version())
    yield Finding("versions", PACKAGE, importlib.metadata.version(PACKAGE))
    for requirement in _requirements():
        if requirement.marker is None:
            yield _package("versions", requirement, needed=True)


def _extras() -> Iterator[Finding]:
    for requirement in _requirements():
        extra = next((e for e in _EXTRAS if _belongs_to(requirement, e)), None)
        if extra is not None:
            yield _package("extras", requirement, needed=False, extra=extra)


# What a user may want beside the core; the others are for developers.
_EXTRAS = ("cmaes", "postgresql", "grpc", "ray", "dashboard", "demo")


def _belongs_to(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra})


def _requirements() -> list[Requirement]:
    found = map(Requirement, importlib.metadata.requires(PACKAGE) or [])
    return [requirement for requirement in found if requirement.name != PACKAGE]


def _package(topic: str, requirement: Requirement, *, needed: bool, extra: str = "") -> Finding:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        remedy = f'pip install "{PACKAGE}[{extra}]"' if extra else f"pip install {requirement.name}"
        if needed:
            return Finding(topic, requirement.name, "missing", f"run: {remedy}")
        return Finding(topic, requirement.name, f"not installed; {remedy}")
    # A pre-release of a good version is good enough.
    if not requirement.specifier.contains(version, prereleases=True):
        wanted = f"{requirement.name}{requirement.specifier}"
        return Finding(topic, requirement.name, version, f'run: pip install "{wanted}"')
    return Finding(topic, requirement.name, version)


def _devices() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch.get_num_threads()
    problem = ""
    if cores and threads > cores:
        problem = f"more threads than cores make everything slow; set OMP_NUM_THREADS={cores}"
    yield Finding("devices", "CPU", f"{cores} cores, {threads} threads", problem)
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = f"{properties.total_memory / _GIB:.0f} GiB"
        yield Finding("devices", f"cuda:{index}", f"{properties.name}, {memory}")
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "Apple GPU")
    if torch.version.cuda and not torch.cuda.is_available():
        yield Finding(
            "devices",
            "CUDA",
            f"PyTorch was built for CUDA {torch.version.cuda}, but sees no GPU",
        )


def _precision() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        value = "bf16 and fp16" if has_bf16 else "fp16; no bf16"
        yield Finding("precision", "cuda", value)
    yield Finding("precision", "cpu", "fp32; bf16 is tried, and used where it is faster and agrees")


def _cache() -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME)


def _space(name: str, path: Path) -> Finding:
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free / _GIB
    value = f"{path}: {free:.1f} GiB free"
    if not existing.is_dir():
        return Finding("space", name, value, f"{existing} is a file; choose a directory")
    if not os.access(existing, os.W_OK):
        return Finding("space", name, value, f"{existing} can't be written to; choose another")
    if free < LITTLE_SPACE_GIB:
        return Finding("space", name, value, f"less than {LITTLE_SPACE_GIB:g} GiB; make room")
    return Finding("space", name, value)
