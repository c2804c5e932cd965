"""`optuna-dashboard study.journal` shows a search, by names that a person can read."""

from __future__ import annotations

import json
from io import BytesIO
from wsgiref.util import setup_testing_defaults

import pytest
from small import small_resnet

from hf_biotune import SearchConfig, biotune_search
from hf_biotune.search import default_training_arguments

# A table of attributes is no place for more.
MOST_CHARACTERS = 4000


@pytest.fixture(scope="module")
def searched(digits_train, digits_validation, tmp_path_factory):
    directory = tmp_path_factory.mktemp("dashboard")
    args = default_training_arguments(
        str(directory), num_train_epochs=3, per_device_train_batch_size=30, use_cpu=True
    )
    search = SearchConfig(
        budget=None, generations=0, population_size=5, n_elites=1, seeds=(1, 2), n_finalists=1
    )
    result = biotune_search(small_resnet, digits_train, digits_validation, args, search)
    return result, directory / "study.journal"


@pytest.fixture(scope="module")
def get(searched):
    """What the dashboard answers, as its page in the browser asks for it."""
    app = pytest.importorskip("optuna_dashboard").wsgi(str(searched[1]))

    def ask(path):
        environ = {"PATH_INFO": path, "wsgi.input": BytesIO()}
        setup_testing_defaults(environ)
        statuses = []
        answer = app(environ, lambda status, headers, error=None: statuses.append(status))
        body = b"".join(answer)
        if hasattr(answer, "close"):
            answer.close()
        assert statuses == ["200 OK"], body
        return body.decode()

    return ask


def study_id(get):
    studies = json.loads(get("/api/studies"))["study_summaries"]
    return next(s["study_id"] for s in studies if s["study_name"] == "hf_biotune")


def test_the_page_and_the_study_are_served(get, searched):
    assert "<title>Optuna Dashboard</title>" in get("/dashboard")
    detail = json.loads(get(f"/api/studies/{study_id(get)}"))
    assert detail["name"] == "hf_biotune"
    assert detail["directions"] == ["maximize"]
    history = searched[0].history
    assert [trial["number"] for trial in detail["trials"]] == history.trial.tolist()
    scores = [float(t["values"][0]) for t in detail["trials"] if t["state"] == "Complete"]
    assert scores == history.score[history.state == "complete"].tolist()


def test_every_gene_has_the_name_of_its_block(get, searched):
    detail = json.loads(get(f"/api/studies/{study_id(get)}"))
    names = {parameter["name"] for parameter in detail["trials"][0]["params"]}
    blocks = searched[0].partition.names
    assert names == {*(f"importance:{name}" for name in blocks), "freezing_threshold"}


def test_attributes_have_readable_names_and_are_short(get):
    detail = json.loads(get(f"/api/studies/{study_id(get)}"))
    of_trials = [a for trial in detail["trials"] for a in trial["user_attrs"]]
    assert {"fitness", "lr_multipliers", "start"} <= {a["key"] for a in of_trials}
    for attribute in [*detail["user_attrs"], *of_trials]:
        assert attribute["key"].isprintable()
        assert len(attribute["key"]) < 100
        assert len(attribute["value"]) < MOST_CHARACTERS, attribute["key"]
