"""Puts a trained model among those that ship, once it is measured, small enough and free to be passed on."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write, check_folder
from sdf_backend.model.card import ModelCard
from sdf_backend.model.store import SUFFIX, load_model
from training.data_card import write_data_card
from training.evaluation.tasks import Task
from training.licences import check_licence, check_together

MEASURED = (Task.UNKNOWN, Task.COMPLETE)


@dataclass(frozen=True)
class ShipLimits:
    """How large the models that ship may be: what a user downloads with the package."""

    file_bytes: int = 8_000_000
    """of one model"""
    total_bytes: int = 40_000_000
    """of all models of the folder together"""


def ship(path: Path, folder: Path, limits: ShipLimits | None = None) -> Path:
    """Copy a model into `folder`, in place of the one of its name, and write its data card beside it.

    Parameters
    ----------
    path : a model file, CATEGORY.safetensors
    folder : that of the models that ship
    limits : None for the default

    Returns
    -------
    shipped : path of the copy

    Raises
    ------
    InputError : the file is damaged, has another name than its card, or is too large, alone or with those that are
        there; it was not measured; or its data has a licence under which it could not be shipped
    """
    limits = limits or ShipLimits()
    model = load_model(path)
    _check_card(model.card, path)
    size = path.stat().st_size
    _check_size(path, size, folder, limits)
    check_folder(folder)
    shipped = folder / path.name
    with atomic_write(shipped) as temporary:
        shutil.copyfile(path, temporary)
    write_data_card(shipped.with_suffix(".md"), model, size)
    return shipped


def _check_card(card: ModelCard, path: Path) -> None:
    if path.stem != card.name:
        raise InputError(f"{path} is a model of {card.name}; name it {card.name}{SUFFIX}")
    if "prepared_with" not in card.training:
        raise InputError(f"{path} was not made by train, so that nothing is known of its data; ship one that was")
    if missing := [task for task in MEASURED if task not in card.accuracy]:
        raise InputError(f"{path} was not measured; run evaluate --record with --task {' and --task '.join(missing)}")
    for source in card.sources:
        check_licence(source["licence"], "train", f"a source of {path}, {source.get('creator', 'of no creator')},")
    check_together({source["licence"] for source in card.sources}, card.name)


def _check_size(path: Path, size: int, folder: Path, limits: ShipLimits) -> None:
    if size > limits.file_bytes:
        raise InputError(
            f"{path} has {size / 1e6:.1f} MB, more than the {limits.file_bytes / 1e6:g} MB that a model may ship with; "
            "train a smaller decoder or shorter codes"
        )
    others = [other for other in folder.glob(f"[!.]*{SUFFIX}") if other.name != path.name]
    total = size + sum(other.stat().st_size for other in others)
    if total > limits.total_bytes:
        raise InputError(
            f"with {path} the {len(others) + 1} models of {folder} have {total / 1e6:.1f} MB, more than the "
            f"{limits.total_bytes / 1e6:g} MB that may ship; train smaller ones, or remove one"
        )
