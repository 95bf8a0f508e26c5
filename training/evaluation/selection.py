"""Which shapes of a dataset a task evaluates, and whether model and dataset belong together."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from sdf_backend.errors import InputError
from sdf_backend.model.store import Model
from training.dataset import Dataset, ShapeRecord
from training.evaluation.tasks import PROTOCOL, Task

Item = TypeVar("Item")


def select_records(model: Model, dataset: Dataset, task: Task, count: int | None = None) -> list[ShapeRecord]:
    """Select the shapes of a task, evenly spaced over its split.

    Parameters
    ----------
    count : number of shapes; None for 16 training shapes or all test shapes

    Raises
    ------
    InputError : model and dataset differ in their front axis, the model was trained on test shapes or on none of the
        training shapes, or source meshes are missing
    """
    _check_front(model, dataset)
    records = _training_records(model, dataset) if task is Task.KNOWN else _test_records(model, dataset)
    records = evenly_spaced(records, count or (PROTOCOL.known_shapes if task is Task.KNOWN else len(records)))
    _check_meshes(records)
    return records


def select_references(model: Model, dataset: Dataset) -> dict[str, list[ShapeRecord]]:
    """The shapes that sampled ones are compared with, by split: test shapes, and training shapes without copies.

    Raises
    ------
    InputError : as `select_records`, and for fewer than two shapes in a split
    """
    _check_front(model, dataset)
    references = {"test": _test_records(model, dataset), "train": _training_records(model, dataset)}
    for split, records in references.items():
        if len(records) < 2:
            raise InputError(
                f"the split {split!r} of {dataset.folder} has {len(records)} shape; comparing collections needs two"
            )
    _check_meshes(references["train"])  # for the pictures
    return references


def _check_front(model: Model, dataset: Dataset) -> None:
    if model.card.front != dataset.front:
        raise InputError(
            f"the front axis of the model is {model.card.front}, that of {dataset.folder} is {dataset.front}; "
            "use the dataset that the model was trained on, or one prepared with the same axes"
        )


def _check_meshes(records: Sequence[ShapeRecord]) -> None:
    missing = [record for record in records if not Path(record.mesh).is_file()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(records)} source meshes are missing, the first is "
            f"{missing[0].mesh or missing[0].name}; they are the ground truth: restore them, or run prepare again"
        )


def evenly_spaced(records: Sequence[Item], count: int) -> list[Item]:
    """At most `count` of a sequence, evenly spaced from the first to the last."""
    if count >= len(records):
        return list(records)
    return [records[index] for index in np.linspace(0, len(records) - 1, count).round().astype(int)]


def _training_records(model: Model, dataset: Dataset) -> list[ShapeRecord]:
    """Training shapes of the model, without deformed copies: these have no source mesh."""
    trained = set(model.card.shapes)
    records = [record for record in dataset.split("train") if record.name in trained and not record.copy_of]
    if not records:
        raise InputError(
            f"the model {model.card.name} was trained on no shape of {dataset.folder}; use its own dataset"
        )
    return records


def _test_records(model: Model, dataset: Dataset) -> list[ShapeRecord]:
    trained = set(model.card.shapes)
    records = dataset.split("test")
    leaked = [record.name for record in records if record.name in trained]
    if leaked:
        raise InputError(
            f"the model {model.card.name} was trained on {len(leaked)} of the {len(records)} test shapes of "
            f"{dataset.folder}, such as {leaked[0]}; results on them would not be held-out results"
        )
    return records
