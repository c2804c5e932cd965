"""To and from the Hugging Face Hub: a file down, a directory up, and errors that say what to do.

Whatever goes wrong is a [`CheckpointError`]; local files stay as they are, and trying again works.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

from huggingface_hub import create_repo, hf_hub_download, upload_folder
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .exceptions import CheckpointError
from .untrusted import shown

CARD_NAME = "README.md"
_ADAPTER_FILES = (CARD_NAME, "adapter_config.json", "adapter_model.safetensors")
FIGURES = ("blocks", "importances", "evolution", "individuals", "comparison", "pareto")
"""The figures of a report, each a PNG file."""
RUN_FILES = (
    CARD_NAME,
    "report.html",
    "report.json",
    *(f"{name}.png" for name in FIGURES),
    "best_config.json",
    "history.csv",
    "comparison.json",
    *(f"adapter/{name}" for name in _ADAPTER_FILES),
    "ensemble/ensemble_config.json",
    f"ensemble/{CARD_NAME}",
    *(f"ensemble/*/{name}" for name in _ADAPTER_FILES),
)
"""What a search writes and may be shown to the world; nothing else in its directory is."""
# One of these tells that a directory is that of a run.
SIGNS_OF_A_RUN = ("report.json", "best_config.json", "adapter/adapter_config.json")


def locate(
    model_id: str | os.PathLike[str],
    filename: str,
    *,
    subfolder: str | None = None,
    **hub_kwargs: Any,
) -> str:
    """The local path of a checkpoint's file, downloaded from the Hub if it isn't a local directory.

    Args:
        model_id: a local directory, or a repository on the Hub.
        filename: of the file.
        subfolder: where in the directory or repository.
        hub_kwargs: `revision`, `token`, `cache_dir`, ... of `hf_hub_download`.

    Raises:
        CheckpointError: there is no such directory or repository, or no such file in it, or
            `subfolder` leads out of it.
    """
    _check_subfolder(subfolder)
    if not isinstance(model_id, (str, os.PathLike)):
        raise CheckpointError(
            f"a checkpoint must be a local directory or a repository on the Hub such as "
            f"'user/name', got {shown(model_id)}"
        )
    if os.path.isdir(model_id):
        return _local_file(Path(model_id), subfolder or "", filename)
    where = f"{filename} of {shown(str(model_id))}"
    with _explained(where, "read", hub_kwargs.get("revision")):
        path: str = hf_hub_download(str(model_id), filename, subfolder=subfolder, **hub_kwargs)
    return path


def push_directory(
    directory: str | os.PathLike[str],
    repo_id: str,
    *,
    files: Sequence[str] = RUN_FILES,
    commit_message: str = "Upload with hf_biotune",
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload what a search wrote, in one commit: card, report, figures, configuration and adapter.

    Nothing is visible on the Hub before everything is there.

    Args:
        directory: the output directory of the search.
        repo_id: `"user/name"`; the repository is made if needed.
        files: patterns of the files to upload, as of `Path.glob`. Default: those that a search
            writes, so that what else lies in the directory stays private.
        commit_message, commit_description: of the commit.
        private: whether a new repository is private. Default: the owner's setting.
        token: to use instead of the one of `hf auth login`.
        revision: the branch; it must exist. Default: `main`.
        create_pr: propose the commit as a pull request.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: there is no such directory or nothing to upload in it, or the Hub refuses.

    Example:
        ```python
        push_directory("biotune", "me/vit-flowers-biotune")
        BioTuneModel.from_pretrained(base, "me/vit-flowers-biotune", subfolder="adapter")
        ```
    """
    directory = Path(directory)
    # The Hub's own patterns would let `*` stand for `/` as well.
    chosen = [
        path.relative_to(directory).as_posix()
        for pattern in files
        for path in sorted(directory.glob(pattern))
        if path.is_file()
    ]
    is_run = files is not RUN_FILES or any((directory / sign).is_file() for sign in SIGNS_OF_A_RUN)
    if not (chosen and is_run):
        wanted = SIGNS_OF_A_RUN if files is RUN_FILES else files
        raise CheckpointError(
            f"{str(directory)!r} holds none of {', '.join(wanted)}, so there is nothing to upload; "
            f"give the output directory of a search"
        )
    with _explained(shown(repo_id), "written", revision):
        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        commit = upload_folder(
            repo_id=repo_id,
            folder_path=directory,
            allow_patterns=[glob.escape(name) for name in chosen],
            commit_message=commit_message,
            commit_description=commit_description,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )
    return str(commit.commit_url)


