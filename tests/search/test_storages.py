"""Where a study is kept: every kind for real, and what goes wrong in words."""

from __future__ import annotations

import importlib.util
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import optuna
import pytest
from optuna.storages import GrpcStorageProxy, InMemoryStorage, JournalStorage, RDBStorage
from servers import ESCAPED_PASSWORD, free_port, grpc_server, postgresql_server
from small import small_resnet

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.exceptions import ConfigError, StudyMismatchError
from hf_biotune.search import default_training_arguments
from hf_biotune.search.identity import IDENTITY_KEY
from hf_biotune.search.storages import open_storage

SEARCH = SearchConfig(
    budget=None,
    generations=1,
    population_size=5,
    n_elites=1,
    seeds=(1,),
    n_finalists=1,
    memory_layout="contiguous",
    precision="fp32",
)


@pytest.fixture(scope="module")
def postgresql():
    pytest.importorskip("psycopg")
    with postgresql_server() as url:
        yield url


@pytest.fixture(scope="module")
def search(digits_train, digits_validation, tmp_path_factory):
    def run(storage, config=SEARCH):
        args = default_training_arguments(
            str(tmp_path_factory.mktemp("out")),
            num_train_epochs=2,
            per_device_train_batch_size=30,
            use_cpu=True,
        )
        result = biotune_search(
            small_resnet, digits_train, digits_validation, args, config, storage=storage
        )
        return result.history.drop(columns="seconds")

    return run


@pytest.fixture(scope="module")
def expected(search):
    return search("memory")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["journal", "sqlite"])
def test_a_search_is_the_same_in_a_file_and_resumes_there(search, expected, tmp_path, scheme):
    url = f"{scheme}:///{tmp_path / 'new' / 'study'}"
    search(url, replace(SEARCH, generations=0))
    assert (tmp_path / "new" / "study").stat().st_size > 0
    assert search(url).equals(expected)


@pytest.mark.slow
def test_a_search_is_the_same_in_postgresql_and_resumes_there(search, expected, postgresql):
    url = f"{postgresql}/postgres"
    search(url, replace(SEARCH, generations=0))
    assert search(url).equals(expected)


def test_a_search_is_the_same_behind_a_grpc_proxy_and_resumes_there(search, expected):
    with grpc_server(InMemoryStorage()) as url:
        search(url, replace(SEARCH, generations=0))
        assert search(url).equals(expected)


def test_every_form_opens_what_it_names(tmp_path):
    assert isinstance(open_storage(None, tmp_path), JournalStorage)
    assert (tmp_path / "study.journal").exists()
    assert isinstance(open_storage("memory", tmp_path), InMemoryStorage)
    assert isinstance(open_storage(f"sqlite:///{tmp_path / 'x.db'}", tmp_path), RDBStorage)
    given = InMemoryStorage()
    assert open_storage(given, tmp_path) is given
    with grpc_server(given) as url:
        proxy = open_storage(url, tmp_path)
        assert isinstance(proxy, GrpcStorageProxy)
        proxy.close()


def test_three_slashes_are_a_relative_path_and_four_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for scheme in ("journal", "sqlite"):
        open_storage(f"{scheme}:///{scheme}/relative", tmp_path)
        assert (tmp_path / scheme / "relative").exists()
        open_storage(f"{scheme}:///{tmp_path}/{scheme}/absolute", tmp_path)
        assert (tmp_path / scheme / "absolute").exists()


def test_workers_that_open_a_new_database_at_once_share_one_study(postgresql):
    url = f"{postgresql}/template1"
    start = threading.Barrier(4)

    def work(_):
        start.wait()
        storage = open_storage(url, ".")
        study = optuna.create_study(storage=storage, study_name="shared", load_if_exists=True)
        study.tell(study.ask(), 1.0)
        return storage

    with ThreadPoolExecutor(4) as pool:
        storages = list(pool.map(work, range(4)))
    study = optuna.load_study(storage=storages[0], study_name="shared")
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("nonsense://x", r"one of memory, journal:///study.journal, .* got 'nonsense://x'"),
        ("study.journal", "one of memory, journal:///study.journal, sqlite:///study.db, postgresq"),
        ("mysql://me:secret@host/x", r"grpc://host:13000, or a storage of Optuna, got 'mysql://me"),
        ("sqlite://", "'sqlite://' is in memory; give storage='memory'"),
        ("sqlite:///:memory:", "is in memory; give storage='memory'"),
        ("journal://", "names a directory, '.'; add the name of a file"),
        ("grpc://", "'grpc://' has no host; give grpc://host:13000"),
        ("grpc://host:many", "'grpc://host:many' is no address: Port could not be cast"),
        ("postgresql://host:many/x", "can't be read as a URL; write special characters of a pass"),
        ("postgresql://host/x?connect_timeout=long", "must be a number of seconds, got 'long'"),
    ],
)
def test_a_storage_of_no_known_form_is_refused_with_the_forms(storage, message):
    with pytest.raises(ConfigError, match=message):
        open_storage(storage, ".")


