"""Passwords in the URLs of storages: never shown, never kept."""

from __future__ import annotations

import re

# Everything up to the last @, since a person may forget to escape one in the password.
_IN_ADDRESS = re.compile(r"(?<=://)([^:/@]*):.*@")
_IN_QUERY = re.compile(r"([?&]\w*password)=[^&]*")


def with_hidden_password(url: str) -> str:
    """A URL as it may be shown.

    Example:
        >>> with_hidden_password("postgresql://me:secret@host/studies")
        'postgresql://me:***@host/studies'
    """
    return _IN_QUERY.sub(r"\1=***", _IN_ADDRESS.sub(r"\1:***@", url))


def without_password(url: str) -> str:
    """A URL as it may be kept: PostgreSQL looks for the password in `~/.pgpass` or `PGPASSWORD`.

    Example:
        >>> without_password("postgresql://me:secret@host/studies")
        'postgresql://me@host/studies'
    """
    url = _IN_ADDRESS.sub(r"\1@", url)
    url = re.sub(r"\?\w*password=[^&]*&", "?", url)
    return re.sub(r"[?&]\w*password=[^&]*", "", url)
