"""Where the weights of a search's individuals are kept: adapter directories, or main memory."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from optuna.storages import BaseStorage, InMemoryStorage
from safetensors import SafetensorError
from torch import nn

from ..checkpoint import KEY_PREFIX
from ..config import BioTuneConfig
from ..exceptions import BioTuneError, StorageError
from ..model import BioTuneModel
from ..untrusted import read_json
from .storages import STUDY_NAME

ADAPTERS_NAME = "adapters"
RUN_NAME = "run.json"
_UNFINISHED = ".unfinished-"
# Writing takes seconds; what is older was left by a killed process.
_STALE_SECONDS = 3600


@dataclass(frozen=True)
class TrainedRun:
    """Which training an adapter's weights come from.

    Args:
        study: the digest of what the study is about.
        trial: the individual's number in the study.
        seed: of the training.
        score: of its best epoch.
    """

    study: str
    trial: int
    seed: int
    score: float

    @property
    def name(self) -> str:
        """Of its directory."""
        return f"trial-{self.trial}-seed-{self.seed}"


class AdapterStore(Protocol):
    """Adapters by the training that they come from; there is one per individual and seed."""

    def save(
        self, run: TrainedRun, model: BioTuneModel, tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """Keep an adapter, whole or not at all.

        Args:
            run: the training.
            model: the wrapped model, with the adapter's configuration.
            tensors: the adapter's weights, by their names in the base model.
        """

    def holds(self, run: TrainedRun, lr_multipliers: Mapping[str, float]) -> bool:
        """Whether the adapter of exactly this training is there."""

    def load(self, run: TrainedRun, base: nn.Module) -> BioTuneModel:
        """Put an adapter that is there into its base model, for inference."""

    def trials(self) -> set[int]:
        """The individuals of which something is kept."""

    def remove(self, trial: int) -> None:
        """Forget an individual."""


class AdapterMemory:
    """Adapters in main memory, for a study that is not stored either."""

    def __init__(self) -> None:
        self._kept: dict[TrainedRun, tuple[BioTuneConfig, dict[str, torch.Tensor]]] = {}

    def __str__(self) -> str:
        return "memory"

    def save(
        self, run: TrainedRun, model: BioTuneModel, tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """See [`AdapterStore`]."""
        config = copy.deepcopy(model.active_peft_config)
        config.inference_mode = True
        self._kept[run] = (config, dict(tensors))

    def holds(self, run: TrainedRun, lr_multipliers: Mapping[str, float]) -> bool:
        """See [`AdapterStore`]."""
        return run in self._kept

    def load(self, run: TrainedRun, base: nn.Module) -> BioTuneModel:
        """See [`AdapterStore`]."""
        config, tensors = self._kept[run]
        model = BioTuneModel(base, copy.deepcopy(config))
        model.base_model.store("default", tensors)
        model.eval()
        return model

    def trials(self) -> set[int]:
        """See [`AdapterStore`]."""
        return {run.trial for run in self._kept}

    def remove(self, trial: int) -> None:
        """See [`AdapterStore`]."""
        self._kept = {run: kept for run, kept in self._kept.items() if run.trial != trial}


class AdapterDirectory:
    """One directory per adapter, as `BioTuneModel.save_pretrained` writes it.

    Several processes may write to it. A directory appears under its name when it is complete.

    Args:
        directory: made when the first adapter is saved.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory)

    def save(
        self, run: TrainedRun, model: BioTuneModel, tensors: Mapping[str, torch.Tensor]
    ) -> None:
        """See [`AdapterStore`].

        Raises:
            StorageError: the directory can't be written to, or has no room.
        """
        try:
            self._write(run, model, tensors)
        except (OSError, SafetensorError) as error:
            raise StorageError(
                f"the weights of individual {run.trial} can't be written to {self}: {error}. Every "
                f"finished individual is kept; make room or give back access, and go on with the "
                f"same command, or with keep_best=0, which keeps no weights"
            ) from error

    def _write(
        self, run: TrainedRun, model: BioTuneModel, tensors: Mapping[str, torch.Tensor]
    ) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._directory))
        try:
            # As from a whole wrapped model whose weights are elsewhere.
            wrapped = {KEY_PREFIX + name: tensor for name, tensor in tensors.items()}
            model.save_pretrained(unfinished / run.name, state_dict=wrapped)
            (unfinished / run.name / RUN_NAME).write_text(json.dumps(asdict(run), indent=2))
            self._publish(unfinished / run.name)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _publish(self, complete: Path) -> None:
        final = self._directory / complete.name
        if final.exists():
            os.rename(final, complete.with_suffix(".old"))
        try:
            os.rename(complete, final)
        except OSError:
            # Another process was quicker with the same training.
            if not final.is_dir():
                raise

    def holds(self, run: TrainedRun, lr_multipliers: Mapping[str, float]) -> bool:
        """See [`AdapterStore`]; a directory of another study, or a damaged one, does not count."""
        directory = self._directory / run.name
        try:
            return (
                read_json(directory / RUN_NAME) == asdict(run)
                and BioTuneConfig.from_pretrained(directory).lr_multipliers == lr_multipliers
            )
        except BioTuneError:
            return False

    def load(self, run: TrainedRun, base: nn.Module) -> BioTuneModel:
        """See [`AdapterStore`]."""
        return BioTuneModel.from_pretrained(base, self._directory / run.name)

    def trials(self) -> set[int]:
        """See [`AdapterStore`]."""
        if not self._directory.is_dir():
            return set()
        found = (re.fullmatch(r"trial-(\d+)-seed-\d+", p.name) for p in self._directory.iterdir())
        return {int(match[1]) for match in found if match}

    def remove(self, trial: int) -> None:
        """See [`AdapterStore`]; what killed processes left unfinished goes as well."""
        for path in self._directory.glob(f"trial-{trial}-seed-*"):
            # Under its name it must be whole at every moment.
            unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._directory))
            with suppress(OSError):  # another process was quicker
                os.rename(path, unfinished / path.name)
            shutil.rmtree(unfinished, ignore_errors=True)
        for path in self._directory.glob(f"{_UNFINISHED}*"):
            with suppress(OSError):  # its process has just finished with it
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)


def adapter_store(storage: BaseStorage, output_dir: str, study_name: str) -> AdapterStore:
    """Weights last as long as the study that they belong to, and each study has its own.

    Args:
        storage: of the study.
        output_dir: where a directory `adapters` is made for the study of the default name, and one
            more for each further study.
        study_name: of the study.
    """
    if isinstance(storage, InMemoryStorage):
        return AdapterMemory()
    name = ADAPTERS_NAME
    if study_name != STUDY_NAME:
        # Any name may be given to a study, and not every one to a directory.
        name += f"-{hashlib.sha256(study_name.encode()).hexdigest()[:8]}"
    return AdapterDirectory(Path(output_dir) / name)
