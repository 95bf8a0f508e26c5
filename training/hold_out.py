"""Makes a validation dataset: held-out training families become the test split; the real test split is left out."""

from dataclasses import replace
from pathlib import Path

from sdf_backend.errors import InputError
from training.dataset import Dataset, ShapeRecord
from training.store import link, link_parts


def hold_out(dataset: Dataset, families: set[str], output: Path) -> Dataset:
    """Write a dataset for choosing settings, without any of the test shapes.

    Its test split holds the originals of the held-out families; deformed copies of these are left out. Files of samples
    are hard links where the file system allows, copies otherwise; what is packed beside them is listed no longer.

    Parameters
    ----------
    families : of training shapes
    output : a new or empty folder

    Raises
    ------
    InputError : an unknown family, or an output folder that is not empty
    """
    training = [record for record in dataset.records if record.split == "train"]
    if missing := families - {record.family for record in training}:
        raise InputError(f"{dataset.folder} has no training family {', '.join(sorted(missing))}")
    if output.exists() and any(output.iterdir()):
        raise InputError(f"{output} is not empty; choose a new folder")
    records = [
        _with_split(record, families) for record in training if not (record.family in families and record.copy_of)
    ]
    held = replace(dataset, folder=output, records=records)
    held.path("").parent.mkdir(parents=True, exist_ok=True)
    for record in records:
        if dataset.path(record.name).exists():
            link(dataset.path(record.name), held.path(record.name))
    link_parts(dataset.store.folder, output / dataset.store.folder.name, {record.name for record in records})
    held.save()
    return held


def _with_split(record: ShapeRecord, families: set[str]) -> ShapeRecord:
    return replace(record, split="test") if record.family in families else record
