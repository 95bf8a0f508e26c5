"""A model file for evaluations."""

from pathlib import Path

import pytest

from sdf_backend.model.store import Model, save_model


@pytest.fixture
def model(spheres: Model, tmp_path: Path) -> str:
    """A model file that tests may overwrite."""
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    return str(path)
