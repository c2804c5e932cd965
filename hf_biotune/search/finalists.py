"""The final choice: the best few individuals, with further seeds, on all data.

A single seed's best score is an optimistic number: the more individuals, the luckier the best. So
the few best are trained again with the seeds that they have not seen, and the best mean wins.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import optuna
from optuna.trial import FrozenTrial

from .budget_plan import SURE_SEEDS, n_sure_seeds
from .contenders import contenders, finalist_trials
from .failures import Failures
from .fitness import FitnessEvaluator, RunKeeper
from .fitness_result import NO_SCORE, FitnessResult, SeedRun
from .history import finished_trials, fitness_of, was_trained
from .listener import SearchListener
from .metrics import Metric
from .phenotypes import Phenotypes
from .racing import SeedNoise, is_in_contention, seed_noise
from .search_config import SearchConfig

# Before the number of the trial and the seed, in the study's attributes.
FINALIST_PREFIX = "finalist:"


@dataclass(frozen=True)
class Finalist:
    """One of the best individuals.

    Args:
        trial: its number in the study.
        fitness: of its seeds on all data; `trainings` counts the confirmation only.
        in_contention: whether no test found it worse than the leader.
    """

    trial: int
    fitness: FitnessResult
    in_contention: bool = True

    @property
    def scores(self) -> dict[int, float]:
        """Its score with each seed."""
        return {run.seed: run.score for run in self.fitness.runs}


def finalists_of(
    study: optuna.Study,
    evaluator: FitnessEvaluator,
    phenotypes: Phenotypes,
    search: SearchConfig,
    listener: SearchListener,
    failures: Failures,
    n_starts: int = 0,
    has_budget: Callable[[], bool] = lambda: True,
    keeper_of: Callable[[int], RunKeeper] = lambda number: RunKeeper(),
) -> list[Finalist]:
    """The individuals that the winner is chosen from, confirmed if the search asks for it.

    Args:
        study: with at least one individual that was trained to its end.
        evaluator: trains on all data.
        phenotypes: decodes the genotypes.
        search: how many finalists, and with which seeds.
        listener: is told of each of their trainings.
        failures: deals with what goes wrong.
        n_starts: how many of the first individuals are what people do by hand.
        has_budget: whether there is something left for more than a second seed each.
        keeper_of: what keeps the weights of the trial of a number. Default: they are lost.
    """
    metric = evaluator.metric
    if not search.n_finalists:
        best = contenders(study, metric, 1)
        return [Finalist(trial.number, fitness_of(trial)) for trial in best]
    trials = finalist_trials(study, metric, search.n_finalists, n_starts)
    confirmation = Confirmation(study, evaluator, phenotypes, search, listener, failures, keeper_of)
    if not search.racing:
        return [confirmation.train(trial, len(search.seeds)) for trial in trials]
    return race(trials, confirmation, has_budget)


class Confirmation:
    """Trains finalists with seeds that they have not seen, on all data.

    Each result is kept in the study, so that a resumed search finds it.

    Args:
        study: that the finalists belong to.
        evaluator: trains on all data.
        phenotypes: decodes the genotypes.
        search: the seeds, and whether individuals were trained on all data.
        listener: is told of every run of a finalist, also of known ones.
        failures: deals with what goes wrong.
        keeper_of: what keeps the weights of the trial of a number.
    """

    def __init__(
        self,
        study: optuna.Study,
        evaluator: FitnessEvaluator,
        phenotypes: Phenotypes,
        search: SearchConfig,
        listener: SearchListener,
        failures: Failures,
        keeper_of: Callable[[int], RunKeeper],
    ) -> None:
        self._failures = failures
        self._keeper_of = keeper_of
        self._study = study
        self._evaluator = evaluator
        self._phenotypes = phenotypes
        self._search = search
        self._listener = listener
        self._runs: dict[int, dict[int, SeedRun]] = {}
        self._trainings: dict[int, float] = {}

    @property
    def metric(self) -> Metric:
        """The score."""
        return self._evaluator.metric

    @property
    def seeds(self) -> Sequence[int]:
        """That a finalist may be trained with, in this order."""
        return self._search.seeds

    def runs_of(self, trial: FrozenTrial) -> dict[int, SeedRun]:
        """What is known of a finalist on all data, by seed."""
        if trial.number not in self._runs:
            known = _known_runs(trial, self._search)
            self._runs[trial.number] = {run.seed: run for run in known}
            for run in known:
                self._listener.on_finalist(trial.number, run.seed, run.score)
        return self._runs[trial.number]

    def needs_training(self, trial: FrozenTrial, n_seeds: int) -> bool:
        """Whether one of the first seeds is missing, in this and in every earlier session."""
        return any(
            seed not in self.runs_of(trial)
            and self.key_of(trial, seed) not in self._study.user_attrs
            for seed in self.seeds[:n_seeds]
        )

    def train(self, trial: FrozenTrial, n_seeds: int) -> Finalist:
        """Train a finalist with those of the first seeds that it has not seen."""
        runs = self.runs_of(trial)
        for seed in self.seeds[:n_seeds]:
            if seed not in runs:
                fitness = self._result(trial, seed)
                runs[seed] = fitness.runs[0]
                self._trainings[trial.number] = (
                    self._trainings.get(trial.number, 0.0) + fitness.trainings
                )
                self._listener.on_finalist(trial.number, seed, runs[seed].score)
        return self.finalist(trial)

    def finalist(self, trial: FrozenTrial) -> Finalist:
        """A finalist as far as it has been trained."""
        runs = self.runs_of(trial)
        ordered = tuple(runs[seed] for seed in self.seeds if seed in runs)
        parameters = fitness_of(trial).trained_parameters
        trainings = self._trainings.get(trial.number, 0.0)
        return Finalist(trial.number, FitnessResult(ordered, parameters, trainings))

    def noise(self, finalists: Sequence[Finalist]) -> SeedNoise:
        """How much seeds matter, from all individuals that were trained with several."""
        numbers = {finalist.trial for finalist in finalists}
        raced = [
            fitness_of(trial)
            for trial in finished_trials(self._study)
            if self._search.n_folds == 1 and was_trained(trial) and trial.number not in numbers
        ]
        # A training that diverged or failed has the worst score, which says nothing about others.
        return seed_noise(
            [
                {run.seed: run.score for run in fitness.runs if run.stopped not in NO_SCORE}
                for fitness in (*raced, *(finalist.fitness for finalist in finalists))
            ]
        )

    def _result(self, trial: FrozenTrial, seed: int) -> FitnessResult:
        key = self.key_of(trial, seed)
        if key not in self._study.user_attrs:
            config = self._phenotypes.config_of(self._phenotypes.genotype_of(trial))
            keeper = self._keeper_of(trial.number)

            def train() -> FitnessResult:
                return self._evaluator.evaluate(config, [seed], keeper=keeper)

            result = self._failures.recorded(train, seed)
            self._study.set_user_attr(key, result.to_dict())
        return FitnessResult.from_dict(self._study.user_attrs[key])

    @staticmethod
    def key_of(trial: FrozenTrial, seed: int) -> str:
        """Under which a training of a finalist is kept in the study."""
        return f"{FINALIST_PREFIX}{trial.number}:{seed}"


def race(
    trials: Sequence[FrozenTrial], confirmation: Confirmation, has_budget: Callable[[], bool]
) -> list[Finalist]:
    """Train finalists with one seed more at a time; those that fall behind get no further ones.

    Args:
        trials: the finalists.
        confirmation: trains them.
        has_budget: whether there is something left for more than a second seed each.

    Returns:
        All of them, with the seeds that each got, and whether they fell behind.
    """
    finalists = [confirmation.train(trial, 1) for trial in trials]
    for n_seeds in range(2, len(confirmation.seeds) + 1):
        finalists = _judged(finalists, confirmation)
        if n_seeds > SURE_SEEDS and sum(f.in_contention for f in finalists) < 2:
            break
        for place, trial in enumerate(trials):
            # What an earlier session could afford is there already.
            if finalists[place].in_contention and (
                n_seeds <= SURE_SEEDS
                or not confirmation.needs_training(trial, n_seeds)
                or has_budget()
            ):
                finalists[place] = confirmation.train(trial, n_seeds)
    return finalists


def _judged(finalists: Sequence[Finalist], confirmation: Confirmation) -> list[Finalist]:
    """Finalists, each with the verdict whether it may still be the best."""
    leader = best_of(finalists, confirmation.metric)
    noise = confirmation.noise(finalists)
    return [
        replace(
            finalist,
            in_contention=finalist.in_contention
            and (
                finalist.trial == leader.trial
                or is_in_contention(finalist.scores, leader.scores, noise, confirmation.metric)
            ),
        )
        for finalist in finalists
    ]


def best_of(finalists: Sequence[Finalist], metric: Metric) -> Finalist:
    """The best mean score of those still in contention; of equals, fewer trained parameters.

    Only seeds that all of them were trained with count. A budget may end when some have had one
    more, and what that seed does to everyone would decide. Each has had the first seed.
    """
    rivals = [finalist for finalist in finalists if finalist.in_contention]
    shared = set.intersection(*(set(rival.scores) for rival in rivals))
    sign = -1 if metric.greater_is_better else 1

    def place(rival: Finalist) -> tuple[float, int, int]:
        score = statistics.fmean(rival.scores[seed] for seed in rival.scores if seed in shared)
        return sign * score, rival.fitness.trained_parameters, rival.trial

    return min(rivals, key=place)


def confirmations(study: optuna.Study) -> list[FitnessResult]:
    """Every training of a finalist that the study holds, in this and earlier sessions."""
    return [
        FitnessResult.from_dict(value)
        for key, value in study.user_attrs.items()
        if key.startswith(FINALIST_PREFIX)
    ]


def missing_confirmations(
    study: optuna.Study, metric: Metric, search: SearchConfig, n_starts: int
) -> int:
    """How many trainings those would need who would be the finalists now.

    Args:
        study: in which earlier finalists were confirmed, and at least one individual was trained.
        metric: the score.
        search: how many finalists, and with which seeds.
        n_starts: how many of the first individuals are what people do by hand.
    """
    if not search.n_finalists:
        return 0
    missing = 0
    for trial in finalist_trials(study, metric, search.n_finalists, n_starts):
        known = {run.seed for run in _known_runs(trial, search)}
        missing += sum(
            seed not in known and Confirmation.key_of(trial, seed) not in study.user_attrs
            for seed in search.seeds[: n_sure_seeds(search)]
        )
    return missing


def _known_runs(trial: FrozenTrial, search: SearchConfig) -> tuple[SeedRun, ...]:
    """What the search itself tells of an individual on all data: nothing, if it was on a fold."""
    return fitness_of(trial).runs if search.n_folds == 1 else ()
