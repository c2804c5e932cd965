"""A table of real trainings: every learning curve of many genotypes, compressed in one file.

Made by `record_table.py`, read by `replay.py`. The file is a NumPy archive without pickled objects.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hf_biotune import Genotype

FloatArray = NDArray[np.float64]

ALL_DATA = -1
WORST_SCORE = 0.0


@dataclass(frozen=True, eq=False)
class Table:
    """The recorded trainings of N genotypes, with S seeds, on F parts of the data, E epochs each.

    What wasn't recorded is NaN, whole trainings only; of a training that diverged the epochs that
    it didn't reach.

    Args:
        genes: threshold last, shape (N, number of blocks + 1).
        sources: where each genotype comes from, such as `random`, shape (N,).
        trained_parameters: of each genotype, shape (N,).
        seeds: of trainings, shape (S,).
        parts: of the data: `ALL_DATA`, and the numbers of folds; shape (F,).
        validation_score: macro accuracy after each epoch, shape (N, S, F, E).
        validation_loss: the same shape.
        train_loss: the same shape.
        test_score: macro accuracy of the epoch with the best validation score, shape (N, S, F).
        test_score_last: of the last epoch, shape (N, S, F).
        cpu_seconds: of the training, validation included, test not; shape (N, S, F).
        about: names of the blocks, settings, versions and machine.
    """

    genes: FloatArray
    sources: NDArray[np.str_]
    trained_parameters: NDArray[np.int64]
    seeds: NDArray[np.int64]
    parts: NDArray[np.int64]
    validation_score: FloatArray
    validation_loss: FloatArray
    train_loss: FloatArray
    test_score: FloatArray
    test_score_last: FloatArray
    cpu_seconds: FloatArray
    about: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.genes)

    @property
    def block_names(self) -> tuple[str, ...]:
        """Of the model's partition, in order."""
        return tuple(self.about["block_names"])

    @cached_property
    def recorded(self) -> NDArray[np.bool_]:
        """Which trainings there are. Shape (N, S, F)."""
        return ~np.isnan(self.test_score)

    @cached_property
    def diverged(self) -> NDArray[np.bool_]:
        """Which trainings didn't reach their last epoch. Shape (N, S, F)."""
        return self.recorded & np.isnan(self.validation_score[..., -1])

    def part(self, number: int) -> int:
        """The index of a fold, or of `ALL_DATA`, along the axis F."""
        return int(np.flatnonzero(self.parts == number)[0])

    @cached_property
    def best_validation(self) -> FloatArray:
        """The score that a training reports: its best epoch's. Shape (N, S, F)."""
        # Where nothing was recorded there is no maximum.
        best = np.where(np.isnan(self.validation_score), -np.inf, self.validation_score).max(-1)
        best = np.where(self.diverged, WORST_SCORE, best)
        return np.where(self.recorded, best, np.nan)

    @cached_property
    def true_score(self) -> FloatArray:
        """What a genotype is worth: the mean test score of all seeds on all data. Shape (N,)."""
        return np.asarray(self.test_score[:, :, self.part(ALL_DATA)].mean(axis=1))

    def save(self, path: Path) -> None:
        """Write the table; losses and seconds in single precision, scores as they are."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        arrays["about"] = np.array(json.dumps(dict(self.about)))
        for name in ("validation_loss", "train_loss", "cpu_seconds"):
            arrays[name] = arrays[name].astype(np.float32)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Table:
        """The inverse of [`~Table.save`]."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(str(arrays.pop("about")))
        doubles = {
            name: array.astype(np.float64) if array.dtype == np.float32 else array
            for name, array in arrays.items()
        }
        return cls(**doubles, about=about)

    @classmethod
    def from_records(cls, records: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> Table:
        """A table of what `record_table.py` wrote down.

        Args:
            records: one per training, in any order.
            about: see [`Table`]; at least `block_names`, `seeds` and `n_epochs`.
        """
        records = list(records)
        rows: dict[str, int] = {}
        first: list[Mapping[str, Any]] = []
        for record in records:
            if rows.setdefault(_key(record), len(rows)) == len(first):
                first.append(record)
        seeds = np.array(about["seeds"])
        parts = np.array(sorted({record["fold"] for record in records}))
        shape = (len(rows), len(seeds), len(parts))
        curves = {name: np.full((*shape, about["n_epochs"]), np.nan) for name in _CURVES}
        numbers = {name: np.full(shape, np.nan) for name in _NUMBERS}
        for record in records:
            seed, part = list(seeds).index(record["seed"]), list(parts).index(record["fold"])
            place = rows[_key(record)], seed, part
            for name in _CURVES:
                curves[name][place][: len(record[name])] = record[name]
            for name in _NUMBERS:
                numbers[name][place] = record[name]
        return cls(
            genes=np.array([Genotype.from_dict(r["genotype"]).to_array() for r in first]),
            sources=np.array([record["source"] for record in first]),
            trained_parameters=np.array([record["trained_parameters"] for record in first]),
            seeds=seeds,
            parts=parts,
            **curves,
            **numbers,
            about=about,
        )


_CURVES = ("validation_score", "validation_loss", "train_loss")
_NUMBERS = ("test_score", "test_score_last", "cpu_seconds")


def _key(record: Mapping[str, Any]) -> str:
    return Genotype.from_dict(record["genotype"]).key
