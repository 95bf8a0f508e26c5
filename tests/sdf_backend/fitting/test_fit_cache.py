"""Encodings in the cache, and the keys by which they are found."""

from dataclasses import fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from sdf_backend.content_cache import ContentCache
from sdf_backend.fitting import fit_cache
from sdf_backend.fitting.encoding import Encoding
from sdf_backend.fitting.fit_cache import fit_key, load_encoding, relevant_settings, store_encoding
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.observation.sources import Source, observe_solid, observe_surface
from sdf_backend.settings import TaskSettings


def encoding(seed: int) -> Encoding:
    rng = np.random.default_rng(seed)
    return Encoding(
        rng.normal(size=4).astype(np.float32),
        rng.normal(size=(4, 4)).astype(np.float32),
        Similarity(float(rng.uniform(0.1, 9)), Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)),
        0.01,
        0.9,
        22,
        rng.normal(size=(30, 3)),
        np.stack([np.arange(5), rng.normal(size=5)], axis=1).astype(np.float32),
        noise=0.001 * seed if seed else None,
        solid=bool(seed % 2),
        confidence=float(rng.uniform()),
    )


def same(one: Encoding, other: Encoding) -> bool:
    arrays = ("code", "covariance_root", "surface", "refinement")
    numbers = ("residual", "explained", "steps", "noise", "solid", "confidence")
    return (
        all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
        and all(getattr(one, name) == getattr(other, name) for name in numbers)
        and np.array_equal(one.pose.apply(np.eye(3)), other.pose.apply(np.eye(3)))
    )


def test_a_stored_encoding_is_loaded_with_its_alternatives(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path)
    kept = replace(encoding(0), alternatives=(encoding(1), encoding(2)))
    store_encoding(cache, "a" * 40, kept)
    found = load_encoding(cache, "a" * 40)
    assert found is not None and same(found, kept) and len(found.alternatives) == 2
    assert all(same(one, other) for one, other in zip(found.alternatives, kept.alternatives, strict=True))
    assert load_encoding(cache, "b" * 40) is None


def test_without_a_cache_nothing_is_stored() -> None:
    store_encoding(None, "a" * 40, encoding(0))
    assert load_encoding(None, "a" * 40) is None


SOURCE = Source(Geometry(np.arange(30.0).reshape(10, 3), np.zeros((0, 3), dtype=np.int64)))


def key(settings: TaskSettings = TaskSettings(), source: Source = SOURCE, **rest: Any) -> str:
    return fit_key(source, settings, **{"observe": observe_surface, "model_digest": "a", "device_type": "cpu"} | rest)


def test_the_key_depends_on_all_that_decides_a_fit_and_on_nothing_else() -> None:
    moved = replace(SOURCE, geometry=replace(SOURCE.geometry, vertices=SOURCE.geometry.vertices + 1))
    keys = [
        key(),
        key(source=moved),
        key(source=replace(SOURCE, sensor=np.zeros(3))),
        key(observe=observe_solid),
        key(model_digest="b"),
        key(device_type="cuda"),
        *(key(TaskSettings(**asked)) for asked in ({"pose": "free"}, {"up": "+x"}, {"quality": "fine"})),
    ]
    assert len(set(keys)) == len(keys)
    assert key(TaskSettings(resolution=64, seed=3, refine=0.5, candidates=4)) == key()


def changes(value: Any) -> list[Any]:
    """The value with each number, flag and choice in it changed, one at a time, however deep it lies."""
    match value:
        case _ if is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in fields(value)]
            return [replace(value, **{name: one}) for name in names for one in changes(getattr(value, name))]
        case tuple() | list():
            kind = type(value)
            return [
                kind([*value[:at], one, *value[at + 1 :]]) for at in range(len(value)) for one in changes(value[at])
            ]
        case bool():
            return [not value]
        case int() | float():
            return [value + 1]
        case torch.dtype():
            return [torch.float64]
        case Enum() | None:
            return []
    raise TypeError(f"no change is known for {value!r}")


def test_every_change_of_a_setting_of_a_fit_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before, decisive = key(), relevant_settings(TaskSettings())
    altered = changes(list(decisive))
    assert len(altered) > 60
    keys = {before}
    for one in altered:
        monkeypatch.setattr(fit_cache, "relevant_settings", lambda settings, one=one: tuple(one))
        keys.add(key())
    assert len(keys) == 1 + len(altered)
    monkeypatch.setattr(fit_cache, "relevant_settings", lambda settings: decisive)
    assert key() == before
    monkeypatch.setattr(fit_cache, "FIT_FORMAT", fit_cache.FIT_FORMAT + 1)
    assert key() != before
