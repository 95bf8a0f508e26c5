"""One bad file costs itself alone: a backend goes on whatever lies in its folders."""

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from backend_process import Backend, complete, until, until_logged
from safetensors.torch import load_file, save_file

from sdf_backend.model.store import FORMAT, Model
from sdf_backend.wire.client import ClientError
from sdf_backend.wire.messages import Result


@pytest.fixture
def models(models_folder: Path, tmp_path: Path) -> Path:
    """A folder with one good model."""
    shutil.copytree(models_folder, tmp_path / "models")
    return tmp_path / "models"


@pytest.fixture
def backend(models: Path, tmp_path: Path) -> Iterator[Backend]:
    with Backend(tmp_path / "backend", "--models", models, "--cache", tmp_path / "cache") as backend:
        backend.until_idle()
        yield backend
    assert "Traceback" not in backend.log()


def spoil(models: Path, spheres: Model) -> set[str]:
    """Put unusable models into a folder; returns their names."""
    card = json.dumps(asdict(spheres.card))
    cards = {
        "text": card.replace('"code_length": 3', '"code_length": "3"'),
        "null": card.replace('"code_length": 3', '"code_length": null'),
        "infinite": card.replace('"code_length": 3', '"code_length": Infinity'),
        "lacking": card.replace('"code_length": 3, ', ""),
        "nameless": card.replace('"name": "spheres"', '"name": 4'),
        "nested": card.replace('"training": {}', '"training": {"a": ' + "[" * 100_000 + "]" * 100_000 + "}"),
        "wide": card.replace('"width": 48', '"width": 8000'),
        "deep": card.replace('"layers": 4', '"layers": 100000'),
    }
    tensors = load_file(models / "spheres.safetensors")
    for name, content in cards.items():
        assert content != card
        save_file(tensors, models / f"{name}.safetensors", {"format": FORMAT, "card": content})
    os.mkfifo(models / "pipe.safetensors")
    (models / "zeros.safetensors").symlink_to("/dev/zero")
    os.truncate(os.open(models / "huge.safetensors", os.O_CREAT | os.O_WRONLY), 100 << 30)
    (models / "folder.safetensors").mkdir()
    (models / "\x1b[31m\udcff.safetensors").write_bytes(b"\x1b]0;owned\x07")
    return {*cards, "pipe", "zeros", "huge", "folder"}


def test_unusable_models_dropped_into_the_folder_of_a_serving_backend_cost_themselves_alone(
    backend: Backend, models: Path, spheres: Model
) -> None:
    with backend.client() as client:
        worker = backend.worker()
        names = spoil(models, spheres)
        until(lambda: names <= {model.name for model in backend.status().models}, "the new models")
        assert isinstance(client.run(complete()), Result)
        problems = {model.name: model.problem for model in backend.status().models}
        assert not problems["spheres"] and not problems["airplanes"]
        assert all(problems[name] for name in names), problems
        for name in names:
            with pytest.raises(ClientError, match=f"{name}.safetensors"):
                client.run(complete(model=name))
        until_logged(backend, "model unusable", "model=pipe", "is a pipe, a socket or a device")
        after = backend.worker()
        assert after.pid == worker.pid
        assert after.memory_bytes < worker.memory_bytes + (200 << 20)


def test_a_backend_starts_with_unusable_models_in_its_folder(models: Path, spheres: Model, tmp_path: Path) -> None:
    spoil(models, spheres)
    for number in range(3000):
        (models / f"{number:0200d}.safetensors").write_bytes(b"not a model")
    with Backend(tmp_path / "backend", "--models", models) as backend, backend.client() as client:
        assert isinstance(client.run(complete()), Result)
        assert "spheres" in {model.name for model in backend.status().models if not model.problem}
        assert "Traceback" not in backend.log() and "lost" not in backend.log()


def foreign(entry: Path) -> None:
    save_file({"other": torch.zeros(3)}, entry)


def not_finite(entry: Path) -> None:
    """What this program would store, but for the numbers."""
    tensors = load_file(entry)
    save_file({n: v * torch.nan if v.dtype.is_floating_point else v for n, v in tensors.items()}, entry)


def one_bit_flipped(entry: Path) -> None:
    content = bytearray(entry.read_bytes())
    content[-100] ^= 1
    entry.write_bytes(content)


def cut(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes()[:-50])


def pipe(entry: Path) -> None:
    entry.unlink()
    os.mkfifo(entry)


def zeros(entry: Path) -> None:
    entry.unlink()
    entry.symlink_to("/dev/zero")


def huge(entry: Path) -> None:
    os.truncate(entry, 100 << 30)


def of_another_user(entry: Path) -> None:
    os.chown(entry, 4711, 4711)


def of_another_key(entry: Path) -> None:
    """Entries change places."""
    names = sorted(entry.parent.iterdir())
    entry.write_bytes(names[(names.index(entry) + 1) % len(names)].read_bytes())


def no_sources(entry: Path) -> None:
    save_file({"count": torch.zeros(1, dtype=torch.int64)}, entry)


DAMAGES = [foreign, not_finite, one_bit_flipped, cut, pipe, zeros, huge, of_another_key, no_sources]
if os.geteuid() == 0:
    DAMAGES.append(of_another_user)


def test_damaged_and_foreign_cache_entries_are_dropped_and_computed_anew(backend: Backend, tmp_path: Path) -> None:
    with backend.client() as client:
        first = client.run(complete())
        assert not first.cached and client.run(complete()).cached
        entries = sorted((tmp_path / "cache").iterdir())
        assert len(entries) == 3  # a fit, its preview and its mesh
        for damage in DAMAGES:
            memory = backend.until_idle().memory_bytes
            for entry in entries:
                damage(entry)
            again = client.run(complete())
            assert backend.until_idle().memory_bytes < memory + (100 << 20)
            assert not again.cached, damage.__name__
            np.testing.assert_array_equal(again.shapes[0].vertices, first.shapes[0].vertices)
            assert client.run(complete()).cached, damage.__name__


def test_cache_entries_are_private(backend: Backend, tmp_path: Path) -> None:
    with backend.client() as client:
        client.run(complete())
    assert {entry.stat().st_mode & 0o777 for entry in (tmp_path / "cache").iterdir()} == {0o600}


def test_shipped_models_outlive_the_models_folder_and_their_worker(backend: Backend, models: Path) -> None:
    sample = {"task": "sample", "count": 1, "sources": ()}
    with backend.client() as client:
        worker = backend.until_idle()
        shutil.move(models, models.with_name("elsewhere"))
        until(lambda: "spheres" not in {model.name for model in backend.status().models}, "models are gone")
        assert isinstance(client.run(complete(model="airplanes", **sample)), Result)
        os.kill(worker.pid, signal.SIGKILL)
        assert isinstance(client.run(complete(model="airplanes", **sample)), Result)
        with pytest.raises(ClientError, match="unknown model 'spheres'"):
            client.run(complete())
        until_logged(backend, "models folder missing", str(models))
        shutil.move(models.with_name("elsewhere"), models)
        assert isinstance(client.run(complete()), Result)
