"""A tiny language model with its tokenizer, and a small real text set, for tests."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import demo_texts
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

PARTS = ("stats", "signal", "ndimage")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def scipy_descriptions(per_class: int, first: int) -> Dataset:
    """Texts about three parts of SciPy: `per_class` of each, from the `first` one on."""
    texts = demo_texts.scipy_texts()
    rows = [
        (text, label)
        for label, part in enumerate(PARTS)
        for text in texts[part][first : first + per_class]
    ]
    features = Features({"text": Value("string"), "label": ClassLabel(names=list(PARTS))})
    columns = dict(zip(("text", "label"), map(list, zip(*rows, strict=True)), strict=True))
    return Dataset.from_dict(columns, features=features)


def text_splits() -> DatasetDict:
    """12, 12 and 12 texts."""
    starts = {"train": 0, "validation": 4, "test": 8}
    return DatasetDict({name: scipy_descriptions(4, first) for name, first in starts.items()})


def write_bert(directory: Path) -> Path:
    """A BERT of two layers whose tokenizer knows 200 words."""
    counts = Counter(
        word
        for text in scipy_descriptions(40, 0)["text"]
        for word in re.findall(r"\w+", text.lower())
    )
    words = [*SPECIAL, *(word for word, _ in counts.most_common(200))]
    inner = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = Lowercase(), Whitespace()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    )
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertForSequenceClassification(config).save_pretrained(directory)
    return directory