def fetch_card(
    repo_id: str, directory: Path, *, token: str | bool | None = None, revision: str | None = None
) -> None:
    """Copy a repository's card into a directory, if it has one, so that its text can be kept.

    Raises:
        CheckpointError: the Hub can't be asked.
    """
    with _explained(f"{CARD_NAME} of {shown(repo_id)}", "read", revision):
        try:
            path = hf_hub_download(repo_id, CARD_NAME, token=token, revision=revision)
        except GatedRepoError:
            raise
        # A name without its owner is looked up under nobody, and is not there yet.
        except (RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
            return
    (directory / CARD_NAME).write_bytes(Path(path).read_bytes())


def _check_subfolder(subfolder: Any) -> None:
    if subfolder is None:
        return
    if not isinstance(subfolder, str):
        raise CheckpointError(f"subfolder must be text, got {shown(subfolder)}")
    # A Windows path may also begin with a drive, and every system must read a name alike.
    leaves = ".." in subfolder.split("/") or PureWindowsPath(subfolder).anchor
    if leaves or PureWindowsPath(subfolder).drive or "\\" in subfolder or "\0" in subfolder:
        raise CheckpointError(
            f"subfolder must lie inside of the checkpoint, got {shown(subfolder)}; name it "
            f"relative to the checkpoint, with '/' and without '..'"
        )


def _local_file(directory: Path, subfolder: str, filename: str) -> str:
    parent = directory / subfolder
    # The Hub's cache links its files to elsewhere, but never its directories.
    if not parent.resolve().is_relative_to(directory.resolve()):
        raise CheckpointError(
            f"subfolder must lie inside of the checkpoint, but {shown(subfolder)} is a link that "
            f"leads out of {directory}; name the directory that it leads to"
        )
    path = parent / filename
    try:
        if path.is_file():
            return str(path)
        there = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    except OSError as error:
        raise CheckpointError(f"{shown(str(path))} can't be read: {error}") from error
    found = ", ".join(map(shown, sorted(there)[:10])) or "nothing"
    raise CheckpointError(f"no {filename} in {shown(str(parent))}; found there: {found}")


@contextmanager
def _explained(what: str, verb: str, revision: str | None) -> Iterator[None]:
    """Turn what the Hub's client raises into a `CheckpointError`."""
    try:
        yield
    except (HTTPError, OSError, EntryNotFoundError, HFValidationError, RuntimeError) as error:
        # The upload of large files runs in threads, whose errors come wrapped.
        cause = error.__cause__ if isinstance(error, RuntimeError) else None
        reason = _reason(cause or error, revision)
        raise CheckpointError(f"{what} can't be {verb}: {reason}") from error


def _reason(error: BaseException, revision: str | None) -> str:
    """What is wrong, and the remedy."""
    if isinstance(error, HFValidationError):
        return (
            f"it is neither a local directory nor the name of a repository, which must be like "
            f"'user/name': {_first_line(error)}"
        )
    if isinstance(error, GatedRepoError):
        return "the repository is gated; ask for access on its page, then log in with a token"
    if isinstance(error, RevisionNotFoundError):
        return (
            f"the repository has no revision {revision!r}; give a branch, tag or commit that it has"
        )
    if isinstance(error, RemoteEntryNotFoundError):
        return (
            "the repository has no such file; is it an adapter of hf_biotune, and is `subfolder` "
            "right?"
        )
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    return _REASONS.get(status, "") or _other_reason(error, status)


_REASONS: dict[int | None, str] = {
    401: "there is no such repository, or it is private and the token is missing or wrong; check "
    "the name and log in with `hf auth login` (401)",
    403: "the token does not allow it; use one that has write access to this repository (403)",
    404: "there is no such repository on the Hub, and no such local directory; check the name and "
    "your token (404)",
}


def _other_reason(error: BaseException, status: int | None) -> str:
    if status is not None and status >= 500:
        return f"the Hub failed ({status}); nothing was changed, try again later"
    if isinstance(error, (LocalEntryNotFoundError, HTTPError)) and status is None:
        return "the Hub can't be reached, and no local copy exists; check the connection, try again"
    return f"{_first_line(error)}; check the name, the token and the connection"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:300]
