"""Ctrl-C on a real terminal: every process of the search hears it, or must not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial

import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from hf_biotune.search.journal import JournalFile

# Far less than what is left of the search's budget.
STOP_SECONDS = 10.0


@pytest.mark.slow
def test_ctrl_c_stops_all_workers_and_says_how_to_go_on(model_directory, image_folder, tmp_path):
    words = [
        *("search", "--model", str(model_directory), "--dataset", str(image_folder)),
        *("--output-dir", str(tmp_path), "--budget", "500", "--epochs", "1", "--cpu"),
        *("--workers", "2"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_biotune", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell makes it
        # As a terminal does; what a shell runs in the background inherits that it ignores Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    group = os.getpgid(process.pid)

    def study() -> optuna.Study | None:
        storage = JournalStorage(JournalFile(str(tmp_path / "study.journal")))
        names = [study.study_name for study in storage.get_all_studies()]
        if "hf_biotune" not in names:
            return None
        return optuna.load_study(study_name="hf_biotune", storage=storage)

    def owners() -> set[int]:
        found = study()
        return {t.user_attrs["process"] for t in found.trials} if found else set()

    try:
        until = time.monotonic() + 240
        while len(owners()) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.2)
        os.killpg(group, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(group, signal.SIGKILL)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "stopped; every finished individual is kept. Go on with the same command:" in errors
    assert f"--output-dir {tmp_path}" in errors
    assert "--workers 2" in errors
    # multiprocessing's resource tracker ends when it sees that the first process has.
    left = [p for p in psutil.process_iter() if _group_of(p) == group]
    _, alive = psutil.wait_procs(left, timeout=STOP_SECONDS)
    assert not [p for p in alive if _lives(p)]
    states = {trial.state for trial in study().trials}
    assert TrialState.COMPLETE in states


def _lives(process: psutil.Process) -> bool:
    """A zombie has ended; in a container nobody may be there to take notice."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None
