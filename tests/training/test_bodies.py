"""Bodies, with a stub for the parametric body model, which is large."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sdf_backend.errors import InputError
from training import bodies
from training.bodies import PAIRS, SINGLE, TEST_EVERY, write_bodies
from training.catalog import Layout, list_meshes, read_mesh

LABELS = ["gender", "age", "muscle", "weight"]


class Figure:
    """A stub that returns a tetrahedron whose corners encode the phenotype."""

    phenotype_labels = LABELS
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])

    def __init__(self) -> None:
        self.poses: list[dict[str, torch.Tensor]] = []

    def __call__(self, pose_parameters: dict[str, torch.Tensor], phenotype_kwargs: dict[str, torch.Tensor]) -> Any:
        self.poses.append(pose_parameters)
        values = torch.stack([phenotype_kwargs[label] for label in LABELS], dim=1)
        corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        return {"vertices": corners[None] * (1 + values[:, :, None])}


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Figure:
    made = Figure()
    monkeypatch.setattr(bodies, "_load", lambda: made)
    return made


def test_bodies_are_written_with_their_credits(figure: Figure, tmp_path: Path) -> None:
    done: list[tuple[str, bool]] = []
    write_bodies(tmp_path, 60, report=lambda *piece: done.append(piece))
    assert done == [(f"body-{number:04d}", False) for number in range(60)]
    sources = json.loads((tmp_path / "sources.json").read_text())
    assert {path.stem for path in tmp_path.glob("*.ply")} == {source["name"] for source in sources}
    assert [source["name"] for source in sources if source["split"] == "test"] == [
        f"body-{number:04d}" for number in range(0, 60, TEST_EVERY)
    ]
    assert {source["licence"] for source in sources} == {"CC0-1.0"}


def test_a_body_depends_on_the_seed_and_its_number_alone(figure: Figure, tmp_path: Path) -> None:
    for folder, count, seed in (("a", 3, 0), ("b", 20, 0), ("c", 3, 1)):
        write_bodies(tmp_path / folder, count, seed)
    names = {"a": "body-0002", "b": "body-0002", "c": "body-1-0002"}
    content = {folder: (tmp_path / folder / f"{name}.ply").read_bytes() for folder, name in names.items()}
    assert content["a"] == content["b"] != content["c"]
    assert (tmp_path / "a" / "body-0001.ply").read_bytes() != content["a"]


def test_bodies_stand_upright_and_face_the_front(figure: Figure, tmp_path: Path) -> None:
    write_bodies(tmp_path, 1)
    corners = read_mesh(tmp_path / "body-0000.ply")[0]
    # The figure's corners lie on its x, y and z, which are right, back and up: canonical x, -z and y.
    assert (np.argmax(np.abs(corners[1:]), axis=1) == [0, 2, 1]).all()
    assert corners[1, 0] > 0 and corners[2, 2] < 0 and corners[3, 1] > 0


def test_a_killed_run_goes_on_without_drawing_again_what_is_there(figure: Figure, tmp_path: Path) -> None:
    write_bodies(tmp_path, 20)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.ply")}
    (tmp_path / "body-0017.ply").unlink()
    figure.poses.clear()
    kept = []
    write_bodies(tmp_path, 20, report=lambda name, resumed: kept.append(resumed))
    assert len(figure.poses) == 1  # one batch
    assert kept.count(False) == 1 and not kept[17]
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.ply")} == before


def test_the_bodies_of_a_killed_run_have_their_splits(figure: Figure, tmp_path: Path) -> None:
    def killed(name: str, resumed: bool) -> None:
        if name == "body-0031":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_bodies(tmp_path, 60, report=killed)
    entries = list_meshes(tmp_path, Layout.FOLDER)
    assert len(entries) == 32
    assert {entry.name for entry in entries if entry.split == "test"} == {"body-0000", f"body-{TEST_EVERY:04d}"}


def test_a_folder_with_other_bodies_is_rejected(figure: Figure, tmp_path: Path) -> None:
    write_bodies(tmp_path, 5)
    with pytest.raises(InputError, match="contains 2 other bodies, such as body-0003.ply; choose another folder"):
        write_bodies(tmp_path, 3)
    assert len(json.loads((tmp_path / "sources.json").read_text())) == 5


def test_poses_rotate_every_joint_within_its_bounds_and_no_other(figure: Figure, tmp_path: Path) -> None:
    write_bodies(tmp_path, 16)
    [pose] = figure.poses
    pairs = {f"{joint.bone}.{side}" for joint in PAIRS for side in "LR"}
    assert set(pose) == pairs | {joint.bone for joint in SINGLE}
    for turns in pose.values():
        matrices = turns.numpy()
        assert matrices.shape == (16, 4, 4)
        turned = matrices[:, :3, :3] @ matrices[:, :3, :3].transpose(0, 2, 1)
        np.testing.assert_allclose(turned, np.broadcast_to(np.eye(3), (16, 3, 3)), atol=1e-6)
    knee = np.degrees(np.arccos(pose["lowerleg01.L"].numpy()[:, 1, 1]))
    assert knee.max() <= 20.1 and knee.std() > 1


def test_right_limbs_mirror_left_ones() -> None:
    fixed = SimpleNamespace(uniform=lambda low, high: high)
    turns = bodies._pose(fixed)  # type: ignore[arg-type]
    mirror = np.diag([-1.0, 1, 1, 1])
    for joint in PAIRS:
        left, right = turns[f"{joint.bone}.L"], turns[f"{joint.bone}.R"]
        np.testing.assert_allclose(mirror @ left @ mirror, right, atol=1e-12)


def test_a_missing_package_is_an_error_with_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "anny", None)
    with pytest.raises(InputError, match="pip install"):
        write_bodies(tmp_path, 1)
