import numpy as np
import pytest
import timm
import torch
from sklearn.datasets import load_digits
from small import small_resnet
from texts import PARTS, text_splits, write_bert

from hf_biotune import partition
from hf_biotune.exceptions import PartitionError
from hf_biotune.features import head_inputs, select_features, top_tune
from hf_biotune.features.kernel import one_hot
from hf_biotune.search import encode_text_splits
from hf_biotune.search.models import load_tokenizer, text_classifier


@pytest.fixture(scope="module")
def digits():
    """Training and validation samples; features beyond the 64 pixels are noise."""
    source = load_digits()
    noise = np.random.default_rng(0).normal(size=(600, 100)) * 6
    features = np.hstack([source.data[:600], noise])
    return features[:150], source.target[:150], features[300:600], source.target[300:600]


def accuracy_on(labels):
    return lambda decision: float((decision.argmax(1) == labels).mean())


def test_features_of_a_resnet_are_what_its_classifier_multiplies(digits_test):
    torch.manual_seed(0)
    model = small_resnet().eval()
    features = head_inputs(model, digits_test)
    assert features.shape == (100, 32)
    linear = model.classifier[-1]
    with torch.no_grad():
        logits = model(digits_test.batch(range(100))["pixel_values"]).logits.numpy()
    by_hand = features @ linear.weight.detach().double().numpy().T
    by_hand += linear.bias.detach().numpy()
    assert np.abs(by_hand - logits).max() < 1e-5


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "mambaout_femto", "resnet18"])
def test_maps_are_averaged_over_pixels_wherever_the_channels_are(name, digits_test):
    torch.manual_seed(0)
    options = {"embed_dim": 8, "depths": (1, 1), "num_heads": (2, 2), "window_size": 2}
    size = {"img_size": 16, "patch_size": 2} if "swin" in name else {}
    model = timm.create_model(
        name, num_classes=10, **size, **(options if "swin" in name else {})
    ).eval()
    few = digits_test.subset(range(4))
    features = head_inputs(model, few)
    assert features.shape == (4, model.num_features)
    with torch.no_grad():
        maps = model.forward_features(few.batch(range(4))["pixel_values"])
        pooled = maps.mean((2, 3) if name == "resnet18" else (1, 2))
    assert features == pytest.approx(pooled.numpy(), abs=1e-4)


def test_features_of_texts_are_means_over_tokens_without_padding(tmp_path):
    directory = write_bert(tmp_path / "bert")
    data = encode_text_splits(text_splits(), load_tokenizer(str(directory)), name="scipy")
    model = text_classifier(str(directory), PARTS)().eval()
    features = head_inputs(model, data.train)
    batch = data.train.batch(range(12))
    labels = batch.pop("labels")
    with torch.no_grad():
        hidden = model.bert(**batch).last_hidden_state
    kept = batch["attention_mask"][3].bool()
    assert not kept.all()
    assert features.shape == (len(labels), 16)
    assert features[3] == pytest.approx(hidden[3, kept].mean(0).numpy(), abs=1e-5)


def test_features_of_a_text_without_tokens_are_numbers(tmp_path):
    directory = write_bert(tmp_path / "bert")
    data = encode_text_splits(text_splits(), load_tokenizer(str(directory)), name="scipy")
    data.train.inputs["attention_mask"][3] = 0
    model = text_classifier(str(directory), PARTS)()
    assert np.isfinite(head_inputs(model, data.train)).all()


def test_extraction_leaves_no_hooks_and_the_mode_alone(digits_test):
    model = small_resnet().train()
    head_inputs(model, digits_test)
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_last_block_that_never_runs_has_no_features(digits_test):
    model = small_resnet()
    model.spare = torch.nn.Linear(2, 2)
    blocks = partition(model, {"body": ["resnet", "classifier"], "last": "spare"})
    with pytest.raises(PartitionError, match="no module of the block 'last' runs"):
        head_inputs(model, digits_test, blocks)


def test_top_tuning_classifies_digits(digits):
    train, labels, validation, truth = digits
    found = top_tune(train[:, :64], labels, validation[:, :64], 10, accuracy_on(truth))
    assert found.score > 0.75
    assert found.trainings == 15
    assert found.n_parameters == 150 * (64 + 10) + 10
    decision = found.decision(validation[:, :64])
    assert decision.shape == (300, 10)
    assert accuracy_on(truth)(decision) == found.score


def test_evolved_features_beat_all_features_and_drop_noise(digits):
    train, labels, validation, truth = digits
    score = accuracy_on(truth)
    first = select_features(train, labels, validation, 10, score, generations=0, population=5)
    found = select_features(train, labels, validation, 10, score, generations=10)
    assert found.score > first.score
    assert 0 < found.mask.sum() < 164
    assert found.mask[:64].mean() > found.mask[64:].mean()
    assert found.n_parameters == (found.mask.sum() + 1) * 10
    assert score(found.decision(validation)) == found.score


def test_the_same_seed_selects_the_same_features(digits):
    train, labels, validation, truth = digits
    masks = [
        select_features(
            train, labels, validation, 10, accuracy_on(truth), seed, generations=2
        ).mask.tolist()
        for seed in (3, 3, 4)
    ]
    assert masks[0] == masks[1] != masks[2]


def test_targets_are_one_against_the_rest():
    assert one_hot([1, 0], 3).tolist() == [[-1, 1, -1], [1, -1, -1]]
