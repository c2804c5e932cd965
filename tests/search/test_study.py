from __future__ import annotations

import math
from dataclasses import replace

import optuna
import pytest
import torch
from datasets import Dataset
from small import digits_split, small_resnet

from hf_biotune import BioTuneConfig, SearchConfig, biotune_search
from hf_biotune.evolution import plan_of
from hf_biotune.exceptions import ConfigError, DataError, PartitionError, StudyMismatchError
from hf_biotune.search import SearchListener, default_training_arguments, encode_dataset
from hf_biotune.search.finalists import confirmations
from hf_biotune.search.fitness import FitnessEvaluator
from hf_biotune.search.history import fitness_of, spent_trainings, was_trained
from hf_biotune.search.metrics import Metric
from hf_biotune.search.scoring import Scorer


def arguments(directory=None, **overrides):
    settings = {"num_train_epochs": 3, "per_device_train_batch_size": 20, "use_cpu": True}
    return default_training_arguments(
        None if directory is None else str(directory), **{**settings, **overrides}
    )


SEARCH = SearchConfig(
    budget=None,
    generations=1,
    population_size=5,
    n_elites=1,
    seeds=(1, 2),
    n_finalists=2,
    memory_layout="contiguous",
    precision="fp32",
    surrogate=False,
)


@pytest.fixture
def search(digits_train, digits_validation):
    def run(config=SEARCH, directory=None, args=None, **kwargs):
        return biotune_search(
            kwargs.pop("model_init", small_resnet),
            kwargs.pop("train", digits_train),
            digits_validation,
            args or arguments(directory),
            config,
            storage=None if directory else optuna.storages.InMemoryStorage(),
            **kwargs,
        )

    return run


class StopAt(SearchListener):
    """Interrupts the search in the middle of a training, as Ctrl-C does."""

    def __init__(self, trial: int, epoch: int = 1) -> None:
        self.trial, self.epoch, self.now = trial, epoch, -1

    def on_trial_begin(self, number, generation, role):
        self.now = number

    def on_epoch_end(self, seed, curve, epochs):
        if self.now == self.trial and len(curve) == self.epoch:
            raise KeyboardInterrupt


def table(result):
    """What must not depend on where a search was interrupted: all but numbers and times."""
    frame = result.history[result.history.state != "failed"].copy()
    renumbered = {number: position for position, number in enumerate(frame.trial)}
    frame["parents"] = [[renumbered[p] for p in parents] for parents in frame.parents]
    return frame.drop(columns=["trial", "seconds"]).reset_index(drop=True)


def test_a_metric_that_is_no_number_has_the_worst_score_and_the_search_ends(search, caplog):
    def precision(logits, labels):
        return float("nan") if len(labels) % 2 == 0 else 1.0

    metric = Metric("precision of one class", True, precision)
    result = search(replace(SEARCH, metric=metric, generations=0, n_finalists=0))
    assert len(result.history) == 5
    assert result.best_score == -math.inf
    assert "precision of one class is not a number for some predictions" in caplog.text


def test_a_multiple_of_a_fine_tuning_ends_though_none_is_tried(search):
    config = SearchConfig(
        budget="1x", seeded_start=False, population_size=4, seeds=(1,), n_finalists=0,
        memory_layout="contiguous", precision="fp32",
    )  # fmt: skip
    assert 4 <= len(search(config).history) < 40


