"""The activations of frozen first blocks, computed once and shared by all trainings of a search.

When the first blocks are frozen and inputs are not augmented, what reaches the first trained block
is a constant of each sample: the same in every epoch, with every seed, and for every genotype that
freezes these blocks. It is computed once, for training and validation samples alike.

The results of a search are the same, bit for bit, with and without it, so that nothing needs to
remember what was cached. That is checked and not believed: before a boundary is used, one batch
goes both ways, and logits and gradients must be equal. What a sample gives may depend on the batch
that it is in. On a CPU it depends on the number of samples, below 16 mostly, but not on which they
are. So samples are recorded in batches of the size that trainings use, the check is on other
neighbours than they were recorded with, and batches of another size, such as the last one of an
epoch, are served only if that size is found to give the same bits; otherwise they go through the
whole model. Scores depend on weights of later, which logits alone would not show, so that gradients
are looked at for validation samples too. Where the check fails, nothing is cached, and the reason
is told once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache
from peft import PeftModel
from torch import nn

from ..blocks import Partition
from ..classification import logits_of, loss_of
from ..model import BioTuneModel
from .cache_statistics import CacheStatistics
from .data import SplitView
from .forward import Forward
from .out_of_memory import is_out_of_memory
from .prefix_plan import (
    Inputs,
    NoPrefixError,
    PrefixPlan,
    plan_prefix,
    suffix_parameters,
    untouched,
)
from .prefix_replay import record, replaying
from .prefix_store import PrefixRows, PrefixStore
from .weights import BaseModelPool

logger = logging.getLogger(__name__)

# Relative difference of gradients that are the same but for the order of sums.
NEAR = 0.02
# Samples that show which weights the logits depend on.
FEW = 4


class PrefixCache:
    """Keeps activations of frozen first blocks for one base model.

    Args:
        pool: the base model.
        memory: bytes of memory. Default: a quarter of what is free.
        directory: for a temporary file, when memory does not suffice. Default: the system's place.
    """

    def __init__(
        self, pool: BaseModelPool, memory: int | None = None, directory: Path | None = None
    ) -> None:
        self.pool = pool
        self.store = PrefixStore(memory, directory)
        self._statistics = CacheStatistics()
        self.plans: dict[Hashable, PrefixPlan] = {}
        # Batch sizes, by what they belong to, and whether they give the bits that were recorded.
        self.verdicts: dict[Hashable, bool] = {}

    @property
    def statistics(self) -> CacheStatistics:
        """What it did so far."""
        self._statistics.memory_bytes = self.store.peak_memory
        self._statistics.file_bytes = self.store.peak_disk
        return self._statistics

    def forward(
        self, model: nn.Module, wrapped: PeftModel, seed: int, device: torch.device | str
    ) -> Forward:
        """What takes the batches of one training through its model.

        Args:
            model: as it is called, perhaps prepared by Accelerate.
            wrapped: the same, bare; of anything but a [`BioTuneModel`] nothing is cached.
            seed: of the training.
            device: where the model is.
        """
        if not isinstance(wrapped, BioTuneModel):
            return Forward(model, device)
        return CachedForward(model, wrapped, seed, device, self)

    def refuse(self, what: str, reason: str) -> None:
        """Tell, the first time, why something is not cached."""
        if not self._statistics.why_not:
            self._statistics.why_not = f"{what}: {reason}"
            logger.warning(
                "the activations of frozen blocks are not cached, or not all of them; %s: %s",
                what,
                reason,
            )

    def close(self) -> None:
        """Give the memory back."""
        self.store.close()


@dataclass(frozen=True)
class _Served:
    """What a split's batches are served from."""

    plan: PrefixPlan
    rows: PrefixRows
    sizes: set[int] = field(default_factory=set)


