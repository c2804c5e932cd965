"""Texts become tensors once: padded, cut off, labelled, and refused when they are no texts."""

import logging

import pytest
import torch
from datasets import Dataset, DatasetDict, Image
from texts import PARTS, scipy_descriptions, text_splits, write_bert
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    DebertaV2Config,
    LlamaConfig,
    LlamaForSequenceClassification,
    MPNetForSequenceClassification,
    RobertaForSequenceClassification,
    TrainingArguments,
    XLNetConfig,
)

from hf_biotune.exceptions import ConfigError, DataError
from hf_biotune.search import SearchConfig, biotune_search, encode_text_splits, encode_texts
from hf_biotune.search.models import load_tokenizer, task_of, text_classifier, text_limit
from hf_biotune.search.sources import load_dataset_splits


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(write_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def tokenizer(bert):
    return AutoTokenizer.from_pretrained(bert)


def test_texts_are_those_of_the_tokenizer_padded_to_one_length(tokenizer):
    dataset = scipy_descriptions(3, 0)
    split = encode_texts(dataset, tokenizer)
    lengths = split.inputs["attention_mask"].sum(1).tolist()
    for row, (text, length) in enumerate(zip(dataset["text"], lengths, strict=True)):
        expected = tokenizer(text, truncation=True, max_length=64)["input_ids"]
        assert split.inputs["input_ids"][row, :length].tolist() == expected
        assert (split.inputs["input_ids"][row, length:] == tokenizer.pad_token_id).all()
    assert split.inputs["input_ids"].shape[1] % 8 == 0
    assert split.labels.tolist() == dataset["label"][:]
    assert split.label_names == PARTS


def test_the_width_is_that_of_the_longest_text_and_not_of_the_model(tokenizer):
    dataset = Dataset.from_dict({"sentence": ["compute the mean"], "label": [0]})
    assert encode_texts(dataset, tokenizer).inputs["input_ids"].shape == (1, 8)


def test_training_and_validation_texts_have_one_width_so_that_they_can_be_joined(tokenizer):
    splits = DatasetDict(
        {
            name: Dataset.from_dict({"text": ["mean " * n, "mean"], "label": [0, 1]})
            for name, n in (("train", 3), ("validation", 12), ("test", 30))
        }
    )
    data = encode_text_splits(splits, tokenizer, name="means")
    splits = (data.train, data.validation, data.test)
    # What nobody trains on makes no training longer.
    assert [split.inputs["input_ids"].shape[1] for split in splits] == [16, 16, 32]
    assert len(data.train.joined(data.validation)) == 4


def test_long_texts_are_cut_off_and_counted(tokenizer, caplog):
    dataset = Dataset.from_dict({"text": ["mean " * 30, "mean"], "label": ["a", "b"]})
    with caplog.at_level(logging.WARNING):
        split = encode_texts(dataset, tokenizer, max_length=16)
    assert split.inputs["attention_mask"].sum(1).tolist() == [16, 3]
    assert split.inputs["input_ids"][0, -1] == tokenizer.sep_token_id
    message = "1 of the 2 texts of the data set are cut off after 16 tokens; the longest has 32"
    assert message in caplog.text


def test_splits_share_the_classes_of_train(tokenizer):
    data = encode_text_splits(text_splits(), tokenizer, name="scipy")
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 12, 12)
    assert data.label_names == PARTS


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ("text,label,filename", {}),
        ("text,label,file,path", {}),
        ("body,label,image", {}),
        ("path,label,file", {"text_column": "path"}),
    ],
)
def test_texts_may_come_with_the_files_that_they_are_from(columns, options, tokenizer, tmp_path):
    n_files = columns.count(",") - 1
    # The last text is from no file.
    rows = [f"the mean {i},{i % 2}" + f",{i}.txt" * n_files for i in range(9)]
    rows.append("the mean 9,1" + "," * n_files)
    (tmp_path / "train.csv").write_text("\n".join([columns, *rows]))
    splits = load_dataset_splits(tmp_path, **options)
    data = encode_text_splits(splits, tokenizer, name="files", **options)
    assert (len(data.train), len(data.validation)) == (8, 2)


def test_test_texts_without_labels_are_left_out(tokenizer, caplog):
    few = Dataset.from_dict({"text": ["mean", "sum"], "label": [0, 1]})
    splits = DatasetDict(train=few, validation=few, test=few.remove_columns("label"))
    assert encode_text_splits(splits, tokenizer, name="few").test is None
    assert "the split test is not used: no label column found" in caplog.text


def test_images_beside_texts_are_not_looked_at(tokenizer):
    columns = {"text": ["mean", "sum"], "label": [0, 1], "image": ["gone.png", "lost.png"]}
    dataset = Dataset.from_dict(columns).cast_column("image", Image())
    assert len(encode_texts(dataset, tokenizer)) == 2


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"text": ["a", None], "label": [0, 1]}, {}, "row 1 of .* has no text in column 'text'"),
        ({"x": [1, 2], "label": [0, 1]}, {}, "no text column found; the columns are: x, label"),
        (
            {"a": ["x", "y"], "b": ["x", "y"], "label": [0, 1]},
            {},
            "several columns could be the text column: a, b; name the right one with text_column",
        ),
        (
            {"text": ["a", "b"], "n": [0, 1], "label": [0, 1]},
            {"text_column": "n"},
            "column 'n' can't hold texts",
        ),
        ({"text": ["a", "b"], "label": [0, 1]}, {"text_column": "no"}, "no column is named 'no'"),
        ({"text": ["a", "b"], "label": [0, 1]}, {"label_names": ("0",)}, "row 1 .* label '1'"),
    ],
)
def test_what_holds_no_texts_is_refused(tokenizer, columns, options, message):
    with pytest.raises(DataError, match=message):
        encode_texts(Dataset.from_dict(columns), tokenizer, **options)