def test_memory_that_does_not_suffice_for_full_fine_tuning_leaves_out_one_start(
    search, monkeypatch
):
    def too_large(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("hf_biotune.search.engine.relative_gradient_norms", too_large)
    result = search(replace(SEARCH, generations=0, n_finalists=0))
    starts = set(result.history.start) - {""}
    assert starts == {"linear probe", "full fine-tuning", "last half"}


def test_with_one_epoch_nobody_is_halved(search):
    config = replace(SEARCH, halving=True, generations=0, n_finalists=0)
    result = search(config, args=arguments(num_train_epochs=1))
    assert set(result.history.state) == {"complete"}


def test_two_studies_in_one_directory_keep_their_own_weights(search, tmp_path):
    config = replace(SEARCH, generations=0, n_finalists=0)
    first = search(config, directory=tmp_path)
    second = search(replace(config, seed=3), directory=tmp_path, study_name="another: one/two")
    for result in (first, second):
        assert result.best_model.active_peft_config.lr_multipliers
    assert len(list(tmp_path.glob("adapters*"))) == 2


def test_what_is_easily_mixed_up_is_told(search, digits_train, digits_validation):
    splits = (digits_train, digits_validation)
    with pytest.raises(ConfigError, match=r"model_init must be a function .* got ResNetFor"):
        biotune_search(small_resnet(), *splits, arguments())
    with pytest.raises(ConfigError, match=r"args must be TrainingArguments, got SearchConfig"):
        biotune_search(small_resnet, *splits, SEARCH)
    with pytest.raises(ConfigError, match="search must be a SearchConfig, got dict"):
        biotune_search(small_resnet, *splits, arguments(), {})
    with pytest.raises(ConfigError, match="max_steps=5 has no meaning for a search"):
        biotune_search(small_resnet, *splits, arguments(max_steps=5))
    model = small_resnet()
    with pytest.raises(ConfigError, match="must make the model anew at each call"):
        search(model_init=lambda: model)
    other = replace(digits_validation, label_names=tuple("abcdefghij"))
    with pytest.raises(DataError, match="must number their classes alike"):
        biotune_search(small_resnet, digits_train, other, arguments())


def test_arguments_that_change_the_training_make_another_study(search, tmp_path):
    config = replace(SEARCH, generations=0, n_finalists=0)
    search(config, directory=tmp_path)
    with pytest.raises(StudyMismatchError, match=r"adam_beta2 \(there None, here 0.9\)"):
        search(config, directory=tmp_path, args=arguments(tmp_path, adam_beta2=0.9))


def test_what_trainer_takes_is_taken(digits_train, digits_validation):
    """A `datasets` data set, with a column that the model does not know."""

    def as_dataset(split):
        pixels = split.batch(torch.arange(len(split)))["pixel_values"]
        columns = {"pixel_values": pixels.numpy(), "label": split.labels.numpy()}
        return Dataset.from_dict({**columns, "id": range(len(split))}).with_format("torch")

    config = replace(SEARCH, generations=0, n_finalists=0)
    given = [as_dataset(digits_train), as_dataset(digits_validation)]
    result = biotune_search(small_resnet, *given, arguments(), config, storage="memory")
    ready = [encode_dataset(each, columns=["pixel_values"]) for each in given]
    expected = biotune_search(small_resnet, *ready, arguments(), config, storage="memory")
    assert table(result).equals(table(expected))
    with pytest.raises(DataError, match="items must be dicts of inputs and 'labels'"):
        biotune_search(small_resnet, "my-images", given[1], arguments(), storage="memory")


def test_a_search_finds_the_best_of_what_it_tried(search):
    result = search()
    assert len(result.history) == 5 + 2 + 4  # first generation, two refinements, offspring
    scores = {f.trial: f.fitness.score for f in result.finalists}
    assert result.best_score == max(scores.values()) == scores[result.best_trial]
    assert [len(f.fitness.runs) for f in result.finalists] == [2, 2]
    assert list(result.best_config.lr_multipliers) == [
        name for name in result.partition.names if name in result.best_config.lr_multipliers
    ]
    decoded = result.best_genotype.decode(result.partition)
    assert result.best_config.lr_multipliers == decoded


def test_the_first_individuals_are_what_people_try_by_hand(search):
    history = search().history
    starts = ["linear probe", "full fine-tuning", "last half", "gradient-informed", ""]
    assert history.start.tolist()[:5] == starts
    assert set(history.start[5:]) == {""}
    multipliers = history[[f"multiplier:{name}" for name in ("stem", "layer3", "head")]]
    assert multipliers.iloc[0].isna().tolist() == [True, True, False]  # linear probe
    assert multipliers.iloc[1].tolist() == [1.0, 1.0, 1.0]  # full fine-tuning
    assert multipliers.iloc[2].isna().tolist() == [True, False, False]  # last half


def test_the_same_seed_gives_the_same_search(search):
    assert table(search()).equals(table(search()))


def test_another_seed_gives_another_search(search):
    assert not table(search()).equals(table(search(replace(SEARCH, seed=1))))


@pytest.mark.parametrize("trial", [0, 3, 6])
def test_an_interrupted_search_goes_on_and_ends_as_the_uninterrupted_one(search, tmp_path, trial):
    with pytest.raises(KeyboardInterrupt):
        search(directory=tmp_path, listener=StopAt(trial))
    resumed = search(directory=tmp_path)
    uninterrupted = search()
    assert table(resumed).equals(table(uninterrupted))
    assert resumed.best_config.lr_multipliers == uninterrupted.best_config.lr_multipliers
    assert resumed.best_score == uninterrupted.best_score


def test_a_finished_search_is_not_trained_again(search, tmp_path):
    first = search(directory=tmp_path)

    class NoTraining(SearchListener):
        def on_trial_begin(self, number, generation, role):
            raise AssertionError("trained again")

    second = search(directory=tmp_path, listener=NoTraining())
    assert table(first).equals(table(second))


def test_a_trial_left_running_by_a_killed_process_is_tried_again(search, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(directory=tmp_path, listener=StopAt(2))
    # A killed process can't even mark its trial as failed.
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.journal"))
    )
    study = optuna.load_study(study_name="hf_biotune", storage=storage)
    storage.create_new_trial(study._study_id)
    assert table(search(directory=tmp_path)).equals(table(search()))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"args": {"learning_rate": 0.5}}, "learning_rate (there 0.001, here 0.5)"),
        ({"config": {"seed": 9}}, "seed (there 0, here 9)"),
        ({"blocks": "layers"}, "partition (there"),
        ({"train": digits_split(per_class=3, first=0)}, "training data (there"),
        ({"model_init": lambda: small_resnet().half().float()}, "model (there"),
    ],
)
def test_a_directory_with_another_study_is_refused_with_the_difference(
    search, tmp_path, change, named
):
    search(directory=tmp_path)
    config = replace(SEARCH, **change.pop("config", {}))
    args = arguments(tmp_path, **change.pop("args", {}))
    with pytest.raises(StudyMismatchError) as error:
        search(config, directory=tmp_path, args=args, **change)
    assert named in str(error.value)
    assert "Give another output directory" in str(error.value)