class CachedForward(Forward):
    """Takes batches through a model, but not through its frozen first blocks.

    Args:
        model: see [`PrefixCache.forward`].
        wrapped: see [`PrefixCache.forward`].
        seed: see [`PrefixCache.forward`].
        device: see [`PrefixCache.forward`].
        cache: of the search.
    """

    def __init__(
        self,
        model: nn.Module,
        wrapped: BioTuneModel,
        seed: int,
        device: torch.device | str,
        cache: PrefixCache,
    ) -> None:
        super().__init__(model, device)
        self._base = wrapped.get_base_model()
        self._partition: Partition = wrapped.base_model.partitions[wrapped.active_adapter]
        trained = wrapped.active_peft_config.lr_multipliers
        self._n_frozen = next(
            number for number, block in enumerate(self._partition) if block.name in trained
        )
        self._seed = seed
        self._cache = cache
        self._served: dict[Hashable, _Served] = {}

    def __call__(self, samples: SplitView, positions: torch.Tensor) -> torch.Tensor:
        """The logits of a batch; see [`Forward`]."""
        statistics = self._cache._statistics
        served = self._served.get(self._use(samples))
        if served is None or len(positions) not in served.sizes:
            statistics.misses += len(positions)
            return super().__call__(samples, positions)
        statistics.hits += len(positions)
        statistics.seconds_saved += len(positions) * served.rows.seconds_per_sample
        return self._replay(served, samples, positions)

    def prepare(self, samples: SplitView, batches: Sequence[torch.Tensor]) -> None:
        """Have the activations of a split's samples ready, as far as that is possible.

        Args:
            samples: all that will be asked for.
            batches: their positions, as they will come, such as those of the first epoch.
        """
        if samples.split.is_augmented:
            return
        with untouched(self._base):
            for n_blocks in range(self._n_frozen, 0, -1):
                served = self._serve(n_blocks, samples, batches)
                if served is not None:
                    self._served[self._use(samples)] = served
                    return

    # -- one boundary ---------------------------------------------------------------------------

    def _serve(
        self, n_blocks: int, samples: SplitView, batches: Sequence[torch.Tensor]
    ) -> _Served | None:
        """The activations behind so many blocks, or `None` if they can't be had."""
        size = max(map(len, batches))
        of_size = (n_blocks, size, *self._mode)
        if self._cache.verdicts.get(of_size) is False:
            return None
        block = f"behind {self._partition[n_blocks - 1].name!r}"
        try:
            served = self._filled(n_blocks, samples, size)
            if served is None:
                self._cache.refuse(block, "there is no room")
                return None
            self._judge(of_size, served, samples, self._neighbours(samples, batches, size))
        except NoPrefixError as error:
            self._refuse(n_blocks, samples, size, f"{error}")
            return None
        except Exception as error:
            # Other people's models may do anything with what stubs return.
            if is_out_of_memory(error):
                raise
            self._refuse(n_blocks, samples, size, f"{type(error).__name__}: {error}")
            return None
        for batch in batches:
            self._judge_size(of_size, served, samples, batch)
        return served

    def _neighbours(
        self, samples: SplitView, batches: Sequence[torch.Tensor], size: int
    ) -> torch.Tensor:
        """A batch of the usual size, of other neighbours than samples were recorded with."""
        if self.model.training:
            return next(batch for batch in batches if len(batch) == size)
        # Samples are scored in the order in which they were recorded; other folds divide it anew.
        order = np.random.default_rng(len(samples)).permutation(len(samples))
        return torch.from_numpy(order[:size])

    def _refuse(self, n_blocks: int, samples: SplitView, size: int, reason: str) -> None:
        self._cache.verdicts[(n_blocks, size, *self._mode)] = False
        self._cache.store.discard(self._key(n_blocks, samples, size))
        self._cache.refuse(f"behind {self._partition[n_blocks - 1].name!r}", reason)

    def _plan(self, n_blocks: int, samples: SplitView) -> PrefixPlan:
        key = (n_blocks, *self._mode)
        if key not in self._cache.plans:

            def few(n_samples: int) -> Inputs:
                return self._inputs(samples, torch.arange(n_samples) % len(samples))

            with untouched(self._base):
                self._cache.plans[key] = plan_prefix(
                    self._base, self._partition, n_blocks, self._through, few
                )
        return self._cache.plans[key]

    def _filled(self, n_blocks: int, samples: SplitView, size: int) -> _Served | None:
        """The activations of all samples, computed as far as they are not there."""
        plan = self._plan(n_blocks, samples)
        store, key = self._cache.store, self._key(n_blocks, samples, size)
        shorter = self._shorter(n_blocks, samples, size)
        store.ask(key)
        rows = store.get(key)
        if rows is None:
            in_use = [s.rows for s in (*self._served.values(), shorter) if s is not None]
            n_samples = len(samples.split)
            rows = store.make_room(key, n_samples, plan.bytes_per_sample, n_blocks, in_use)
            if rows is None:
                return None
        missing = rows.missing(samples.rows)
        if len(missing):
            self._fill(_Served(plan, rows), shorter, samples, missing, size)
        return _Served(plan, rows)

    def _fill(
        self,
        served: _Served,
        shorter: _Served | None,
        samples: SplitView,
        missing: torch.Tensor,
        size: int,
    ) -> None:
        started = time.perf_counter()
        everything = samples.split.view()
        per_sample = [spec.rows for spec in served.plan.needed]
        for chunk in torch.split(missing, size):
            # Of the size that trainings use: others may give other bits.
            padding = samples.rows[: size - len(chunk)]
            rows = torch.cat([chunk, padding])
            if shorter is None:
                inputs = self._inputs(everything, rows)
                tensors = record(self._base, served.plan, self._through, inputs)
            else:
                inputs = self._inputs(everything, rows, shorter.plan)
                kept = shorter.rows.take(rows, self.device)
                known = replaying(self._base, shorter.plan, kept, inputs)
                tensors = record(self._base, served.plan, self._through, inputs, known)
            if not served.rows.put(rows, tensors, per_sample):
                raise NoPrefixError("something that does not depend on the samples changes")
        seconds = (time.perf_counter() - started) / len(missing)
        before = shorter.rows.seconds_per_sample if shorter is not None else 0.0
        served.rows.seconds_per_sample = seconds + before
        self._cache._statistics.recorded += len(missing)

    def _shorter(self, n_blocks: int, samples: SplitView, size: int) -> _Served | None:
        """What a longer prefix can be computed from."""
        for fewer in range(n_blocks - 1, 0, -1):
            rows = self._cache.store.get(self._key(fewer, samples, size))
            if rows is not None and not len(rows.missing(samples.rows)):
                return _Served(self._plan(fewer, samples), rows)
        return None

    # -- whether it is exact --------------------------------------------------------------------

    def _judge(
        self, of_size: Hashable, served: _Served, samples: SplitView, batch: torch.Tensor
    ) -> None:
        """Compare a batch that is served with one that goes through the whole model, once.

        Raises:
            NoPrefixError: they differ.
        """
        if of_size in self._cache.verdicts:
            return
        try:
            self._compare(served, samples, batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            # It takes more than the training, which may have enough without it.
            clear_device_cache()
            raise NoPrefixError("there is no memory to check it") from None
        self._cache.verdicts[of_size] = True

    def _compare(self, served: _Served, samples: SplitView, batch: torch.Tensor) -> None:
        n_blocks = served.rows.n_blocks
        is_exact = torch.is_grad_enabled()
        if not is_exact:
            _check_equal(
                [self._logits(samples, batch, None)], [self._logits(samples, batch, served)]
            )
            # Which weights count, a few samples show; not to the bit, since models may compute in
            # another way where no gradients are wanted.
            batch = batch[:FEW]
        with torch.enable_grad():
            whole = self._outcome(n_blocks, samples, batch, None)
            cached = self._outcome(n_blocks, samples, batch, served)
            if _are_equal(whole, cached):
                return
            if is_exact:
                _check_equal(whole[:1], cached[:1])
                # Some devices sum gradients up in another order each time.
                is_exact = _are_equal(whole, self._outcome(n_blocks, samples, batch, None))
        if is_exact or not all(map(_are_near, whole, cached)):
            raise NoPrefixError("what is cached gives other gradients")

    def _outcome(
        self, n_blocks: int, samples: SplitView, batch: torch.Tensor, served: _Served | None
    ) -> list[torch.Tensor]:
        """The logits, and the gradients of all later blocks."""
        with untouched(self._base):
            parameters = [
                p
                for p in suffix_parameters(self._base, self._partition, n_blocks)
                if p.is_floating_point()
            ]
            for parameter in parameters:
                parameter.requires_grad_(True)
            logits = self._logits(samples, batch, served)
            loss = loss_of(logits, samples.labels[batch].to(logits.device))
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        nothing = torch.zeros(())
        return [logits.detach(), *(nothing if g is None else g for g in gradients)]

    def _logits(
        self, samples: SplitView, batch: torch.Tensor, served: _Served | None
    ) -> torch.Tensor:
        if served is None:
            return super().__call__(samples, batch)
        return self._replay(served, samples, batch)

    def _judge_size(
        self, of_size: Hashable, served: _Served, samples: SplitView, batch: torch.Tensor
    ) -> None:
        """Whether a batch of this size gives what was recorded in batches of the usual size."""
        key = of_size, len(batch)
        if key not in self._cache.verdicts:
            with untouched(self._base):
                fresh = record(self._base, served.plan, self._through, self._inputs(samples, batch))
            kept = served.rows.take(samples.rows[batch], self.device)
            self._cache.verdicts[key] = _are_equal(fresh, kept)
        if self._cache.verdicts[key]:
            served.sizes.add(len(batch))

    # -- keys and calls -------------------------------------------------------------------------

    @property
    def _mode(self) -> tuple[Hashable, ...]:
        """What a pass through the model depends on beside weights and inputs."""
        kind = torch.device(self.device).type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return self.model.training, precision

    def _use(self, samples: SplitView) -> Hashable:
        return id(samples.split), self.model.training

    def _key(self, n_blocks: int, samples: SplitView, size: int) -> Hashable:
        """Of activations: what they are a function of."""
        later = {name for block in self._partition.blocks[n_blocks:] for name in block.parameters}
        seeded = self._cache.pool.seeded_tensors(self._seed)
        version = self._seed if seeded - later else None
        return n_blocks, version, samples.split.fingerprint, size, *self._mode

    def _through(self, inputs: Inputs) -> torch.Tensor:
        return logits_of(self.model, inputs)

    def _inputs(
        self, samples: SplitView, positions: torch.Tensor, plan: PrefixPlan | None = None
    ) -> Inputs:
        """The inputs of a batch; what only a prefix needs is a mere shape."""
        unused = {} if plan is None else plan.unused_inputs
        batch = samples.batch(positions, self.device, without=unused)
        device = torch.device(self.device)
        return {
            name: unused[name].unused(len(positions), device) if name in unused else batch[name]
            for name in samples.split.inputs
        }

    def _replay(self, served: _Served, samples: SplitView, positions: torch.Tensor) -> torch.Tensor:
        kept = served.rows.take(samples.rows[positions], self.device)
        inputs = self._inputs(samples, positions, served.plan)
        with replaying(self._base, served.plan, kept, inputs):
            return self._through(inputs)


def _check_equal(whole: Sequence[torch.Tensor], cached: Sequence[torch.Tensor]) -> None:
    """Raise `NoPrefixError` unless logits are the same."""
    if not _are_equal(whole, cached):
        difference = float((whole[0] - cached[0]).abs().max())
        raise NoPrefixError(f"what is cached gives other logits, by up to {difference:.2g}")


def _are_near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether tensors differ by no more than other kernels would make them."""
    if one.shape != other.shape:
        return False
    distance = torch.linalg.vector_norm((one - other).double())
    return bool(distance <= NEAR * torch.linalg.vector_norm(one.double()))


def _are_equal(ones: Iterable[torch.Tensor], others: Iterable[torch.Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))
