"""Records of methods as a finished comparison has them, for tests of what follows from these."""

from __future__ import annotations

from hf_biotune.contest.standings import MethodRecord

SCORES = ("macro_accuracy", "accuracy", "f1", "kappa", "average_precision")


def record(name, title, scores, **fields):
    """A method with one score for each split, and one seed."""
    tuning = {"compute_seconds": 12.0, "cost": {"trainings": 6.0}, "device": "cpu"}
    runs = {
        (split, 1): {
            "split": split,
            "seed": 1,
            "scores": dict.fromkeys(SCORES, score),
            "trained_parameters": 1000,
            "checkpoint_bytes": 4_100,
            "peak_bytes": None,
            "compute_seconds": 2.0,
            "cost": {"trainings": 0.5},
            "device": "cpu",
        }
        for split, score in enumerate(scores, start=fields.get("first", 0))
    }
    tunings = dict.fromkeys(range(len(scores)), tuning)
    return MethodRecord(name, title, fields.get("why_not", ""), tunings, runs, len(scores))
