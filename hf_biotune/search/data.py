"""Encoded data: every sample resized or tokenised once and kept in memory, ready to be indexed.

A search trains a model hundreds of times on the same samples. So samples are decoded once
([`encode_splits`], [`encode_images`], [`encode_dataset`]), images stay 8-bit integers, and a batch
is one indexing operation and one multiply-add on the device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from ..exceptions import DataError
from .augmentation import Augmentation
from .mapped import fits_memory, mapped_tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Indices = torch.Tensor | NDArray[np.integer[Any]] | Sequence[int]


@dataclass(frozen=True, eq=False)
class EncodedSplit(Dataset[dict[str, torch.Tensor]]):
    """The samples of one split, as tensors.

    It is a map-style torch data set as well: `Trainer` and `DataLoader` with transformers'
    `default_data_collator` take it as it is.

    Args:
        inputs: what the model's `forward` gets, by argument name; the first dimension of each
            tensor is the samples. Images: `{"pixel_values": uint8 (n, 3, height, width)}`; text:
            `{"input_ids": ..., "attention_mask": ...}`.
        labels: class of each sample, int64, shape (n,), from 0 to number of classes - 1.
        label_names: name of each class.
        mean: per channel, subtracted from `pixel_values` after these are scaled to [0, 1]. `None`:
            inputs are used as they are.
        std: per channel, what `pixel_values` are divided by after that. `None` with `mean`.
        n_skipped: how many samples were left out because they could not be read.
        augmentation: what happens to the images of training batches; see
            [`~EncodedSplit.at_epoch`]. `None`: nothing.
        draws: the random numbers of one epoch, set by [`~EncodedSplit.at_epoch`].

    Raises:
        DataError: there is no sample, lengths differ, a label is outside of the classes, only one
            of `mean` and `std` is given, or there are no 8-bit images to augment.

    Example:
        >>> split = EncodedSplit({"input_ids": torch.tensor([[5, 6], [7, 8]])},
        ...                      torch.tensor([1, 0]), ("no", "yes"))
        >>> split.batch(torch.tensor([1]))
        {'input_ids': tensor([[7, 8]]), 'labels': tensor([0])}
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    label_names: tuple[str, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    n_skipped: int = 0
    augmentation: Augmentation | None = None
    draws: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, values in {**self.inputs, "labels": self.labels}.items():
            if not torch.is_tensor(values):
                raise DataError(
                    f"{name} must be a tensor, got {type(values).__name__}; use torch.as_tensor"
                )
        if self.labels.is_floating_point() or self.labels.ndim != 1:
            raise DataError(
                f"labels must be the numbers of classes, integers of shape (n,), got "
                f"{self.labels.dtype} of shape {tuple(self.labels.shape)}"
            )
        if not self.inputs or len(self.labels) == 0:
            raise DataError("a split needs at least one sample, got none; check the data set")
        for name, values in self.inputs.items():
            if len(values) != len(self.labels):
                raise DataError(
                    f"every sample needs one label, got {len(values)} {name} and "
                    f"{len(self.labels)} labels"
                )
        lowest, highest = int(self.labels.min()), int(self.labels.max())
        if lowest < 0 or highest >= len(self.label_names):
            raise DataError(
                f"labels must be in 0..{len(self.label_names) - 1} for the "
                f"{len(self.label_names)} classes {shortened(self.label_names)}, got "
                f"{lowest if lowest < 0 else highest}"
            )
        if (self.mean is None) != (self.std is None):
            raise DataError(
                f"mean and std belong together, got mean {self.mean} and std {self.std}; "
                "give both or neither"
            )
        if self.augmentation is not None:
            _check_images(self.inputs)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Several samples at once, which `DataLoader` prefers to one after the other.

        Args:
            indices: which samples.

        Returns:
            For each, what [`~EncodedSplit.batch`] returns, without the first dimension.
        """
        batch = self.batch(indices)
        return [
            dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)
        ]

    @property
    def n_classes(self) -> int:
        """Number of classes, whether they occur in this split or not."""
        return len(self.label_names)

    @property
    def is_augmented(self) -> bool:
        """Whether a sample of a training batch differs from epoch to epoch."""
        return self.augmentation is not None

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """How many samples of each class there are. Length: `n_classes`."""
        return tuple(torch.bincount(self.labels.cpu(), minlength=self.n_classes).tolist())

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the content, the same in every process.

        Content is inputs, labels, label names, mean, std and augmentation: what a training can
        depend on.
        """
        digest = hashlib.sha256()
        for name, values in [*sorted(self.inputs.items()), ("labels", self.labels)]:
            header = [name, str(values.dtype), list(values.shape)]
            digest.update(json.dumps(header).encode())
            flat = values.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().data)
        digest.update(json.dumps([self.label_names, self.mean, self.std]).encode())
        if self.augmentation is not None:
            digest.update(json.dumps(asdict(self.augmentation)).encode())
        return digest.hexdigest()[:16]

    def batch(
        self,
        indices: Indices,
        device: torch.device | str | None = None,
        without: Collection[str] = (),
    ) -> dict[str, torch.Tensor]:
        """The inputs and labels of some samples, in the given order.

        Args:
            indices: which samples, shape (b,).
            device: where the batch shall be; default: where the split is. Images travel as 8-bit
                integers and are normalised there.
            without: inputs that are not needed.

        Returns:
            `inputs`, of which `pixel_values` are float32 and normalised if they are uint8 and
            `mean` is given, and `labels`.
        """
        chosen = self._index(indices)
        batch = {}
        for name, values in self.inputs.items():
            if name in without:
                continue
            batch[name] = _sent(values[chosen], device)
            if name == "pixel_values":
                batch[name] = self._normalised(self._augmented(batch[name], chosen))
        batch["labels"] = _sent(self.labels[chosen], device)
        return batch

    def subset(self, indices: Indices) -> EncodedSplit:
        """Some samples as a split of their own, in the given order.

        Args:
            indices: which samples, shape (m,).

        Raises:
            DataError: `indices` is empty.
        """
        chosen = self._index(indices)
        return replace(
            self,
            inputs={name: values[chosen] for name, values in self.inputs.items()},
            labels=self.labels[chosen],
            n_skipped=0,
            draws=None if self.draws is None else self.draws[chosen.to(self.draws.device)],
        )

    def joined(self, other: EncodedSplit) -> EncodedSplit:
        """The samples of two splits, one after the other, with the augmentation of the first.

        Raises:
            DataError: they are not of one kind: inputs, classes or normalisation differ.
        """
        kinds = [
            (
                {name: (values.dtype, *values.shape[1:]) for name, values in split.inputs.items()},
                split.label_names,
                split.mean,
                split.std,
            )
            for split in (self, other)
        ]
        if kinds[0] != kinds[1]:
            raise DataError(
                f"splits must be of one kind to be joined, got {kinds[0]} and {kinds[1]}; encode "
                f"them alike, with encode_splits"
            )
        return replace(
            self,
            inputs={name: _joined(t, other.inputs[name]) for name, t in self.inputs.items()},
            labels=torch.cat([self.labels, other.labels]),
            n_skipped=self.n_skipped + other.n_skipped,
            draws=None,
        )

    def view(self, indices: Indices | None = None) -> SplitView:
        """Some samples, without a copy, in the given order.

        Args:
            indices: which samples, shape (m,). Default: all.

        Raises:
            DataError: `indices` is empty.
        """
        rows = torch.arange(len(self)) if indices is None else indices
        return SplitView(self, torch.as_tensor(rows, dtype=torch.int64, device="cpu"))

    def at_epoch(self, seed: int, epoch: int) -> EncodedSplit:
        """The samples as one epoch of a training sees them: augmented, if `augmentation` is given.

        Args:
            seed: of the training.
            epoch: from 0. The same seed and epoch give the same images.
        """
        if self.augmentation is None:
            return self
        return replace(self, draws=self.augmentation.draw(len(self), seed, epoch))

    def for_trainer(self, seed: int) -> EncodedSplit | AugmentedDataset:
        """What `Trainer` takes as `train_dataset`, to see what the search loop sees.

        Args:
            seed: of the training.
        """
        return self if self.augmentation is None else AugmentedDataset(self, seed)

    def _index(self, indices: Indices) -> torch.Tensor:
        return torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)

    def _augmented(self, pixels: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        if self.augmentation is None or self.draws is None:
            return pixels
        return self.augmentation.apply(pixels, self.draws[chosen.to(self.draws.device)])

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        """`(pixels / 255 - mean) / std`, as one multiplication and one addition."""
        if self.mean is None or self.std is None or pixels.dtype != torch.uint8:
            return pixels
        mean = torch.tensor(self.mean, device=pixels.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(-1, 1, 1)
        return pixels.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)


def _sent(values: torch.Tensor, device: torch.device | str | None) -> torch.Tensor:
    """Values on a device; a GPU fetches them from pinned memory while it goes on computing."""
    to_gpu = device is not None and torch.device(device).type == "cuda"
    if to_gpu and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class SplitView:
    """Some samples of a split, without a copy; positions in it are numbers of these samples.

    Args:
        split: that the samples belong to.
        rows: their numbers in it, int64, shape (m,), on the CPU.
    """

    split: EncodedSplit
    rows: torch.Tensor

    def __post_init__(self) -> None:
        if len(self.rows) == 0:
            raise DataError("a view needs at least one sample, got none; check the folds")

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def labels(self) -> torch.Tensor:
        """The class of each sample, shape (m,)."""
        return self.split.labels[self.rows]

    def at_epoch(self, seed: int, epoch: int) -> SplitView:
        """The same samples, as one epoch of a training sees them: [`EncodedSplit.at_epoch`]."""
        split = self.split.at_epoch(seed, epoch)
        return self if split is self.split else SplitView(split, self.rows)

    def batch(
        self,
        positions: torch.Tensor,
        device: torch.device | str | None = None,
        without: Collection[str] = (),
    ) -> dict[str, torch.Tensor]:
        """The inputs and labels of some samples; see [`EncodedSplit.batch`].

        Args:
            positions: which samples of the view, shape (b,).
            device: where the batch shall be; default: where the split is.
            without: inputs that are not needed.
        """
        return self.split.batch(self.rows[positions], device, without)


class AugmentedDataset(Dataset[dict[str, torch.Tensor]]):
    """The training samples of one training, augmented anew in each epoch.

    Made by [`EncodedSplit.for_trainer`]. The epoch comes from whoever iterates: Accelerate's data
    loaders call `set_epoch`.

    Args:
        split: with an augmentation.
        seed: of the training.
    """

    def __init__(self, split: EncodedSplit, seed: int) -> None:
        self._split = split
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """From now on the samples are those of this epoch, from 0."""
        self._current = self._split.at_epoch(self._seed, epoch)

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return self._current[index]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """As [`EncodedSplit.__getitems__`]."""
        return self._current.__getitems__(indices)


def _check_images(inputs: Mapping[str, torch.Tensor]) -> None:
    pixels = inputs.get("pixel_values")
    if (
        pixels is None
        or pixels.dtype != torch.uint8
        or pixels.ndim != 4
        or pixels.shape[1] != len("RGB")
    ):
        described = {name: f"{v.dtype} {tuple(v.shape)}" for name, v in inputs.items()}
        raise DataError(
            f"only pixel_values of type uint8 and shape (n, 3, height, width) can be augmented, "
            f"got {described}; leave augmentation out, or encode the images with encode_images"
        )


def shortened(names: Sequence[str], most: int = 10) -> str:
    """The first names of a long list."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _joined(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Both, in memory or in a file, as images are that take most of it."""
    if fits_memory(first.nbytes + second.nbytes):
        return torch.cat([first, second])
    whole = mapped_tensor((len(first) + len(second), *first.shape[1:]), first.dtype)
    whole[: len(first)] = first
    whole[len(first) :] = second
    return whole
