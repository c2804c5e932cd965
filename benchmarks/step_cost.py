"""What a training step costs, by the first block that is trained.

    python benchmarks/step_cost.py --demo demo

Five ways to do the same steps (forward, loss, backward, clipping, AdamW, schedule) on one thread,
by turns: the loop of the search, a plain PyTorch loop, stock `Trainer`, the loop of the search
behind a cached prefix, and a plain loop that is handed what comes out of the frozen blocks and
knows nothing but the rest of the model (the ideal). The quickest of some turns counts, in seconds
of CPU time, since other processes can only make a turn slower.

Images have 64 pixels, texts 32 tokens. Weights are random, except MiniLM's: the cost does not
depend on them. Each measurement is printed as a line of JSON; `--rows` takes files of such lines,
of runs with other options too, and makes the report of them without measuring anything.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import timm
import torch
from environment import save_results
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    Trainer,
    TrainerCallback,
    default_data_collator,
)

from hf_biotune import BioTuneConfig, biotune_trainer_kwargs, get_biotune_model, partition
from hf_biotune.search import EncodedSplit, FitnessEvaluator, StoppingRule, resolve_metric
from hf_biotune.search.fitness import accelerator_for
from hf_biotune.search.forward import Forward
from hf_biotune.search.prefix_cache import PrefixCache
from hf_biotune.search.study import default_training_arguments
from hf_biotune.search.training import BlockTraining
from hf_biotune.search.weights import BaseModelPool

RESULTS = Path(__file__).parent / "results" / "step_cost.json"
PACKAGES = ("hf-biotune", "torch", "transformers", "peft", "timm")
# About an epoch of the data sets that the other benchmarks train on.
STEPS = 8
PIXELS, TOKENS, CLASSES = 64, 32, 10
MODELS = ("EfficientNet-Lite0", "ResNet-50", "ViT-S/16", "MiniLM-L6")
Stage = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class How:
    """How much is measured.

    Args:
        batch: samples in a step.
        turns: of which the quickest counts.
        boundaries: first trained blocks, from 2.
    """

    batch: int
    turns: int
    boundaries: int


@dataclass
class Subject:
    """A model, and its blocks as functions that a person would write.

    Args:
        name: of the model.
        model_init: makes it.
        stages: gives the function of each block, from what comes out of the block before.
        layout: of its convolutions.
        reads_text: whether its inputs are tokens.
    """

    name: str
    model_init: Callable[[], nn.Module]
    stages: Callable[[nn.Module], list[Stage]]
    layout: torch.memory_format = torch.contiguous_format
    reads_text: bool = False


def efficientnet_stages(model: nn.Module) -> list[Stage]:
    head: Stage = lambda x: model.forward_head(model.bn2(model.conv_head(x)))  # noqa: E731
    return [lambda x: model.bn1(model.conv_stem(x)), *model.blocks, head]


def resnet_stages(model: nn.Module) -> list[Stage]:
    stem: Stage = lambda x: model.maxpool(model.act1(model.bn1(model.conv1(x))))  # noqa: E731
    layers = [model.layer1, model.layer2, model.layer3, model.layer4]
    return [stem, *layers[:-1], lambda x: model.global_pool(model.layer4(x)), model.fc]


def vit_stages(model: nn.Module) -> list[Stage]:
    stem: Stage = lambda x: model.norm_pre(model._pos_embed(model.patch_embed(x)))  # noqa: E731
    last: Stage = lambda x: model.norm(model.blocks[-1](x))  # noqa: E731
    return [stem, *model.blocks[:-1], last, model.forward_head]


def bert_stages(model: nn.Module) -> list[Stage]:
    bert = model.bert
    head: Stage = lambda x: model.classifier(model.dropout(bert.pooler(x)))  # noqa: E731
    return [bert.embeddings, *bert.encoder.layer, head]


def subjects(demo: Path) -> list[Subject]:
    def of_timm(name: str, **arguments: object) -> Callable[[], nn.Module]:
        return lambda: timm.create_model(name, num_classes=CLASSES, **arguments)

    def minilm() -> nn.Module:
        return AutoModelForSequenceClassification.from_pretrained(
            demo / "minilm", num_labels=CLASSES
        )

    return [
        Subject(
            MODELS[0],
            of_timm("tf_efficientnet_lite0"),
            efficientnet_stages,
            torch.channels_last,
        ),
        Subject(MODELS[1], of_timm("resnet50"), resnet_stages, torch.channels_last),
        Subject(MODELS[2], of_timm("vit_small_patch16_224", img_size=PIXELS), vit_stages),
        Subject(MODELS[3], minilm, bert_stages, reads_text=True),
    ]


def samples_of(subject: Subject, batch: int) -> EncodedSplit:
    torch.manual_seed(1)
    n_samples = batch * STEPS
    labels = torch.arange(n_samples) % CLASSES
    names = tuple(map(str, range(CLASSES)))
    if subject.reads_text:
        tokens = torch.randint(1000, 2000, (n_samples, TOKENS))
        return EncodedSplit({"input_ids": tokens}, labels, names)
    pixels = torch.randint(0, 256, (n_samples, 3, PIXELS, PIXELS), dtype=torch.uint8)
    half = (0.5, 0.5, 0.5)
    return EncodedSplit({"pixel_values": pixels}, labels, names, mean=half, std=half)


class Bench:
    """One model with its first blocks frozen.

    Args:
        subject: the model.
        n_frozen: so many blocks.
        pool: of the model.
        cache: of its prefixes.
        samples: to train on.
    """

    def __init__(
        self,
        subject: Subject,
        n_frozen: int,
        pool: BaseModelPool,
        cache: PrefixCache,
        samples: EncodedSplit,
    ) -> None:
        self.subject, self.n_frozen, self.pool, self.cache = subject, n_frozen, pool, cache
        self.samples = samples
        names = partition(pool.model).names
        self.config = BioTuneConfig(
            lr_multipliers=dict.fromkeys(names[n_frozen:], 1.0), saved_blocks=[]
        )
        self.args = default_training_arguments(
            use_cpu=True,
            num_train_epochs=1,
            per_device_train_batch_size=len(samples) // STEPS,
            logging_strategy="no",
            save_strategy="no",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=["labels"],
        )
        self.evaluator = FitnessEvaluator(
            pool, samples, samples, self.args, resolve_metric("accuracy"), StoppingRule(None)
        )

    def ours(self, cached: bool = False) -> float:
        """The loop of the search."""
        evaluator = self.evaluator
        evaluator._parts = 1
        evaluator._accelerator = accelerator_for(self.args)
        wrapped = get_biotune_model(self.pool.restore(0), self.config, keep_base_weights=False)
        training = BlockTraining(self.config)
        view = self.samples.view()
        model, optimizer, scheduler = evaluator._prepare(training, wrapped, len(view))
        model.train()
        forward = Forward(model, "cpu")
        if cached:
            forward = self.cache.forward(model, wrapped, 0, torch.device("cpu"))
            evaluator._make_ready(forward, view, view, 0)
        started = time.process_time()
        evaluator._epoch(forward, optimizer, scheduler, view, 0, 0)
        seconds = time.process_time() - started
        wrapped.merge_and_unload()
        return seconds / STEPS

    def plain(self, ideal: bool = False) -> float:
        """The same steps as people write them."""
        model = self.pool.restore(0)
        trained = self._freeze(model)
        stages = self.subject.stages(model)
        inputs = self._inputs()
        if ideal:
            with torch.no_grad():
                for stage in stages[: self.n_frozen]:
                    inputs = _tensor(stage(inputs))
            stages = stages[self.n_frozen :]
        optimizer = torch.optim.AdamW(trained, lr=1e-3, foreach=None, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        order = torch.randperm(len(self.samples))
        started = time.process_time()
        for rows in torch.split(order, len(order) // STEPS):
            x = inputs[rows] if ideal else self._batch(rows)
            for stage in stages:
                x = _tensor(stage(x))
            loss = nn.functional.cross_entropy(x, self.samples.labels[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return (time.process_time() - started) / STEPS

    def trainer(self) -> float:
        """Stock `Trainer` with our optimizer factory."""
        model = get_biotune_model(self.pool.restore(0), self.config, keep_base_weights=False)
        clock = _Clock()
        Trainer(
            model,
            self.args,
            train_dataset=self.samples,
            data_collator=default_data_collator,
            **biotune_trainer_kwargs(model, callbacks=[clock]),
        ).train()
        model.merge_and_unload()
        return clock.seconds / STEPS

    def _freeze(self, model: nn.Module) -> list[nn.Parameter]:
        model.train()
        names = partition(model)
        frozen = {n for block in names.blocks[: self.n_frozen] for n in block.parameters}
        for name, module in model.named_modules():
            block = names.block_of_module(name)
            if block in names.names[: self.n_frozen]:
                module.training = False
        trained = []
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
            if name not in frozen:
                trained.append(parameter)
        return trained

    def _batch(self, rows: torch.Tensor) -> torch.Tensor:
        inputs = self.samples.batch(rows)
        return inputs["input_ids" if self.subject.reads_text else "pixel_values"]

    def _inputs(self) -> torch.Tensor:
        return self._batch(torch.arange(len(self.samples)))


class _Clock(TrainerCallback):
    """CPU time from the beginning of the epoch to its end."""

    def on_epoch_begin(self, *args: object, **kwargs: object) -> None:
        self.started = time.process_time()

    def on_epoch_end(self, *args: object, **kwargs: object) -> None:
        self.seconds = time.process_time() - self.started


def _tensor(output: object) -> torch.Tensor:
    return output[0] if isinstance(output, tuple) else output


def measure(name: str, demo: Path, how: How) -> list[dict[str, object]]:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    subject = subjects(demo)[MODELS.index(name)]
    pool = BaseModelPool(subject.model_init)
    pool.model.to(memory_format=subject.layout)
    cache = PrefixCache(pool, memory=2**31)
    samples = samples_of(subject, how.batch)
    names = partition(pool.model).names
    assert len(subject.stages(pool.model)) == len(names), names
    rows: list[dict[str, object]] = []
    for n_frozen in chosen(len(names), how.boundaries):
        bench = Bench(subject, n_frozen, pool, cache, samples)
        ways: dict[str, Callable[[], float]] = {
            "ours": bench.ours,
            "plain": bench.plain,
            "trainer": bench.trainer,
        }
        if n_frozen:
            ways |= {
                "cached": lambda bench=bench: bench.ours(cached=True),
                "ideal": lambda bench=bench: bench.plain(ideal=True),
            }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(how.turns):
            # Each is first, and last, as often as the others.
            names_in_turn = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
            for name in names_in_turn:
                seconds[name].append(ways[name]())
        row: dict[str, object] = {
            "model": subject.name,
            "batch": how.batch,
            "steps": STEPS,
            "turns": how.turns,
            "first trained block": names[n_frozen],
            "frozen": n_frozen,
        }
        rows.append({**row, **{name: round(min(s), 6) for name, s in seconds.items()}})
        print(json.dumps(rows[-1]), flush=True)
    print(cache.statistics)
    return rows


def chosen(n_blocks: int, boundaries: int) -> list[int]:
    """So many first trained blocks, from the very first to the head."""
    return sorted({round(i * (n_blocks - 1) / (boundaries - 1)) for i in range(boundaries)})


def summary(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """What the project promises, by model; of whole series only."""
    found: dict[str, object] = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        # One share of all the steps: a single step of a head is noise.
        ours, plain = (sum(row[way] for row in of_model) for way in ("ours", "plain"))
        cached = [row for row in of_model if "cached" in row]
        if not cached:
            continue
        # Behind a head there is hardly anything to compare.
        blocks = cached[:-1] or cached
        found[model] = {
            "overhead of ours over plain": round(ours / plain - 1, 4),
            "overhead of Trainer over plain": round(
                sum(row["trainer"] for row in of_model) / plain - 1, 4
            ),
            "cached over ideal": round(
                sum(row["cached"] for row in blocks) / sum(row["ideal"] for row in blocks), 3
            ),
            "full over head only": round(of_model[0]["ours"] / cached[-1]["cached"], 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--boundaries", type=int, default=4)
    parser.add_argument("--rows", nargs="+", type=Path)
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if arguments.rows:
        lines = [line for path in arguments.rows for line in path.read_text().splitlines()]
        rows = [json.loads(line) for line in lines if line.startswith('{"model"')]
    else:
        how = How(arguments.batch, arguments.turns, arguments.boundaries)
        with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
            n = len(arguments.models)
            measured = pool.map(measure, arguments.models, [arguments.demo] * n, [how] * n)
            rows = [row for of_model in measured for row in of_model]
    report = {
        "settings": {"pixels": PIXELS, "tokens": TOKENS, "threads": 1},
        "summary": summary(rows),
        "rows": rows,
    }
    print(json.dumps(report["summary"], indent=1))
    save_results(arguments.output, report, PACKAGES)


if __name__ == "__main__":
    main()
