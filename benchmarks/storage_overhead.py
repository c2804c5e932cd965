"""What keeping one trial takes, by storage and by how many trials there are already.

Mostly CPU time, which other programs on the machine change little; wall time, which waits for the
disk, besides.
"""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from landscapes import BLOCK_NAMES
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage

from hf_biotune.evolution import BioTuneSampler, parameter_names, suggest_genotype
from hf_biotune.evolution.plan import PLAN_KEY, Plan
from hf_biotune.search.storages import open_storage

COUNTS = (1_000, 10_000)
N_MEASURED = 10
N_EPOCHS = 15
NAMES = parameter_names(BLOCK_NAMES)
# Of Optuna, with a row or more for each trial.
_TABLES = (
    "trials",
    "trial_params",
    "trial_values",
    "trial_user_attributes",
    "trial_system_attributes",
    "trial_intermediate_values",
)
# As much as an individual's result is: rates, and a curve of each seed.
_FITNESS = {"score": 0.9, "runs": [{"seed": 1, "curve": [[0.5, 0.9, 1.0]] * N_EPOCHS}]}


def measure_storages(counts: Sequence[int]) -> dict[str, dict[str, dict[str, float]]]:
    """Seconds by storage and number of trials; prints a line of the table for each."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    print("storage   trials   keeping      wall  planning  opening   (CPU time, but for wall)")
    for kind in ("memory", "journal", "sqlite"):
        for count in counts:
            with tempfile.TemporaryDirectory() as directory:
                row = _measure(kind, count, Path(directory))
            results.setdefault(kind, {})[str(count)] = row
            print(
                f"{kind:<8} {count:7,d} {1e3 * row['keeping_cpu_seconds']:6.1f} ms "
                f"{1e3 * row['keeping_seconds']:6.1f} ms "
                f"{1e3 * row['planning_cpu_seconds']:6.1f} ms {row['opening_cpu_seconds']:6.1f} s",
                flush=True,
            )
    return results


def _measure(kind: str, count: int, directory: Path) -> dict[str, float]:
    address = "memory" if kind == "memory" else f"{kind}:///{directory / 'study'}"
    storage = _fill(kind, address, directory, count)
    begin = time.process_time()
    if kind != "memory":
        storage = open_storage(address, directory)
    study = _open(storage)
    assert len(study.get_trials(deepcopy=False)) == count
    opening = time.process_time() - begin
    measured = np.array([_one_trial(study) for _ in range(N_MEASURED)])
    planning, processor, wall = np.median(measured, axis=0)
    return {
        "keeping_cpu_seconds": round(float(processor), 5),
        "keeping_seconds": round(float(wall), 5),
        "planning_cpu_seconds": round(float(planning), 5),
        "opening_cpu_seconds": round(opening, 3),
    }


def _open(storage: BaseStorage) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name="overhead",
        direction="maximize",
        sampler=BioTuneSampler(BLOCK_NAMES),
        load_if_exists=True,
    )


def _one_trial(study: optuna.Study) -> tuple[float, float, float]:
    """Of one trial: CPU seconds of its planning, CPU and wall seconds of all else."""
    spent: list[tuple[float, float]] = []
    original = BioTuneSampler._plan

    def timed(self: BioTuneSampler, *arguments: Any) -> Plan:
        before = _now()
        plan = original(self, *arguments)
        spent.append(_since(before))
        return plan

    before = _now()
    with _replaced(BioTuneSampler, "_plan", timed):
        trial = study.ask()
    suggest_genotype(trial, BLOCK_NAMES)
    trial.set_user_attr("lr_multipliers", dict.fromkeys(BLOCK_NAMES, 1.0))
    for epoch in range(1, N_EPOCHS + 1):
        trial.report(0.1 * epoch, epoch)
    trial.set_user_attr("fitness", _FITNESS)
    study.tell(trial, 0.9)
    # What has been spent, and the report of the trial.
    for _ in range(2):
        study.get_trials(deepcopy=False)
    (planning, wall), (processor, wall_of_all) = spent[0], _since(before)
    return planning, processor - planning, wall_of_all - wall


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _since(before: tuple[float, float]) -> tuple[float, float]:
    return time.process_time() - before[0], time.perf_counter() - before[1]


class _replaced:  # noqa: N801 - reads as a verb
    def __init__(self, owner: Any, name: str, value: Callable[..., Any]) -> None:
        self._owner, self._name, self._value = owner, name, value

    def __enter__(self) -> None:
        self._original = getattr(self._owner, self._name)
        setattr(self._owner, self._name, self._value)

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, self._original)


def _fill(kind: str, address: str, directory: Path, count: int) -> BaseStorage:
    """A storage with finished trials as a search leaves them."""
    storage = open_storage(address, directory)
    study = _open(storage)
    if kind == "sqlite":
        study.add_trial(_trial(0, 0))
        _copy_rows(directory / "study", count, list(_parents(study, count, first_id=1)))
        return storage
    with _replaced(os, "fsync", lambda descriptor: None):  # nothing that has to last
        for number, (generation, slot) in enumerate(_places(count)):
            study.add_trial(_trial(generation, slot, number))
        for key, parents in _parents(study, count, first_id=0):
            storage.set_study_system_attr(study._study_id, key, parents)
    return storage


def _parents(study: optuna.Study, count: int, first_id: int) -> Iterator[tuple[str, list[int]]]:
    """What a search keeps of each generation but the first: which trials it descends from."""
    sampler = study.sampler
    prefix = sampler._get_parent_cache_key_prefix()
    numbers: dict[int, list[int]] = {}
    for number, (generation, _) in enumerate(_places(count)):
        numbers.setdefault(generation, []).append(number)
    for generation, members in numbers.items():
        parents = members[: sampler.scheme.population_size]
        yield f"{prefix}{generation + 1}", [first_id + number for number in parents]


def _places(count: int) -> Iterator[tuple[int, int]]:
    """Generation and slot of so many trials."""
    scheme = BioTuneSampler(BLOCK_NAMES).scheme
    slots = ((g, slot) for g in itertools.count() for slot in range(scheme.n_slots(g)))
    return itertools.islice(slots, count)


def _trial(generation: int, slot: int, seed: int = 0) -> optuna.trial.FrozenTrial:
    genes = np.random.default_rng(seed).random(len(NAMES)).tolist()
    return optuna.trial.create_trial(
        params=dict(zip(NAMES, genes, strict=True)),
        distributions=dict.fromkeys(NAMES, FloatDistribution(0.0, 1.0)),
        value=float(np.mean(genes)),
        user_attrs={"lr_multipliers": dict.fromkeys(BLOCK_NAMES, 1.0), "fitness": _FITNESS},
        system_attrs={PLAN_KEY: _plan(generation, slot, genes).to_dict()},
        intermediate_values={epoch: 0.1 * epoch for epoch in range(1, N_EPOCHS + 1)},
    )


def _plan(generation: int, slot: int, genes: Sequence[float]) -> Plan:
    return Plan(generation, 0, "initial", (), slot, tuple(genes))


def _copy_rows(path: Path, count: int, parents: Sequence[tuple[str, list[int]]]) -> None:
    """Repeat the one trial of an SQLite file: Optuna takes minutes for thousands of them."""
    generator = np.random.default_rng(0)
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "INSERT INTO study_system_attributes (study_id, key, value_json) VALUES (1, ?, ?)",
            [(key, json.dumps(numbers)) for key, numbers in parents],
        )
        for table in _TABLES:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            rows = database.execute(f"SELECT * FROM {table}").fetchall()
            own_id, marks = columns[0], ", ".join("?" * len(columns))
            copies = []
            for number, place in itertools.islice(enumerate(_places(count)), 1, None):
                for row in rows:
                    values = dict(zip(columns, row, strict=True))
                    values |= {own_id: None, "trial_id": number + 1}
                    if "number" in values:
                        values["number"] = number
                    if "param_value" in values:
                        values["param_value"] = generator.random()
                    if values.get("key") == PLAN_KEY:
                        genes = generator.random(len(NAMES)).tolist()
                        values["value_json"] = json.dumps(_plan(*place, genes).to_dict())
                    copies.append([values[column] for column in columns])
            database.executemany(f"INSERT INTO {table} VALUES ({marks})", copies)
