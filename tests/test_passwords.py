from __future__ import annotations

import pytest

from hf_biotune.passwords import with_hidden_password, without_password


@pytest.mark.parametrize(
    ("url", "shown", "kept"),
    [
        ("postgresql://me:s3cret@host:5/x", "postgresql://me:***@host:5/x", "postgresql://me@host:5/x"),
        ("postgresql+psycopg://me:a:/?@b@h/x", "postgresql+psycopg://me:***@h/x", "postgresql+psycopg://me@h/x"),
        ("postgresql://h/x?user=me&password=s3cret", "postgresql://h/x?user=me&password=***", "postgresql://h/x?user=me"),
        ("postgresql://h/x?sslpassword=s3cret&user=me", "postgresql://h/x?sslpassword=***&user=me", "postgresql://h/x?user=me"),
    ],
)  # fmt: skip
def test_a_password_is_neither_shown_nor_kept(url, shown, kept):
    assert with_hidden_password(url) == shown
    assert without_password(url) == kept


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me/a:b@c/study.db",
        "grpc://host:13000",
        "postgresql://me@host:5432/studies",
        "me@example.org",
        "hf://datasets/me/flowers@main",
        "12:30",
    ],
)
def test_what_holds_no_password_stays_as_it_is(text):
    assert with_hidden_password(text) == without_password(text) == text
