"""Completions that keep their input: half a sphere, a whole one, points, and a mesh that cannot be joined."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from sdf_backend.engine import Engine, Shape, Source
from sdf_backend.geometry.clipping import clip_above
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import ModelStore
from sdf_backend.settings import Keep, Pose, TaskSettings
from sdf_backend.shapes.keep_input import keep_input

# Where the input stands: a pose with a scale, so that canonical units are not the input's.
POSE = Similarity(20.0, np.eye(3), np.array([100.0, -50.0, 3.0]))


def ball(radius: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    return np.array(mesh.vertices), np.array(mesh.faces)


def half() -> Geometry:
    vertices, faces = ball()
    vertices, faces = clip_above(vertices, faces, -vertices[:, 1], 0.013)
    return Geometry(POSE.apply(vertices), faces)


def completed() -> Shape:
    vertices, faces = ball(0.495)
    observed = (vertices[:, 1] < 0).astype(np.float32)
    return Shape("balls", POSE.apply(vertices), faces, np.zeros(1), POSE, observed, deviation=0.1 + 0 * observed)


def test_the_input_stays_bit_for_bit_and_its_other_half_is_added() -> None:
    geometry = half()
    shape = keep_input(completed(), geometry)
    assert (shape.kept_vertices, shape.kept_faces) == (len(geometry.vertices), len(geometry.faces))
    assert np.array_equal(shape.vertices[: shape.kept_vertices], geometry.vertices)
    assert np.array_equal(shape.faces[: shape.kept_faces], geometry.faces)
    whole = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    assert whole.is_watertight and whole.is_winding_consistent and shape.note == ""
    assert whole.volume == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.05)
    assert shape.observed is not None and shape.deviation is not None
    assert len(shape.observed) == len(shape.deviation) == len(shape.vertices)
    assert (shape.observed[: shape.kept_vertices] == 1).all() and (shape.deviation[: shape.kept_vertices] == 0).all()
    assert shape.observed[shape.kept_vertices :].mean() < 0.1 and shape.deviation[-1] == pytest.approx(0.1)


def test_a_whole_mesh_is_returned_as_it_is() -> None:
    vertices, faces = ball()
    shape = keep_input(completed(), Geometry(POSE.apply(vertices), faces))
    assert np.array_equal(shape.vertices, POSE.apply(vertices)) and np.array_equal(shape.faces, faces)
    assert shape.note == "Nothing is missing of the input."


def test_openings_that_stay_are_told() -> None:
    geometry, lid = half(), completed()
    vertices, faces = clip_above(lid.vertices, lid.faces, -lid.vertices[:, 1], 50.4)
    shape = keep_input(Shape("balls", vertices, faces, np.zeros(1), POSE), geometry)
    assert shape.note.startswith("Nothing is missing of the input. One opening of the input")
    assert shape.observed is None and len(shape.faces) == len(geometry.faces)


def test_points_get_the_whole_surface() -> None:
    points = Geometry(half().vertices, np.zeros((0, 3), dtype=np.int64))
    cloud = keep_input(completed(), points)
    assert cloud.kept_faces == 0 and "point cloud" in cloud.note and len(cloud.faces) == len(completed().faces)
    told = keep_input(replace(completed(), note="It has 4 triangles."), points)
    assert told.note == f"It has 4 triangles. {cloud.note}"


def test_ends_that_overlap_the_input_are_told() -> None:
    vertices, faces = ball()
    centres = vertices[faces].mean(axis=1)
    quarters = Geometry(POSE.apply(vertices), faces[centres[:, 0] * centres[:, 2] > 0])
    shape = keep_input(completed(), quarters)
    assert shape.kept_faces == len(quarters.faces) and "2 ends of the new part overlap" in shape.note


def test_the_engine_keeps_the_input_of_a_completion(models_folder: Path) -> None:
    vertices, faces = ball()
    vertices, faces = clip_above(vertices, faces, -vertices[:, 1], 0.013)
    source = Source(Geometry(vertices, faces))
    settings = TaskSettings(resolution=64, pose=Pose.KNOWN, keep=Keep.INPUT, candidates=2)
    shapes = Engine(ModelStore(models_folder), device="cpu").complete("spheres", [source], settings)
    for shape in shapes:
        assert np.array_equal(shape.vertices[: len(vertices)], vertices) and shape.kept_faces == len(faces)
        assert trimesh.Trimesh(shape.vertices, shape.faces, process=False).is_watertight
        assert shape.seconds["joining"] > 0