def test_a_larger_budget_continues_the_same_study(search, tmp_path):
    first = search(directory=tmp_path)
    more = search(replace(SEARCH, generations=2), directory=tmp_path)
    assert len(more.history) > len(first.history)


def test_a_study_that_was_not_made_by_a_search_is_refused(search, tmp_path):
    storage = f"sqlite:///{tmp_path / 'other.db'}"
    study = optuna.create_study(study_name="hf_biotune", storage=storage, direction="maximize")
    study.optimize(lambda trial: 1.0, n_trials=1)
    with pytest.raises(StudyMismatchError, match="1 trials that were not made by biotune_search"):
        biotune_search(
            small_resnet,
            digits_split(3, 0),
            digits_split(3, 10),
            arguments(tmp_path),
            SEARCH,
            storage=storage,
        )


def test_halving_prunes_and_pruned_individuals_do_not_win(search):
    result = search(replace(SEARCH, generations=2))
    states = set(result.history.state)
    assert "pruned" in states
    pruned = result.history[result.history.state == "pruned"]
    assert (pruned.epochs == 1).all()  # a third of three
    assert result.best_trial not in set(pruned.trial)


def test_without_halving_everything_is_trained_to_its_end(search):
    result = search(replace(SEARCH, halving=False, racing=False, patience=None))
    assert set(result.history.state) <= {"complete", "reused"}
    assert set(result.history.epochs) <= {3, 0}


