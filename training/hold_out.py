"""A dataset for choosing settings: some training families play the test shapes, and those are out of sight."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

from sdf_backend.errors import InputError
from training.dataset import Dataset, ShapeRecord


def hold_out(dataset: Dataset, families: set[str], output: Path) -> Dataset:
    """A dataset in `output` whose test shapes are the originals of `families`, and which lacks the real test shapes.

    Shapes are linked where the file system can, else copied. Raises `InputError` for families that are not there, and
    for a folder that holds something already.
    """
    training = [record for record in dataset.records if record.split == "train"]
    if missing := families - {record.family for record in training}:
        raise InputError(f"{dataset.folder} has no training family {', '.join(sorted(missing))}")
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output} is not empty; name a new folder")
    records = [_placed(record, families) for record in training if not (record.family in families and record.copy_of)]
    held = replace(dataset, folder=output, records=records)
    held.path("").parent.mkdir(parents=True, exist_ok=True)
    for record in records:
        _link(dataset.path(record.name), held.path(record.name))
    held.save()
    return held


def _placed(record: ShapeRecord, families: set[str]) -> ShapeRecord:
    return replace(record, split="test") if record.family in families else record


def _link(source: Path, target: Path) -> None:
    if not source.exists():  # a mesh that could not be used
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
