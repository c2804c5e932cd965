"""A search that is interrupted at every individual, or prolonged, and what it then is."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest
from tiny_searches import SEARCH, course, search

from hf_biotune import SearchConfig
from hf_biotune.search import SearchListener
from hf_biotune.search.adapter_store import AdapterMemory
from hf_biotune.search.history import finished_trials
from hf_biotune.search.kept import KeptAdapters
from hf_biotune.search.metrics import METRICS


class Once(SearchListener):
    """Interrupts the training of every individual, the first time that it is trained."""

    def __init__(self):
        self.interrupted = set()

    def on_epoch_end(self, seed, curve, epochs):
        if self.place not in self.interrupted:
            self.interrupted.add(self.place)
            raise KeyboardInterrupt

    def on_trial_begin(self, number, generation, role):
        # Every individual takes two trials, one of which is interrupted.
        self.place = number // 2


@pytest.mark.slow
@pytest.mark.parametrize("objectives", [(), ("accuracy", "trainable_parameters")])
@pytest.mark.parametrize("sampler", ["nsgaii", "biotune"])
def test_who_is_interrupted_at_every_individual_tries_the_same_ones(tmp_path, sampler, objectives):
    # The score that counts first has to be that of the objectives.
    config = replace(
        SEARCH, sampler=sampler, objectives=objectives, metric="accuracy", budget=16, n_finalists=0
    )
    whole = search(tmp_path / "whole", config)
    listener = Once()
    for _ in range(100):
        try:
            stopped = search(tmp_path / "stopped", config, listener=listener)
            break
        except KeyboardInterrupt:
            continue
    assert len(listener.interrupted) == len(finished_trials(whole.study))
    assert course(stopped.study) == course(whole.study)


def test_a_search_that_is_prolonged_pays_for_the_finalists_of_before(tmp_path):
    config = replace(SEARCH, seeds=(1, 2, 3), n_finalists=3, metric="loss")
    spent = 0.0
    for budget in (12, 18, 24, 30):
        result = search(tmp_path, replace(config, budget=budget))
        # The last individual may turn out to be a finalist, which needs two seeds more.
        assert spent < result.trainings <= budget + 2
        spent = result.trainings


def test_whoever_only_finalists_keep_from_the_front_has_its_weights_kept():
    study = optuna.create_study(directions=["maximize", "minimize"])
    # The third is dominated by two, the last by all that cost as much or less.
    for values in ((0.9, 10.0), (0.8, 10.0), (0.7, 10.0), (0.5, 4.0), (0.4, 12.0)):
        study.add_trial(optuna.create_trial(values=values))
    search = SearchConfig(objectives=("accuracy", "trainable_parameters"), n_finalists=1)
    kept = KeptAdapters(study, {}, AdapterMemory(), search, METRICS["accuracy"])
    assert kept._on_front(study.trials) == {0, 1, 3}
    alone = replace(search, objectives=())
    kept = KeptAdapters(study, {}, AdapterMemory(), alone, METRICS["accuracy"])
    assert kept._on_front(study.trials) == set()
