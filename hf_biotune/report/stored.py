"""`report.json`: what a report was made of, so that it can be rendered again without the search."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..blocks import Block, Partition
from ..exceptions import DataError
from .data import ReportData
from .predictions import Predictions

STORED_NAME = "report.json"
SCHEMA = 1
# A study of 1,000 individuals with 100 blocks takes a twentieth of it.
_MAXIMUM_BYTES = 100 * 2**20
_OPTIONAL = ("comparison", "finalists", "importances", "lineage", "front", "predictions")
# Of each table, the columns that are always there.
_COLUMNS = {
    "history": ("trial", "generation", "role", "fold", "state", "score", "trained_parameters"),
    "comparison": ("method", "test_scores", "validation_scores", "trained_parameters"),
    "finalists": ("trial", "scores", "winner"),
    "lineage": ("trial", "generation", "role"),
    "front": ("trial", "score"),
}
_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]*")


def save_report_data(directory: str | os.PathLike[str], data: ReportData) -> Path:
    """Write `report.json`.

    Args:
        directory: that exists.
        data: of the report.
    """
    values = {field.name: _encode(getattr(data, field.name)) for field in fields(data)}
    path = Path(directory) / STORED_NAME
    text = json.dumps({"schema": SCHEMA, **values}, separators=(",", ":"), allow_nan=False)
    path.write_text(text, encoding="utf-8")
    return path


def load_report_data(directory: str | os.PathLike[str]) -> ReportData:
    """Read `report.json`. Nothing in it is trusted: a report escapes all text.

    Args:
        directory: that a run wrote.

    Raises:
        DataError: there is no such file, or it can't be what a run wrote.
    """
    path = Path(directory) / STORED_NAME
    try:
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise DataError(f"{path} is too large to be what a run wrote")
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{str(path)!r} can't be read: {error.strerror}; give a directory that `tune` wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{str(path)!r} is no JSON: {error}") from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        found = values.get("schema") if isinstance(values, dict) else type(values).__name__
        raise DataError(f"{str(path)!r} must have schema {SCHEMA}, got {found!r}; write it again")
    try:
        data = ReportData(
            **{
                field.name: _decode(values[field.name])
                for field in fields(ReportData)
                # What a later version added is not in a file of an earlier one.
                if field.name in values or field.default is MISSING
            }
        )
        _check(data)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{str(path)!r} is not what a run wrote: {error!r}") from error
    return data


def _check(data: ReportData) -> None:
    """What the page relies on.

    Raises:
        TypeError: a part is of another kind.
        KeyError: a table lacks a column.
    """
    import pandas as pd

    texts = ("title", "model_name", "dataset_name", "metric", "norm_statistics", "command")
    kinds: dict[str, type] = {
        **dict.fromkeys((*texts, "python"), str),
        "greater_is_better": bool,
        "partition": Partition,
        "best_multipliers": dict,
        "facts": dict,
        **dict.fromkeys(_COLUMNS, pd.DataFrame),
        "importances": pd.Series,
        "predictions": Predictions,
    }
    for name, kind in kinds.items():
        value = getattr(data, name)
        if not isinstance(value, kind) and not (value is None and name in _OPTIONAL):
            raise TypeError(f"{name} must be {kind.__name__}, not {type(value).__name__}")
    for name, columns in _COLUMNS.items():
        frame = getattr(data, name)
        missing = [] if frame is None else [c for c in columns if c not in frame.columns]
        if missing:
            raise KeyError(f"{name} lacks {', '.join(missing)}")


def _encode(value: Any) -> Any:
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        columns = {name: _encode(column.tolist()) for name, column in value.items()}
        return {"frame": columns, "rows": len(value)}
    if isinstance(value, pd.Series):
        return {"series": _encode(value.to_dict())}
    if isinstance(value, Partition):
        # Names of parameters are long, and in no report.
        blocks = [[b.name, list(b.modules), b.n_parameters] for b in value.blocks]
        return {"partition": blocks, "source": value.source}
    if isinstance(value, Predictions):
        names = ("label_names", "labels", "predicted", "confidence", "pictures")
        return {"predictions": {name: _encode(getattr(value, name)) for name in names}}
    if isinstance(value, np.ndarray):
        return _encode(value.tolist())
    if isinstance(value, dict):
        return {"dict": [[_encode(key), _encode(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _decode(value: Any) -> Any:
    import pandas as pd

    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float(value["float"])
    if "dict" in value:
        return {_decode(key): _decode(item) for key, item in value["dict"]}
    if "series" in value:
        return pd.Series(_decode(value["series"]), dtype=float)
    if "frame" in value:
        columns = {name: _decode(column) for name, column in value["frame"].items()}
        # pandas would repeat a single value as often as a stranger asks for.
        if any(not isinstance(c, list) or len(c) != value["rows"] for c in columns.values()):
            raise ValueError("a table has columns of another length than it says")
        return pd.DataFrame(columns, index=range(value["rows"] if columns else 0))
    if "partition" in value:
        blocks = [
            Block(str(name), tuple(modules), (), int(n)) for name, modules, n in value["partition"]
        ]
        return Partition(tuple(blocks), value["source"])
    return _decode_predictions(value["predictions"])


def _decode_predictions(value: dict[str, Any]) -> Predictions:
    names = tuple(map(str, value["label_names"]))
    labels, predicted = (np.asarray(value[key], dtype=int) for key in ("labels", "predicted"))
    if len(labels) and not (min(labels.min(), predicted.min()) >= 0):
        raise ValueError("a class is negative")
    if len(labels) and max(labels.max(), predicted.max()) >= len(names):
        raise ValueError("a class has no name")
    pictures = _decode(value["pictures"])
    for picture in pictures.values():
        if not _PICTURE.fullmatch(picture):
            raise ValueError("a picture is none")
    confidence = np.asarray(_decode(value["confidence"]), dtype=float)
    return Predictions(names, labels, predicted, confidence, pictures)
