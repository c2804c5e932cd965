"""Two small sets of real English texts, taken from the documentation of installed packages.

| set | a text is | its class is |
|---|---|---|
| `scipy-200` | what a function or class of SciPy is for | the part of SciPy that it belongs to |
| `libraries-200` | what a function or class of a library is for | the library |

Only the description at the beginning of each docstring is used, without parameters and examples.
The libraries are dependencies of hf_biotune under the BSD 3-clause licence.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import warnings
from collections.abc import Iterator

SCIPY_PARTS = ("stats", "special", "signal", "linalg", "optimize", "ndimage", "interpolate")
LIBRARIES = {
    "numpy": ("numpy", "numpy.linalg", "numpy.fft", "numpy.ma", "numpy.random"),
    "scipy": tuple(f"scipy.{part}" for part in SCIPY_PARTS),
    "scikit-learn": tuple(
        f"sklearn.{part}"
        for part in (
            "cluster",
            "covariance",
            "datasets",
            "decomposition",
            "ensemble",
            "feature_selection",
            "linear_model",
            "metrics",
            "model_selection",
            "neighbors",
            "preprocessing",
            "svm",
        )
    ),
    "torch": ("torch", "torch.nn", "torch.nn.functional", "torch.linalg", "torch.optim"),
}
SHORTEST, LONGEST = 30, 400
_UNDERLINE = re.compile(r"\s*[-=]{3,}\s*")
# Compiled functions begin with their calls.
_SIGNATURE = re.compile(r"[\w.]+\(.*\)?")
_SECTION = re.compile(r"(Args|Arguments|Parameters|Returns|Examples?)\s*:|\.\. math|>>> ")

TEXTS_README = """\
# {name}

{n} English texts: what functions and classes are for, in the words of their docstrings, from
{sources}. The class is {classes}.
Licence: BSD 3-clause, as the libraries.
"""


def scipy_texts() -> dict[str, list[str]]:
    """Descriptions in SciPy, by the part of it that they belong to."""
    return _without_shared({part: _descriptions((f"scipy.{part}",)) for part in SCIPY_PARTS})


def library_texts() -> dict[str, list[str]]:
    """Descriptions in four libraries, by library."""
    return _without_shared({name: _descriptions(modules) for name, modules in LIBRARIES.items()})


def readme(name: str, texts: dict[str, list[str]]) -> str:
    """Where the texts come from, and their licence."""
    is_scipy = set(texts) == set(SCIPY_PARTS)
    packages = ["scipy"] if is_scipy else list(LIBRARIES)
    return TEXTS_README.format(
        name=name,
        n=sum(map(len, texts.values())),
        sources=", ".join(f"{p} {importlib.metadata.version(p)}" for p in packages),
        classes="the part of SciPy" if is_scipy else "the library",
    )


def _without_shared(texts: dict[str, set[str]]) -> dict[str, list[str]]:
    """A text that two classes have in common says nothing about its class."""
    seen: dict[str, int] = {}
    for of_class in texts.values():
        for text in of_class:
            seen[text] = seen.get(text, 0) + 1
    return {
        label: sorted(text for text in of_class if seen[text] == 1)
        for label, of_class in texts.items()
    }


def _descriptions(modules: tuple[str, ...]) -> set[str]:
    found = {_description(member) for module in modules for member in _public(module)}
    return {text for text in found if len(text) >= SHORTEST}


def _public(module: str) -> Iterator[object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some members say that they are deprecated
        imported = importlib.import_module(module)
        for name in sorted(getattr(imported, "__all__", dir(imported))):
            try:
                member = getattr(imported, name)
            except (AttributeError, ImportError):  # listed, but experimental
                continue
            if not name.startswith("_") and not inspect.ismodule(member):
                yield member


def _description(member: object) -> str:
    """The beginning of a docstring, up to its first section, example or formula."""
    lines = (inspect.getdoc(member) or "").splitlines()
    kept: list[str] = []
    for number, line in enumerate(lines):
        if _SIGNATURE.match(line) and not any(kept):
            continue
        if _SECTION.match(line.strip()) or any(
            map(_UNDERLINE.fullmatch, lines[number + 1 : number + 2])
        ):
            break
        kept.append(line)
    text = " ".join(" ".join(kept).split())
    return text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0]