def test_what_was_scored_before_costs_nothing(search):
    with_memo = search(replace(SEARCH, generations=3, halving=False))
    reused = with_memo.history[with_memo.history.state == "reused"]
    assert (reused.trainings == 0).all()
    scores = dict(zip(with_memo.history.trial, with_memo.history.score, strict=True))
    for trial in with_memo.study.trials:
        if "reused_from" in trial.user_attrs:
            assert trial.value == scores[trial.user_attrs["reused_from"]]


def test_a_budget_of_trainings_is_kept(search):
    config = replace(SEARCH, budget=6, generations=None, n_finalists=1)
    result = search(config)
    # One finalist needs one more seed; the individual in flight may overshoot by one training.
    assert 4 <= result.trainings <= 7


def test_further_seeds_of_leaders_are_paid_from_the_budget(search):
    config = replace(
        SEARCH, budget=8, generations=None, seeds=tuple(range(1, 13)), racing=True, n_finalists=0
    )
    result = search(config)
    # Leaders would be trained with all twelve seeds.
    assert max(len(fitness_of(trial).runs) for trial in result.study.trials) > 1
    assert result.trainings <= 9


def test_a_budget_of_minutes_ends_the_search(search):
    result = search(replace(SEARCH, budget="0.02m", generations=None, n_finalists=0))
    assert 1 <= len(result.history) < 60


@pytest.mark.parametrize(("per_individual", "n_finalists"), [(1, 2), (2, 2), (2, 0)])
def test_the_seconds_are_those_of_every_training_counted_once(search, per_individual, n_finalists):
    result = search(replace(SEARCH, seeds_per_individual=per_individual, n_finalists=n_finalists))
    seconds = result.history.seconds.sum() + sum(
        fitness.seconds for fitness in confirmations(result.study)
    )
    further = sum(len(f.fitness.runs) for f in result.finalists) - sum(
        len(fitness_of(result.study.trials[f.trial]).runs) for f in result.finalists
    )
    assert len(confirmations(result.study)) == further
    assert result.seconds == pytest.approx(seconds)


def test_folds_rotate_and_elites_are_scored_again(search):
    paper = SearchConfig.paper(
        population_size=4, n_elites=1, generations=2, seeds=(1, 2), seeds_per_individual=2
    )
    result = search(paper, args=arguments(num_train_epochs=1))
    history = result.history
    assert history.groupby("generation").fold.unique().map(list).tolist() == [[0], [1], [0]]
    assert (history[history.role == "rescore"].groupby("generation").size() == 1).all()
    assert history.trainings.tolist() == pytest.approx([2 * 0.5] * len(history))


