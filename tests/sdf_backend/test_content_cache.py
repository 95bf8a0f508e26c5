"""The content cache: arrays come back unchanged, and faulty files never stop a task."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from sdf_backend.content_cache import ContentCache, content_key

ARRAYS = {"vertices": np.arange(6, dtype=np.float64).reshape(2, 3), "faces": np.zeros((0, 3), dtype=np.int64)}


def test_stored_arrays_are_read_by_another_cache_on_the_same_folder(tmp_path: Path) -> None:
    ContentCache(tmp_path).put("key", ARRAYS)
    found = ContentCache(tmp_path).get("key")
    assert found is not None and found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_an_unknown_key_has_no_entry(tmp_path: Path) -> None:
    assert ContentCache(tmp_path / "not yet there").get("key") is None


def test_a_damaged_entry_is_logged_and_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = ContentCache(tmp_path)
    cache.put("key", ARRAYS)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-9])
    assert cache.get("key") is None and "unreadable" in caplog.text
    assert not path.exists()


def test_an_entry_that_cannot_be_written_is_logged_and_not_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = ContentCache(tmp_path / "file")
    cache.put("key", ARRAYS)
    assert cache.get("key") is None and "cache write failed" in caplog.text


def test_the_least_recently_used_entries_are_evicted_when_the_cache_is_full(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, limit=4_500)
    array = {"a": np.zeros(1_000, dtype=np.uint8)}
    for age, key in enumerate(["first", "second", "third"]):
        cache.put(key, array)
        os.utime(tmp_path / f"{key}.safetensors", (1_000 + age, 1_000 + age))
    assert cache.get("first") is not None  # now the most recently used
    cache.put("fourth", array)
    cache.put("fifth", array)
    held = {path.stem for path in tmp_path.iterdir()}
    assert "second" not in held and {"first", "fourth", "fifth"} <= held
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 4_500


def test_keys_differ_by_value_dtype_shape_and_position() -> None:
    array = np.arange(6, dtype=np.float32)
    keys = [
        content_key("a", array),
        content_key("a", array + 1),
        content_key("a", array.reshape(2, 3)),
        content_key("a", array.view(np.int32)),
        content_key("a", array, None),
        content_key("a", None, array),
        content_key("b", array),
    ]
    assert len(set(keys)) == len(keys)
    assert content_key("a", array[::2]) == content_key("a", array[::2].copy())


@dataclass(frozen=True)
class Inner:
    steps: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    weight: float = 0.5


@dataclass(frozen=True)
class Twin:
    inner: Inner = Inner()
    weight: float = 0.5


def test_keys_hash_dataclasses_by_class_and_nested_fields() -> None:
    same = content_key(Outer())
    assert same == content_key(Outer(Inner((1, 2)), 0.5))
    different = [replace(Outer(), weight=0.25), Outer(Inner((1, 3))), Twin()]
    assert len({same, *map(content_key, different)}) == 4
