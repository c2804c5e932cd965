"""A final training: the weights of its best epoch, tested once, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save

from ..model import BioTuneModel
from ..search.execution import Execution
from ..search.fitness import RunKeeper
from ..search.fitness_result import SeedRun
from ..search.forward import Forward
from ..search.stopping import best_index
from ..search.task import predict
from ..search.training import Training
from .peak_memory import PeakMemory
from .problem import Problem
from .setting import Cost, FinalRun


def test_model(problem: Problem, training: Training, seed: int) -> FinalRun:
    """Train once, take the best epoch by validation, and test it.

    Args:
        problem: the data and how to train.
        training: what.
        seed: of initialisation and data order.
    """
    keeper = _BestEpoch(problem)
    with PeakMemory(problem.args.device) as peak:
        fitness = problem.evaluator.evaluate(training, [seed], keeper=keeper)
    scores = [epoch.score for epoch in fitness.runs[0].curve]
    return FinalRun(
        seed=seed,
        validation_score=scores[best_index(scores, problem.metric)],
        test_score=keeper.test_score,
        cost=Cost(fitness.trainings, fitness.epochs, fitness.seconds),
        trained_parameters=fitness.trained_parameters,
        checkpoint_bytes=keeper.checkpoint_bytes,
        peak_bytes=peak.bytes,
        test_logits=keeper.test_logits,
    )


def score_of(problem: Problem, logits: torch.Tensor) -> float:
    """The metric on the test samples; its worst value for a model that diverged."""
    if problem.data.test is None or not bool(torch.isfinite(logits).all()):
        return problem.metric.worst
    return problem.metric.compute(logits, problem.data.test.labels)


def checkpoint_size(tensors: Mapping[str, torch.Tensor]) -> int:
    """Bytes of these tensors as a safetensors file."""
    return len(save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}))


def adapter_tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    """What a checkpoint of the model holds: ours, or of any PEFT adapter."""
    if isinstance(model, BioTuneModel):
        return model.biotune_state_dict()
    tensors: dict[str, torch.Tensor] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return tensors


class _BestEpoch(RunKeeper):
    """Keeps the weights of the best epoch, and tests them when the training is over."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._tensors: dict[str, torch.Tensor] = {}
        self.checkpoint_bytes = 0
        self.test_logits: torch.Tensor | None = None
        self.test_score: float | None = None

    def on_best_epoch(self, model: PeftModel, score: float) -> None:
        self._tensors = {name: t.detach().clone() for name, t in adapter_tensors(model).items()}

    def on_run_end(self, model: PeftModel, run: SeedRun) -> None:
        self.checkpoint_bytes = checkpoint_size(adapter_tensors(model))
        # Empty if the first epoch diverged.
        if self._tensors and isinstance(model, BioTuneModel):
            model.base_model.store(model.active_adapter, self._tensors)
        elif self._tensors:
            set_peft_model_state_dict(model, self._tensors)
        problem, test = self._problem, self._problem.data.test
        if test is None:
            return
        args = problem.args
        with Execution.of(args).validation_context(args.device):
            forward = Forward(model, args.device)
            self.test_logits = predict(forward, test.view(), args.per_device_eval_batch_size)
        self.test_score = score_of(problem, self.test_logits)