def test_the_final_choice_is_among_few_by_the_whole_validation_set_with_all_seeds(
    search, digits_validation, monkeypatch
):
    sizes, record = [], FitnessEvaluator._record

    def recorded(evaluator, forward, validation, *rest):
        sizes.append(len(validation))
        return record(evaluator, forward, validation, *rest)

    monkeypatch.setattr(FitnessEvaluator, "_record", recorded)
    config = replace(SEARCH, fold_fraction=0.5, racing=False, halving=False, patience=None)
    result = search(config, args=arguments(num_train_epochs=1))
    whole = len(digits_validation)
    confirmed = sum(len(finalist.fitness.runs) for finalist in result.finalists)
    assert [len(finalist.fitness.runs) for finalist in result.finalists] == [2, 2]
    assert sizes[-confirmed:] == [whole] * confirmed
    assert set(sizes[:-confirmed]) == {whole // 2}
    assert [fitness.trainings for fitness in confirmations(result.study)] == [1.0] * confirmed
    assert result.best_score == max(f.fitness.score for f in result.finalists)


def test_scores_on_a_fold_and_on_all_data_are_not_mixed(search):
    # It ends before a second fold is used.
    config = replace(SEARCH, fold_fraction=0.5, budget=None, generations=0, halving=False)
    result = search(config, args=arguments(num_train_epochs=1))
    assert set(result.history.fold) == {0}
    scores = result.history.set_index("trial").score
    individuals = result.individuals.set_index("trial").score
    assert individuals.tolist() == scores[individuals.index].tolist()
    confirmed = [finalist.fitness.score for finalist in result.finalists]
    assert confirmed != scores[[finalist.trial for finalist in result.finalists]].tolist()


def test_always_train_rules_out_a_frozen_block(search):
    result = search(replace(SEARCH, always_train=("head",)))
    assert result.history["multiplier:head"].notna().all()


def test_an_unknown_block_to_always_train_is_refused(search):
    with pytest.raises(PartitionError, match="no block is named 'tail'"):
        search(replace(SEARCH, always_train=("tail",)))


def test_a_loss_is_minimised(search):
    result = search(replace(SEARCH, metric="loss"))
    trained = [t for t in result.study.trials if was_trained(t)]
    best = min(trained, key=lambda trial: fitness_of(trial).score)
    assert best.number in {finalist.trial for finalist in result.finalists}
    assert result.best_score == min(finalist.fitness.score for finalist in result.finalists)


def test_a_random_frozen_head_is_saved_with_the_winner(search):
    class HeadOnly(SearchListener):
        pass

    result = search(replace(SEARCH, generations=0, population_size=8), listener=HeadOnly())
    # Every tensor of this model is random, so every frozen block must be saved.
    frozen = set(result.partition.names) - set(result.best_config.lr_multipliers)
    assert set(result.best_config.saved_blocks) == frozen


def test_a_class_with_fewer_samples_than_folds_is_refused(search):
    with pytest.raises(DataError, match=r"class '0' has 1 sample\(s\) in train, fewer than the 2"):
        search(SearchConfig.paper(), train=digits_split(per_class=1, first=0))


def test_an_unwritable_output_directory_is_refused(search, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(ConfigError, match=r"output directory .* can't be made: .* is a file"):
        search(directory=blocked)


def test_listeners_hear_of_every_individual_and_the_share_spent_grows(search):
    class Hear(SearchListener):
        def __init__(self):
            self.reports, self.begun, self.ended = [], 0, 0

        def on_search_begin(self, partition, budget, finished_trials):
            self.begun += 1

        def on_trial_end(self, report):
            self.reports.append(report)

        def on_search_end(self):
            self.ended += 1

    heard = Hear()
    result = search(replace(SEARCH, budget=20, generations=1), listener=heard)
    assert (heard.begun, heard.ended) == (1, 1)
    assert [report.number for report in heard.reports] == result.history.trial.tolist()
    shares = [report.share_spent for report in heard.reports]
    assert shares == sorted(shares)
    best = [report.best_score for report in heard.reports if not math.isnan(report.best_score)]
    assert best == sorted(best)


def test_an_individual_that_takes_the_lead_gets_further_seeds(search):
    result = search(replace(SEARCH, generations=3, seeds=(1, 2, 3)))
    trained = [trial for trial in result.study.trials if was_trained(trial)]
    raced = [trial for trial in trained if len(fitness_of(trial).runs) > 1]
    assert raced
    for trial in raced:
        first, *further = fitness_of(trial).runs
        before = [fitness_of(t).score for t in trained if t.number < trial.number]
        assert len(before) >= 3
        assert first.score > max(before)
        assert [run.seed for run in further] == [2, 3][: len(further)]
        assert trial.value == fitness_of(trial).score


def test_without_racing_individuals_get_one_seed_and_finalists_get_all(search):
    result = search(replace(SEARCH, generations=3, seeds=(1, 2, 3), racing=False))
    trained = [trial for trial in result.study.trials if was_trained(trial)]
    assert {len(fitness_of(trial).runs) for trial in trained} == {1}
    assert {len(finalist.fitness.runs) for finalist in result.finalists} == {3}


def test_what_was_halved_before_is_halved_again_at_no_cost(search):
    result = search(replace(SEARCH, generations=2))
    halved = next(t for t in result.study.trials if t.state == optuna.trial.TrialState.PRUNED)
    scorer = Scorer(
        result.study, None, [], SEARCH, SearchListener(), result.kept, result.objectives, None
    )
    config = BioTuneConfig(lr_multipliers=halved.user_attrs["lr_multipliers"])
    assert scorer.scored_before(plan_of(halved), config).number == halved.number
    assert scorer.scored_before(replace(plan_of(halved), fold=1), config) is None
    again = result.study.ask()
    assert scorer.reuse(again, halved) == fitness_of(halved)
    result.study.tell(again, state=optuna.trial.TrialState.PRUNED)
    repeated = result.study.trials[again.number]
    assert repeated.intermediate_values == halved.intermediate_values
    assert spent_trainings([repeated]) == 0.0


def test_a_search_says_what_it_intends_and_what_it_did(search):
    class Hear(SearchListener):
        def on_plan(self, plan):
            self.plan = plan

    heard = Hear()
    result = search(replace(SEARCH, generations=2), listener=heard)
    report = result.budget_report
    assert heard.plan.individuals == report.individuals == len(result.history) == 5 + 2 * (2 + 4)
    assert heard.plan.generations == report.generations == 2
    states = result.history.state.value_counts()
    assert (report.halved, report.reused) == (states["pruned"], states.get("reused", 0))
    assert report.confirmed == len(confirmations(result.study))
    assert f"{report.individuals} individuals in 2 generations" in str(report)


def test_a_multiple_of_one_full_fine_tuning_ends_the_search(search):
    config = replace(SEARCH, budget="3x", generations=None, population_size=None, n_elites=None)
    result = search(config)
    full = fitness_of(result.study.trials[1]).runs[0]  # after the linear probe
    limit = 3 * full.seconds / full.epochs * 3
    *_, last = result.history.seconds
    assert result.history.seconds.sum() - last < limit
    assert result.budget_report.plan.population_size == 4


def test_a_small_budget_is_continued_with_its_population_by_a_larger_one(search, tmp_path):
    small = replace(SEARCH, budget=4, generations=None, population_size=None, n_elites=None)
    first = search(small, directory=tmp_path)
    more = search(replace(small, budget=8), directory=tmp_path)
    assert more.budget_report.plan.population_size == first.budget_report.plan.population_size == 4
    assert len(more.history) > len(first.history)


@pytest.mark.slow
def test_a_search_interrupted_among_its_finalists_ends_as_the_uninterrupted_one(search, tmp_path):
    class StopAtFinalist(SearchListener):
        def __init__(self):
            self.count = 0

        def on_finalist(self, number, seed, score):
            self.count += seed != 1
            if self.count == 2:
                raise KeyboardInterrupt

    config = replace(SEARCH, seeds=(1, 2, 3), n_finalists=3, generations=0, population_size=8)
    with pytest.raises(KeyboardInterrupt):
        search(config, directory=tmp_path, listener=StopAtFinalist())
    resumed, uninterrupted = search(config, directory=tmp_path), search(config)
    assert [f.scores for f in resumed.finalists] == [f.scores for f in uninterrupted.finalists]
    assert resumed.trainings == uninterrupted.trainings
    assert resumed.best_trial == uninterrupted.best_trial


def test_a_resumed_search_does_not_measure_gradients_again(search, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        search(directory=tmp_path, listener=StopAt(0))

    def measured_again(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr("hf_biotune.search.engine.relative_gradient_norms", measured_again)
    history = search(replace(SEARCH, generations=0), directory=tmp_path).history
    assert "gradient-informed" in set(history.start)