@pytest.mark.parametrize("scheme", ["journal", "sqlite"])
def test_a_file_that_can_not_be_written_is_refused(tmp_path, scheme):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ConfigError, match=r"file/study' can't be written to: (Not a dir|File ex)"):
        open_storage(f"{scheme}:///{tmp_path}/file/study", tmp_path)


@pytest.mark.parametrize(
    ("module", "url"),
    [("psycopg", "postgresql://me:secret@host/x"), ("grpc", "grpc://host:1")],
)
def test_a_missing_extra_is_named_with_the_command(monkeypatch, module, url):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    extra = url.partition("://")[0]
    with pytest.raises(ConfigError, match=rf"'{module}'.*pip install 'hf-biotune\[{extra}\]'") as e:
        open_storage(url, ".")
    assert "secret" not in str(e.value)


@pytest.mark.parametrize(
    ("scheme", "rule"),
    [
        ("postgresql", "can't be opened within 2 s: "),
        ("grpc", "can't be reached within 2 s; start"),
    ],
)
def test_a_server_that_does_not_answer_is_given_up_after_the_stated_time(scheme, rule):
    pytest.importorskip({"postgresql": "psycopg"}.get(scheme, scheme))
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x?connect_timeout=2"
        begin = time.monotonic()
        with pytest.raises(ConfigError, match=rule):
            open_storage(url, ".")
        assert 1.5 < time.monotonic() - begin < 8


def test_a_server_that_is_not_there_is_refused_with_the_default_time_out():
    pytest.importorskip("psycopg")
    port = free_port()
    with pytest.raises(ConfigError, match=r"within 10 s: .*refused.*Check that it is there"):
        open_storage(f"postgresql://127.0.0.1:{port}/x", ".")


def test_a_wrong_password_is_refused_and_shown_nowhere(postgresql):
    url = postgresql.replace(ESCAPED_PASSWORD, "hunter2")
    with pytest.raises(ConfigError, match=r"searcher:\*\*\*@127.*authentication failed") as error:
        open_storage(f"{url}/postgres", ".")
    assert "hunter2" not in str(error.value)


def test_a_file_that_is_no_journal_or_of_a_newer_optuna_is_refused(tmp_path):
    path = tmp_path / "study.journal"
    for content in ("hello\nworld\n", '{"op_code": 999, "worker_id": "w"}\n', '{"a": 1}\n'):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"no journal that this version of Optuna can read"):
            open_storage(f"journal:///{path}", tmp_path)


def test_tables_of_a_newer_optuna_are_refused(tmp_path):
    path = tmp_path / "study.db"
    open_storage(f"sqlite:///{path}", tmp_path)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    with pytest.raises(
        ConfigError, match=r"has tables of another version of Optuna: .* updating op"
    ):
        open_storage(f"sqlite:///{path}", tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_text("hello" * 1000)
    with pytest.raises(ConfigError, match="can't be opened: file is not a database"):
        open_storage(f"sqlite:///{tmp_path / 'x.db'}", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "has schema 2, this version of hf_biotune reads up to 1; install a newer"),
        ({"partition": "another"}, "it differs in partition .there 'another', here"),
        ({"model": "another"}, "it differs in model .there 'another', here"),
        ({"training data": "another"}, "it differs in training data .there 'another', here"),
    ],
)
def test_a_study_of_a_newer_schema_or_of_something_else_is_refused(search, change, message):
    storage = InMemoryStorage()
    search(storage, replace(SEARCH, generations=0))
    study = optuna.load_study(storage=storage, study_name="hf_biotune")
    study.set_user_attr(IDENTITY_KEY, study.user_attrs[IDENTITY_KEY] | change)
    with pytest.raises(StudyMismatchError, match=message):
        search(storage)


def test_a_study_from_before_a_switch_goes_on_without_it(search):
    storage = InMemoryStorage()
    before = replace(SEARCH, generations=0, prefer_cheap=False)
    first = search(storage, before)
    study = optuna.load_study(storage=storage, study_name="hf_biotune")
    # So it looks as those of before the switch did.
    assert "prefer_cheap" not in study.user_attrs[IDENTITY_KEY]
    assert len(search(storage, replace(before, generations=1))) > len(first)
    with pytest.raises(StudyMismatchError, match=r"prefer_cheap .there None, here True"):
        search(storage, replace(before, prefer_cheap=True))
