"""`EnsembleFiles`: what an ensemble writes to and reads from directories and the Hub.

One directory: `ensemble_config.json`, a card, and a directory for each member, which holds only
what that changed and is an adapter of its own. A stranger's can at worst raise an error.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from torch import nn

from ...adapter_files import as_before_on_failure
from ...card import CITATION, LIBRARY, code, fenced, is_repo_id, table, update_card
from ...checkpoint import write_adapter
from ...exceptions import CheckpointError, ConfigError
from ...export import auto_mapping
from ...hub import fetch_card, locate, push_directory
from ...model import BioTuneModel
from ...untrusted import read_json, shown
from .members import EnsembleMember

if TYPE_CHECKING:
    from typing_extensions import Self

ENSEMBLE_CONFIG_NAME = "ensemble_config.json"
FORMAT = 1
# Each costs a pass through the model: more would not be served.
MAX_MEMBERS = 100


class EnsembleFiles(nn.Module):
    """The saving and loading half of [`BioTuneEnsemble`].

    Args:
        base_model: the model that all members were fine-tuned from.
        members: at least one.
    """

    def __init__(self, base_model: nn.Module, members: Sequence[EnsembleMember]) -> None:
        super().__init__()
        self.base_model = base_model
        self.members = tuple(members)

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], safe_serialization: bool = True, **kwargs: Any
    ) -> None:
        """Save what the members changed, and their configurations; the base model is not saved.

        Args:
            save_directory: made if needed.
            safe_serialization: must be `True`; pickle is not written.
            kwargs: taken for compatibility.

        Raises:
            ConfigError: `safe_serialization=False`.
            CheckpointError: `save_directory` is a file.
        """
        if not safe_serialization:
            raise ConfigError("safe_serialization must be True: only safetensors are written")
        if os.path.isfile(save_directory):
            raise CheckpointError(f"save_directory must be a directory, {save_directory} is a file")
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        # An older ensemble in this directory stays until the new one is complete beside it.
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=directory) as unfinished:
            self._write_members(Path(unfinished))
            # A crash from here on leaves no ensemble, rather than one of old and new members.
            (directory / ENSEMBLE_CONFIG_NAME).unlink(missing_ok=True)
            for written in sorted(Path(unfinished).iterdir()):
                _take_the_place_of(directory / written.name, written)
        self._write_card(directory)

    def _write_members(self, directory: Path) -> None:
        """Everything but the card; the configuration too."""
        mapping = auto_mapping(self.base_model)
        for member in self.members:
            write_adapter(directory / member.name, member.tensors, member.config)
            member.config.save_pretrained(
                str(directory / member.name),
                auto_mapping_dict=None if member.config.task_type else mapping,
            )
        (directory / ENSEMBLE_CONFIG_NAME).write_text(json.dumps(self._to_dict(), indent=2))

    @property
    def _base_name(self) -> str | None:
        name = self.members[0].config.base_model_name_or_path
        return None if name is None else str(name)

    def _to_dict(self) -> dict[str, Any]:
        return {
            "library": LIBRARY,
            "format": FORMAT,
            "base_model_name_or_path": self._base_name,
            "members": [
                {"name": member.name, "validation_score": member.validation_score}
                for member in self.members
            ],
        }

    def _write_card(self, directory: Path) -> None:
        metadata: dict[str, Any] = {"library_name": LIBRARY}
        if is_repo_id(self._base_name):
            metadata["base_model"] = self._base_name
        trained = [
            [
                block
                for block in member.partition_of(self.base_model).names
                if block in member.config.lr_multipliers
            ]
            for member in self.members
        ]
        update_card(directory, _card_body(self._base_name, self.members, trained), metadata)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload BioTune ensemble",
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        **kwargs: Any,
    ) -> str:
        """Upload what `save_pretrained` writes, in one commit.

        The text that people wrote into the repository's card is kept.

        Args:
            repo_id: `"user/name"`; the repository is made if needed.
            commit_message, commit_description, private, token, revision, create_pr: see
                [`push_directory`].
            kwargs: of [`~BioTuneEnsemble.save_pretrained`].

        Returns:
            The address of the commit.

        Raises:
            CheckpointError: the Hub can't be reached, or refuses.
        """
        with tempfile.TemporaryDirectory() as directory:
            fetch_card(repo_id, Path(directory), token=token, revision=revision)
            self.save_pretrained(directory, **kwargs)
            return push_directory(
                directory,
                repo_id,
                files=("*", "*/*"),
                commit_message=commit_message,
                commit_description=commit_description,
                private=private,
                token=token,
                revision=revision,
                create_pr=create_pr,
            )

    @classmethod
    def from_pretrained(
        cls,
        base_model: nn.Module,
        model_id: str | os.PathLike[str],
        *,
        subfolder: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """An ensemble that `save_pretrained` or `push_to_hub` wrote.

        Args:
            base_model: the model that the members were fine-tuned from, with the same labels; used
                in place. If anything is wrong it stays as it is.
            model_id: a local directory, or a repository on the Hub.
            subfolder: where in it.
            kwargs: the arguments of `hf_hub_download`, such as `revision` and `token`.

        Raises:
            CheckpointError: there is no ensemble, it can't be read, or does not fit the base model.
            ConfigError: its configuration, or that of a member, is not valid.
        """
        path = locate(model_id, ENSEMBLE_CONFIG_NAME, subfolder=subfolder, **kwargs)
        members = [
            (model_id, f"{subfolder}/{name}" if subfolder else name, name, score)
            for name, score in _read_members(path)
        ]
        return cls._of_adapters(base_model, members, kwargs)

    @classmethod
    def from_adapters(
        cls, base_model: nn.Module, adapters: Sequence[str | os.PathLike[str]], **kwargs: Any
    ) -> Self:
        """An ensemble of any adapters of one base model.

        Args:
            base_model: as in [`~BioTuneEnsemble.from_pretrained`].
            adapters: local directories, or repositories on the Hub.
            kwargs: the arguments of `hf_hub_download`, such as `token`.

        Raises:
            CheckpointError: an adapter can't be read, or does not fit the base model.
            ConfigError: its configuration is not valid, or there is none.
        """
        members = [
            (adapter, None, f"member-{number}", None) for number, adapter in enumerate(adapters)
        ]
        return cls._of_adapters(base_model, members, kwargs)

    @classmethod
    def _of_adapters(
        cls,
        base_model: nn.Module,
        members: Sequence[tuple[str | os.PathLike[str], str | None, str, float | None]],
        hub_kwargs: Mapping[str, Any],
    ) -> Self:
        with as_before_on_failure(base_model):
            return cls(
                base_model,
                [
                    EnsembleMember.take_from(
                        BioTuneModel.from_pretrained(
                            base_model, model_id, subfolder=subfolder, **hub_kwargs
                        ),
                        name,
                        score,
                    )
                    for model_id, subfolder, name, score in members
                ],
            )


def _take_the_place_of(old: Path, new: Path) -> None:
    """Move a file, or the files of a directory, to where others of these names may be."""
    if new.is_dir():
        old.mkdir(exist_ok=True)
        for file in new.iterdir():
            os.replace(file, old / file.name)
    else:
        os.replace(new, old)


def _read_members(path: str) -> list[tuple[str, float | None]]:
    """Names and scores, from a configuration that may be a stranger's."""
    values = read_json(path)
    version, listed = values.get("format"), values.get("members")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= FORMAT:
        raise CheckpointError(
            f"{path}: format must be a number from 1 to {FORMAT}, got {shown(version)}; a later "
            f"version of hf_biotune may have written it"
        )
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_MEMBERS:
        raise CheckpointError(
            f"{path}: members must be a list of 1 to {MAX_MEMBERS}, got {shown(listed)}"
        )
    members = [_read_member(path, entry) for entry in listed]
    if len({name for name, _ in members}) != len(members):
        raise CheckpointError(f"{path}: each member needs another name, got {shown(listed)}")
    return members


