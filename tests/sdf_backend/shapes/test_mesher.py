"""The keys of cached meshes change with every setting that decides a mesh, and with nothing else."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from sdf_backend.model.store import Model, ModelStore, load_model
from sdf_backend.shapes import mesher as module
from sdf_backend.shapes.mesher import Mesher, MesherSettings

CODE = np.zeros((1, 3), dtype=np.float32)
REPLACED = {"resolution", "clamp", "batch"}  # by those of the task, the model and the device
DECIDING = [
    (group.name, setting.name)
    for group in fields(MesherSettings)
    for setting in fields(getattr(MesherSettings(), group.name))
    if setting.name not in REPLACED
]


@pytest.fixture
def model(models_folder) -> Model:
    return load_model(ModelStore(models_folder).find("spheres"), "cpu")


def changed(value: Any) -> Any:
    return (*value, 0.5) if isinstance(value, tuple) else value + 1


def key_of(model: Model, settings: MesherSettings) -> str:
    return Mesher(model, "digest", None, settings).cache_key("mesh", 64, CODE, None)


@pytest.mark.parametrize(("group", "name"), DECIDING)
def test_a_changed_setting_changes_the_key(model: Model, group: str, name: str) -> None:
    before = getattr(MesherSettings(), group)
    after = replace(before, **{name: changed(getattr(before, name))})
    assert key_of(model, replace(MesherSettings(), **{group: after})) != key_of(model, MesherSettings())


def test_the_batch_does_not_change_the_key(model: Model) -> None:
    """All devices share a cache."""
    extraction = replace(MesherSettings().extraction, batch=100)
    assert key_of(model, MesherSettings(extraction=extraction)) == key_of(model, MesherSettings())


def test_equal_settings_give_equal_keys_and_other_content_another(model: Model) -> None:
    mesher = Mesher(model, "digest", None)
    key = mesher.cache_key("mesh", 64, CODE, None)
    assert key == Mesher(model, "digest", None).cache_key("mesh", 64, CODE, None)
    others = [
        mesher.cache_key("interpolation", 64, CODE, None),
        mesher.cache_key("mesh", 65, CODE, None),
        mesher.cache_key("mesh", 64, CODE + 1, None),
        mesher.cache_key("mesh", 64, CODE, np.zeros((1, 2), dtype=np.float32)),
        Mesher(model, "other", None).cache_key("mesh", 64, CODE, None),
    ]
    assert len({key, *others}) == 1 + len(others)


def test_a_new_format_changes_the_key(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key_of(model, MesherSettings())
    monkeypatch.setattr(module, "MESH_FORMAT", module.MESH_FORMAT + 1)
    assert key_of(model, MesherSettings()) != before
