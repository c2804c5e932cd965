"""The options of a run that has not ended, for its report."""

from __future__ import annotations

from pathlib import Path

from hf_biotune.blocks import partition
from hf_biotune.report import ReportData
from hf_biotune.search.models import architecture
from hf_biotune.search.storages import STUDY_NAME
from hf_biotune.unfinished import unfinished_report_data

from .run import block_spec
from .run_file import options_of_run


def data_of_run(output_dir: Path, storage: str | None) -> ReportData:
    """What the report of a search shows that has not ended.

    Args:
        output_dir: of the search.
        storage: of its study. Default: as it was started.
    """
    options = options_of_run(output_dir)
    blocks = partition(architecture(options["model"]), block_spec(options.get("blocks", "auto")))
    return unfinished_report_data(
        output_dir,
        blocks,
        model=Path(options["model"]).name,
        dataset=Path(options["dataset"]).name,
        command=options["command"],
        metric=[*options.get("objective", ()), options.get("metric", "macro_accuracy")][0],
        learning_rate=options.get("learning_rate"),
        storage=storage or options.get("storage"),
        study_name=options.get("study_name", STUDY_NAME),
    )
