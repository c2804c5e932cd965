"""`tune`: the whole job. Search, fine-tune the winner, compare it with what people do, report."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
from torch import nn
from transformers import TrainingArguments

from .baselines import baseline_config
from .blocks import BlockSpec
from .comparison import (
    ON_ALL,
    OURS,
    RETRAIN,
    best_run,
    final_runs,
    frame_of,
    kept_runs,
    row_of,
    row_of_ensemble,
    runs_on_all,
)
from .config import BioTuneConfig
from .exceptions import ConfigError
from .findings import Provenance, facts_of, report_data_of
from .report import write_model_card, write_report
from .search import (
    DataSplits,
    EncodedSplit,
    FineTuner,
    FineTuneResult,
    SearchConfig,
    SearchListener,
    SearchResult,
    StoppingRule,
    biotune_search,
    resolve_metric,
)
from .search.output_directory import ADAPTER_NAME
from .search.search_config import starting_statistics
from .search.storages import STUDY_NAME
from .search.team import check_is_no_team
from .tested import predictions_of

COMPARED = ("linear probe", "full fine-tuning")


@dataclass(frozen=True)
class TuneResult:
    """What [`tune`] made.

    Args:
        search: what the search found.
        comparison: one row per method; see [`ReportData`].
        adapter: the directory of the winner's adapter.
        report: the path of `report.html`.
        ensemble: the directory of the ensemble, if one was asked for.
    """

    search: SearchResult
    comparison: pd.DataFrame = field(repr=False)
    adapter: Path
    report: Path
    ensemble: Path | None = None


def tune(
    model_init: Callable[[], nn.Module],
    data: DataSplits,
    args: TrainingArguments,
    search: SearchConfig | None = None,
    *,
    blocks: BlockSpec = "auto",
    storage: str | None = None,
    study_name: str = STUDY_NAME,
    workers: int = 1,
    backend: str = "processes",
    final_seeds: Sequence[int] | None = None,
    retrain: str = "train",
    ensemble: int = 0,
    provenance: Provenance | None = None,
    listener: SearchListener | None = None,
) -> TuneResult:
    """Search, fine-tune the winner with `Trainer`, compare, save and report.

    Everything is written to `args.output_dir`: see [`write_search`] and [`write_report`].

    Args:
        model_init: makes the pre-trained model, as for `Trainer`.
        data: training, validation and test samples. The test samples are looked at once, when a
            final model is finished; without them the comparison is by validation score.
        args: of every training, search and final alike.
        search: default `SearchConfig()`.
        blocks: see [`partition`].
        storage: of the study; default: a journal file in `args.output_dir`.
        study_name: in that storage.
        workers: see [`biotune_search`]. The final trainings are done by this process.
        backend: who runs the workers; see [`biotune_search`].
        final_seeds: of the final trainings. Default: the seeds of the search.
        retrain: what the winner is trained on once more, for its comparison and its adapter:

            - `"none"`: nothing. Its weights are those that the search kept. The methods that it is
              compared with are trained with the same seeds.
            - `"train"` (default): the training samples, as the other methods are.
            - `"train+validation"`: both, after the trainings of `"train"`, which tell for how many
              epochs. It has a row of its own in the comparison, since no other method is trained
              on validation samples.
        ensemble: how many of the best individuals to save as one model besides, in the directory
            `ensemble`, with a row of its own. 0 (default): none. It needs no training.
        provenance: for the report.
        listener: is told what happens.

    Raises:
        ConfigError: `retrain` is none of these, or it or `ensemble` needs weights that the search
            does not keep.
    """
    check_is_no_team("tune (hf-biotune search)")
    search, listener = search or SearchConfig(), listener or SearchListener()
    _check_final(search, retrain, ensemble, final_seeds)
    provenance = provenance or Provenance("the model", data.name, "")
    result = biotune_search(
        model_init,
        data.train,
        data.validation,
        args,
        search,
        blocks=blocks,
        storage=storage,
        study_name=study_name,
        workers=workers,
        backend=backend,
        listener=listener,
    )
    directory = Path(args.output_dir)
    # Beside the adapter of an earlier winner, the new one's configuration waits for its own.
    is_first = not (directory / ADAPTER_NAME).is_dir()
    if is_first:
        write_search(result, directory, provenance.command)
    tuner = FineTuner(
        model_init,
        data,
        args,
        resolve_metric(search.metric, search.greater_is_better),
        StoppingRule(search.patience, search.patience_from),
        result.execution,
    )
    # Before hours of trainings: it may be that fewer individuals were trained to their end.
    members = result.ensemble(ensemble) if ensemble else None
    finals = _finals(result, tuner, search, retrain, final_seeds, listener, args.learning_rate)
    together = None
    if members is not None:
        together = directory / "ensemble"
        finals.rows.append(row_of_ensemble(members, tuner, result, args.learning_rate))
        for member in members.members:
            _name_base(member.config, provenance)
        members.save_pretrained(together)
    comparison = frame_of(finals.rows)
    comparison.to_json(directory / "comparison.json", orient="records", indent=2)
    _name_base(finals.saved.model.active_peft_config, provenance)
    adapter = directory / ADAPTER_NAME
    finals.saved.model.save_pretrained(adapter)
    if not is_first:
        write_search(result, directory, provenance.command)
    facts = facts_of(result, args, search) | {"saved adapter": finals.description}
    page = report_data_of(result, comparison, facts, search, provenance, data.train)
    if data.test is not None and finals.saved.test_logits is not None:
        page = replace(page, predictions=predictions_of(finals.saved.test_logits, data.test))
    report = write_report(directory, page)
    write_model_card(
        directory,
        page,
        base_model=provenance.model_id,
        task=provenance.task,
        # The scores of these weights are in no other row than their own.
        seed=None if retrain == "train+validation" else finals.saved.seed,
    )
    return TuneResult(result, comparison, adapter, report, together)


@dataclass(frozen=True)
class _Finals:
    """The rows of the comparison, and the model to save, with where it comes from."""

    rows: list[dict[str, object]]
    saved: FineTuneResult
    description: str


def _finals(
    result: SearchResult,
    tuner: FineTuner,
    search: SearchConfig,
    retrain: str,
    final_seeds: Sequence[int] | None,
    listener: SearchListener,
    lr: float,
) -> _Finals:
    """Train what is compared."""
    is_kept = retrain == "none"
    seeds = tuple(final_seeds or (result.kept_seeds if is_kept else search.seeds))
    config = result.best_config
    # First: what is missing is missed before the others are trained.
    runs = kept_runs(result, tuner, seeds) if is_kept else []
    for run in runs:
        run.model.cpu()  # the others want the memory
    rows = []
    for name in COMPARED:
        mode = starting_statistics(search.norm_statistics)
        rival = baseline_config(name, result.partition, norm_statistics=mode)
        of_rival = final_runs(name, rival, tuner, seeds, listener)
        rows.append(row_of(name, rival, of_rival, result, lr))
    runs = runs or final_runs(OURS, config, tuner, seeds, listener)
    rows.append(row_of(OURS, config, runs, result, lr, is_kept=is_kept))
    saved = best_run(runs, resolve_metric(search.metric, search.greater_is_better))
    if is_kept:
        what = "as the search trained it; the compared methods were trained anew, by Trainer"
    elif retrain == "train":
        what = "trained anew, by Trainer, as the compared methods"
    else:
        runs = runs_on_all(result, tuner, runs, listener)
        rows.append(row_of(ON_ALL, config, runs, result, lr))
        saved = runs[0]
        what = f"trained anew on training and validation samples, for {saved.epochs} epochs"
    return _Finals(rows, saved, f"the winner with seed {saved.seed}, {what}")


def _name_base(config: BioTuneConfig, provenance: Provenance) -> None:
    """Where the base model came from, if that is known better than by the model itself."""
    if provenance.model_id is not None:
        config.base_model_name_or_path = provenance.model_id


def _check_final(
    search: SearchConfig, retrain: str, ensemble: int, final_seeds: Sequence[int] | None
) -> None:
    """Before the search, which may take hours."""
    if retrain not in RETRAIN:
        raise ConfigError(f"retrain must be one of {', '.join(RETRAIN)}, got {retrain!r}")
    if isinstance(ensemble, bool) or not isinstance(ensemble, int) or ensemble < 0:
        raise ConfigError(f"ensemble must be an integer of at least 0, got {ensemble!r}")
    if not search.keep_best and (retrain == "none" or ensemble):
        raise ConfigError(
            f"retrain={retrain!r} with ensemble={ensemble} needs weights that the search kept, but "
            f"keep_best=0; give keep_best=1 or more"
        )
    if ensemble > max(search.keep_best, search.n_finalists):
        raise ConfigError(
            f"ensemble={ensemble} needs as many kept individuals, but keep_best="
            f"{search.keep_best}; give a larger keep_best"
        )
    known = search.seeds if search.n_finalists else search.seeds[: search.seeds_per_individual]
    if retrain == "none" and not set(final_seeds or ()) <= set(known):
        raise ConfigError(
            f"retrain='none' compares models that the search trained, with the seeds "
            f"{', '.join(map(str, known))}, but final_seeds={tuple(final_seeds or ())}; leave one "
            f"of the two out"
        )


def write_search(result: SearchResult, directory: Path, command: str = "") -> None:
    """Write `best_config.json`, `history.csv`, and `reproduce.sh` if the command is known.

    Args:
        result: of a search.
        directory: made if needed.
        command: the line that runs it again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = result.best_config.to_dict()
    (directory / "best_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    result.history.to_csv(directory / "history.csv", index=False)
    if command:
        (directory / "reproduce.sh").write_text(f"#!/bin/sh\n{command}\n")


def write_search_report(
    result: SearchResult,
    args: TrainingArguments,
    search: SearchConfig,
    provenance: Provenance,
    samples: EncodedSplit,
) -> Path:
    """Write the report of a search alone, without final models, into `args.output_dir`.

    Args:
        result: of the search.
        args: of its trainings.
        search: its settings.
        provenance: where it came from.
        samples: of the training.

    Returns:
        The path of `report.html`.
    """
    facts = facts_of(result, args, search, has_finals=False)
    page = report_data_of(result, None, facts, search, provenance, samples)
    return write_report(args.output_dir, page)


def read_config(path: str | Path) -> BioTuneConfig:
    """A configuration from `best_config.json`.

    Raises:
        ConfigError: there is no such file, or it holds no configuration.
    """
    return BioTuneConfig.from_peft_type(**BioTuneConfig.from_json_file(path))
