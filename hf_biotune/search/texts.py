"""Texts: tokenised once, padded to one length, kept as an [`EncodedSplit`] in memory."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset, DatasetDict

from ..exceptions import ConfigError, DataError
from .columns import (
    encode_labels,
    find_label_column,
    find_text_column,
    label_names_of,
    without_unlabelled_test,
)
from .data import EncodedSplit
from .data_splits import DataSplits, check_parts

logger = logging.getLogger(__name__)

# Models that know no limit claim astronomic ones.
_LONGEST = 512


def encode_text_splits(
    splits: DatasetDict,
    tokenizer: Any,
    *,
    name: str,
    text_column: str | None = None,
    label_column: str | None = None,
    max_length: int | None = None,
    model_limit: int | None = None,
) -> DataSplits:
    """Tokenise training, validation and test texts; those of the first two have one width.

    Args:
        splits: as [`load_dataset_splits`] returns: `train`, `validation` and perhaps `test`. A
            test split without labels is left out, with a warning.
        tokenizer: see [`encode_texts`].
        name: of the data set, for reports.
        text_column: see [`encode_texts`].
        label_column: see [`encode_texts`].
        max_length: see [`encode_texts`].
        model_limit: see [`encode_texts`].

    Returns:
        The splits, with the classes of `train`.

    Raises:
        DataError: as [`encode_texts`], or a label in `validation` or `test` is not in `train`.
    """
    check_parts(splits)
    parts = without_unlabelled_test(splits, label_column)
    column = find_label_column(parts["train"], label_column, "train")
    label_names = label_names_of(parts["train"], column, "train")
    limit = _limit(tokenizer, max_length, model_limit)
    texts = {
        split: _texts_of(dataset, text_column, label_column, split)
        for split, dataset in parts.items()
    }
    widths = {split: _width(of, tokenizer, limit, split) for split, of in texts.items()}
    # One for both: the winner may be trained on them together.
    widths["train"] = widths["validation"] = max(widths["train"], widths["validation"])
    encoded = {
        split: _encode(
            dataset, texts[split], tokenizer, label_column, label_names, widths[split], split
        )
        for split, dataset in parts.items()
    }
    return DataSplits(encoded["train"], encoded["validation"], encoded.get("test"), name)


def encode_texts(
    dataset: Dataset,
    tokenizer: Any,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    label_names: Sequence[str] | None = None,
    max_length: int | None = None,
    model_limit: int | None = None,
) -> EncodedSplit:
    """Tokenise every text of a data set, once; all are padded to the longest one.

    Args:
        dataset: one column of texts and one of labels (`ClassLabel`, integers, strings or
            booleans).
        tokenizer: the model's, able to pad; see [`load_tokenizer`].
        text_column: name of that column; default: found by name, see [`find_text_column`].
        label_column: name of that column; default: found by type and name.
        label_names: the classes in the order of their numbers; default: those of this data set.
        max_length: tokens after which a text is cut off, at least 8. Default: what the model was
            made for, at most 512.
        model_limit: what the model was made for, see [`text_limit`]. Default: what the tokenizer
            knows, which may be nothing.

    Raises:
        ConfigError: `max_length` is less than 8, or more than the model was made for.
        DataError: a column is missing or ambiguous, a label or text is missing or unknown, or a
            text gives no token.

    Example:
        ```python
        tokenizer = load_tokenizer("sentence-transformers/all-MiniLM-L6-v2")
        train = encode_texts(splits["train"], tokenizer)
        ```
    """
    if label_names is None:
        label_names = label_names_of(dataset, find_label_column(dataset, label_column))
    split = str(dataset.split or "the data set")
    texts = _texts_of(dataset, text_column, label_column, split)
    width = _width(texts, tokenizer, _limit(tokenizer, max_length, model_limit), split)
    return _encode(dataset, texts, tokenizer, label_column, label_names, width, split)


def _texts_of(
    dataset: Dataset, text_column: str | None, label_column: str | None, split: str
) -> list[str]:
    if len(dataset) == 0:
        raise DataError(f"{split} has no sample; check the data set")
    column = find_text_column(dataset, text_column, label_column)
    # Alone: images beside the texts need not exist.
    texts: list[str] = dataset.with_format(None).select_columns([column])[:][column]
    for row, text in enumerate(texts):
        if text is None:
            raise DataError(
                f"row {row} of {split} has no text in column {column!r}; fill or remove the row"
            )
    return texts


def _width(texts: list[str], tokenizer: Any, limit: int, split: str) -> int:
    """Of the longest text, in tokens, as far as the model reads it."""
    lengths = [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]
    if 0 in lengths:
        row = lengths.index(0)
        raise DataError(
            f"row {row} of {split} gives no token: its text is {texts[row]!r}; fill or remove the "
            "row"
        )
    if too_long := sum(length > limit for length in lengths):
        logger.warning(
            "%d of the %d texts of %s are cut off after %d tokens; the longest has %d",
            too_long,
            len(texts),
            split,
            limit,
            max(lengths),
        )
    # A multiple of 8 is what kernels like.
    return min(limit, 8 * -(-max(lengths) // 8))


def _encode(
    dataset: Dataset,
    texts: list[str],
    tokenizer: Any,
    label_column: str | None,
    label_names: Sequence[str],
    width: int,
    split: str,
) -> EncodedSplit:
    column = find_label_column(dataset, label_column, split)
    labels = encode_labels(dataset, column, label_names, split)
    encoded = tokenizer(
        texts, truncation=True, max_length=width, padding="max_length", return_tensors="pt"
    )
    return EncodedSplit(
        {name: values.to(torch.int64) for name, values in encoded.items()},
        labels,
        tuple(label_names),
    )


def _limit(tokenizer: Any, max_length: int | None, model_limit: int | None) -> int:
    longest = int(tokenizer.model_max_length)
    if model_limit is not None:
        longest = min(longest, model_limit)
    if max_length is None:
        return min(longest, _LONGEST)
    if not 8 <= max_length <= longest:
        raise ConfigError(
            f"max_length must be in [8, {longest}], the most that the model was made for, got "
            f"{max_length}"
        )
    return max_length