@pytest.mark.parametrize("length", [4, 65])
def test_a_length_that_the_model_cannot_take_is_refused(tokenizer, length):
    dataset = Dataset.from_dict({"text": ["a"], "label": [0]})
    with pytest.raises(ConfigError, match=rf"max_length must be in \[8, 64\].*got {length}"):
        encode_texts(dataset, tokenizer, max_length=length)


def test_the_limit_of_the_model_holds_where_the_tokenizer_knows_none(bert, caplog):
    tokenizer = AutoTokenizer.from_pretrained(bert, model_max_length=None)
    assert tokenizer.model_max_length > 10**20
    dataset = Dataset.from_dict({"text": ["mean " * 30, "mean"], "label": ["a", "b"]})
    split = encode_texts(dataset, tokenizer, model_limit=16)
    assert split.inputs["input_ids"].shape == (2, 16)
    assert "cut off after 16 tokens" in caplog.text
    splits = DatasetDict(train=dataset, validation=dataset)
    with pytest.raises(ConfigError, match=r"max_length must be in \[8, 16\].*got 17"):
        encode_text_splits(splits, tokenizer, name="x", max_length=17, model_limit=16)


@pytest.mark.parametrize("kind", [RobertaForSequenceClassification, MPNetForSequenceClassification])
def test_the_limit_of_a_model_is_the_longest_text_that_it_takes(kind, tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = kind.config_class(
        vocab_size=20, num_hidden_layers=1, max_position_embeddings=18, pad_token_id=1, **sizes
    )
    kind(config).save_pretrained(tmp_path)
    limit = text_limit(str(tmp_path))
    assert limit == 16
    model = text_classifier(str(tmp_path), ["a", "b"])()
    assert model(input_ids=torch.full((1, limit), 5)).logits.shape == (1, 2)
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, limit + 1), 5))


def test_a_model_that_counts_distances_has_no_limit(bert, tmp_path):
    assert text_limit(bert) == 64
    for number, config in enumerate([XLNetConfig(), DebertaV2Config(position_biased_input=False)]):
        config.save_pretrained(tmp_path / str(number))
        assert text_limit(str(tmp_path / str(number))) is None


def test_the_only_strings_beside_the_labels_are_the_texts(tokenizer):
    dataset = Dataset.from_dict({"body": ["mean", "sum"], "label": ["no", "yes"]})
    assert encode_texts(dataset, tokenizer).label_names == ("no", "yes")


def test_a_tokenizer_without_padding_pads_with_the_end(tokenizer, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    tokenizer.pad_token, tokenizer.eos_token = None, "[SEP]"
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == "[SEP]"


def test_a_tokenizer_that_has_nothing_to_pad_with_is_refused(tokenizer, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    tokenizer.pad_token = tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    message = r"the tokenizer of '.*' has neither a pad_token nor an eos_token, so .*; add a pad_to"
    with pytest.raises(ConfigError, match=message):
        load_tokenizer(str(tmp_path))


def test_a_text_without_any_token_is_named(tokenizer):
    tokenizer = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A")
    dataset = Dataset.from_dict({"text": ["mean", " "], "label": [0, 1]})
    with pytest.raises(DataError, match="row 1 of the data set gives no token: its text is ' '; f"):
        encode_texts(dataset, tokenizer)


def test_a_model_finds_the_end_of_a_text_by_what_the_tokenizer_fills_with(tmp_path):
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,  # and the tokenizer fills with 2
    )
    LlamaForSequenceClassification(config).save_pretrained(tmp_path)
    model = text_classifier(str(tmp_path), ["a", "b"], pad_token_id=2)().eval()
    short, padded = torch.tensor([[5, 6]]), torch.tensor([[5, 6, 2, 2]])
    with torch.no_grad():
        alone = model(input_ids=short).logits
        among = model(input_ids=padded, attention_mask=(padded != 2).long()).logits
    assert torch.allclose(alone, among, atol=1e-5)
    assert text_classifier(str(tmp_path), ["a", "b"])().config.pad_token_id == 0


def test_the_task_is_known_from_the_model(bert, tmp_path):
    assert task_of(bert) == "text-classification"
    with pytest.raises(ConfigError, match=r"no model '.*nothing'"):
        task_of(str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match="no tokenizer in the directory"):
        load_tokenizer(str(tmp_path))


@pytest.mark.slow
def test_a_search_on_texts_finds_blocks_of_the_encoder(bert, tokenizer):
    data = encode_text_splits(text_splits(), tokenizer, name="scipy")
    args = TrainingArguments(num_train_epochs=3, report_to="none", use_cpu=True)
    result = biotune_search(
        text_classifier(bert, data.label_names),
        data.train,
        data.validation,
        args,
        SearchConfig(budget=3, n_finalists=1, seeds=(1, 2)),
        storage="memory",
    )
    assert result.partition.names == ("stem", "layer0", "layer1", "head")
    model = text_classifier(bert, data.label_names)()
    assert model.config.id2label == dict(enumerate(PARTS))
    logits = model(**{k: torch.as_tensor(v) for k, v in data.test.inputs.items()}).logits
    assert logits.shape == (12, 3)
