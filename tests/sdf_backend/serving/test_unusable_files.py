"""One bad file costs itself alone: a backend goes on whatever lies in its folders."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from backend_process import Backend, complete, until, until_logged
from safetensors.torch import load_file, save_file

from sdf_backend.model.store import FORMAT, Model
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
            with pytest.raises(Exception, match=f"{name}.safetensors"):
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
