"""Scores of a trial while it trains: Optuna's intermediate values, or ours where it has none.

Optuna refuses intermediate values, and with them pruning, in a study of several objectives. There
the curve of the first objective, the score, is kept as an attribute of the trial.
"""

from __future__ import annotations

from optuna.trial import FrozenTrial, Trial

CURVE_KEY = "BioTuneSampler:curve"


def report_score(trial: Trial, score: float, step: int) -> None:
    """Report what a trial scores after a step, such as an epoch.

    Args:
        trial: in training.
        score: the first objective; may be NaN.
        step: from 1, rising.
    """
    if len(trial.study.directions) == 1:
        trial.report(score, step=step)
        return
    # JSON has neither infinity nor NaN, and not every storage forgives them.
    curve = trial.user_attrs.get(CURVE_KEY, [])
    trial.set_user_attr(CURVE_KEY, [*curve, [step, repr(float(score))]])


def curve_of(trial: FrozenTrial) -> dict[int, float]:
    """What a trial scored after each step that was reported."""
    if trial.intermediate_values:
        return dict(trial.intermediate_values)
    return {step: float(score) for step, score in trial.user_attrs.get(CURVE_KEY, [])}


def last_step_of(trial: FrozenTrial) -> int | None:
    """The last step that was reported; `None` if none was."""
    return max(curve_of(trial), default=None)