def _read_member(path: str, entry: Any) -> tuple[str, float | None]:
    name = entry.get("name") if isinstance(entry, dict) else None
    # It is a directory beside the configuration, and nothing else.
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name):
        raise CheckpointError(
            f"{path}: a member must have a name of letters, digits, '-' and '_', got {shown(entry)}"
        )
    score = entry.get("validation_score")
    if score is not None and (
        isinstance(score, bool)
        or not isinstance(score, (int, float))
        or abs(score) > sys.float_info.max
    ):
        raise CheckpointError(
            f"{path}: validation_score of {name!r} must be a number or null, got {shown(score)}"
        )
    return name, None if score is None else float(score)


def _card_body(
    base: str | None, members: Sequence[EnsembleMember], trained: Sequence[Sequence[str]]
) -> str:
    """Who the members are, and how to load them."""
    rows = [
        (
            code(member.name),
            ", ".join(map(code, blocks)),
            f"{member.n_numbers:,}",
            "" if member.validation_score is None else f"{member.validation_score:.4f}",
        )
        for member, blocks in zip(members, trained, strict=True)
    ]
    name = PurePath(base or "").name
    return "\n\n".join(
        [
            "# BioTune ensemble",
            f"{len(members)} fine-tunings of {code(name) if name else 'one base model'}, served as "
            f"one classifier: its probabilities are the mean of theirs. Each member's directory "
            f"holds only the blocks that it changed.",
            table(("member", "trained blocks", "numbers", "validation score"), rows),
            fenced(
                "from hf_biotune import BioTuneEnsemble\n\n"
                'model = BioTuneEnsemble.from_pretrained(base_model, "this repository")',
                "python",
            ),
            f"Made with hf_biotune. {CITATION}",
        ]
    )
