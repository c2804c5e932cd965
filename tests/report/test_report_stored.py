from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from report_examples import make_data

from hf_biotune.exceptions import DataError
from hf_biotune.report import Predictions, load_report_data, save_report_data, write_report
from hf_biotune.report.predictions import confusions
from hf_biotune.report.stored import STORED_NAME


@pytest.fixture
def data():
    zeros = np.array([0, 1])
    return make_data(
        importances=pd.Series({"stage5": 0.7, "head": 0.3}),
        predictions=Predictions(("a", "b"), zeros, zeros[::-1].copy(), np.array([0.5, 0.6])),
    )


def test_a_report_is_rendered_again_from_what_was_kept_to_the_same_file(data, tmp_path):
    first = write_report(tmp_path / "first", data).read_bytes()
    again = write_report(tmp_path / "second", load_report_data(tmp_path / "first"))
    assert again.read_bytes() == first
    stored = [(tmp_path / name / STORED_NAME).read_bytes() for name in ("first", "second")]
    assert stored[0] == stored[1]


def test_every_part_of_a_report_is_kept(data, tmp_path):
    save_report_data(tmp_path, data)
    loaded = load_report_data(tmp_path)
    for field in fields(data):
        value, there = getattr(data, field.name), getattr(loaded, field.name)
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(there, value, check_dtype=False)
        elif isinstance(value, (str, bool, dict)) or value is None:
            assert there == value
    assert loaded.partition.names == data.partition.names
    assert loaded.partition.n_parameters == data.partition.n_parameters


def test_what_a_later_version_adds_may_be_missing(data, tmp_path):
    path = save_report_data(tmp_path, data)
    values = json.loads(path.read_text())
    del values["predictions"], values["importances"]
    path.write_text(json.dumps(values))
    assert load_report_data(tmp_path).predictions is None


def test_a_table_is_never_larger_than_what_its_file_holds(data, tmp_path):
    path = save_report_data(tmp_path, data)
    values = json.loads(path.read_text())
    values["history"] = {"frame": dict.fromkeys(values["history"]["frame"], 0), "rows": 10**12}
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match="columns of another length"):
        load_report_data(tmp_path)


def test_confusions_of_many_classes_need_no_matrix_of_them():
    names = tuple(map(str, range(10**6)))
    labels = np.array([5, 5, 5, 999_999, 7])
    predicted = np.array([6, 6, 5, 0, 8])
    found = confusions(Predictions(names, labels, predicted, np.ones(5)))
    assert [(c.label, c.predicted, c.count) for c in found] == [
        ("5", "6", 2), ("7", "8", 1), ("999999", "0", 1),
    ]  # fmt: skip
    assert found[0].share == pytest.approx(2 / 3)


def test_a_directory_without_a_report_is_named(tmp_path):
    with pytest.raises(DataError, match=r"report.json' can't be read: .*that `tune` wrote"):
        load_report_data(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.update(schema=7), "must have schema 1, got 7"),
        (lambda v: v.pop("title"), "is not what a run wrote: KeyError"),
        (lambda v: v.update(facts=["a"]), "facts must be dict, not list"),
        (lambda v: v.update(comparison="none"), "comparison must be DataFrame, not str"),
        (lambda v: v["history"]["frame"].pop("score"), "history lacks score"),
        (lambda v: v.update(partition={"partition": 3, "source": ""}), "is not what a run wrote"),
        (lambda v: v["predictions"]["predictions"].update(labels=[0, 9]), "a class has no name"),
        (lambda v: v["predictions"]["predictions"].update(labels=[0, -1]), "a class is negative"),
        (
            lambda v: v["predictions"]["predictions"].update(
                pictures={"dict": [[0, "javascript:alert(1)"]]}
            ),
            "a picture is none",
        ),
    ],
)
def test_a_damaged_file_is_refused(data, tmp_path, change, message):
    path = save_report_data(tmp_path, data)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(DataError, match=message):
        load_report_data(tmp_path)


def test_what_is_no_json_is_refused(tmp_path):
    (tmp_path / STORED_NAME).write_text("{")
    with pytest.raises(DataError, match=r"report.json' is no JSON"):
        load_report_data(tmp_path)
