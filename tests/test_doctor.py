"""The diagnosis names what is there, and what is wrong with it."""

import importlib.metadata
import subprocess
import sys
from collections import namedtuple

import pytest
import torch

from hf_biotune import doctor
from hf_biotune.doctor import diagnose


def found(findings, name):
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding


def test_every_required_package_is_listed_with_its_version():
    findings = diagnose()
    names = {f.name for f in findings if f.topic == "versions"}
    assert {"Python", "hf-biotune", "torch", "transformers", "peft", "optuna", "timm"} <= names
    assert found(findings, "peft").value == importlib.metadata.version("peft")
    assert not any(finding.problem for finding in findings if finding.topic == "versions")


def test_a_missing_or_old_package_is_a_problem_with_its_remedy(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "peft":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.9" if name == "timm" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings = diagnose()
    assert found(findings, "peft").problem == "run: pip install peft"
    assert found(findings, "timm").value == "0.9"
    assert 'pip install "timm>=1.0' in found(findings, "timm").problem


def test_a_missing_extra_is_no_problem(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "ray":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    ray = found(diagnose(), "ray")
    assert ray.topic == "extras"
    assert ray.value == 'not installed; pip install "hf-biotune[ray]"'
    assert ray.problem == ""


def test_more_threads_than_cores_are_a_problem(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4096)
    assert "set OMP_NUM_THREADS=" in found(diagnose(), "CPU").problem


def test_little_space_and_a_directory_that_is_not_there_yet(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(2**40, 2**40 - 2**30, 2**30)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage)
    finding = found(diagnose(tmp_path / "new" / "run"), "output directory")
    assert finding.value == f"{tmp_path / 'new' / 'run'}: 1.0 GiB free"
    assert finding.problem == "less than 5 GiB; make room"


def test_a_directory_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("mine")
    problem = found(diagnose(tmp_path / "file" / "run"), "output directory").problem
    assert problem == f"{tmp_path / 'file'} is a file; choose a directory"


def test_a_directory_that_cannot_be_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert (
        f"{tmp_path} can't be written to" in found(diagnose(tmp_path), "output directory").problem
    )


@pytest.mark.slow
def test_the_package_can_be_run():
    command = [sys.executable, "-m", "hf_biotune", "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "transformers" in done.stdout
    assert done.returncode in (0, 1)
