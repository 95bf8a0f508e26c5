"""The faces of a ball as triangles and as quads."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from sdf_backend.errors import InputError
from sdf_backend.geometry.closure import is_closed
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.progress import Phase
from sdf_backend.settings import TaskSettings
from sdf_backend.shapes.remeshing import remesh_shape
from sdf_backend.shapes.shape import Shape

MESH = trimesh.creation.icosphere(4)
CODE = np.zeros(3, dtype=np.float32)
BALL = Shape("spheres", np.array(MESH.vertices), np.array(MESH.faces), CODE, Similarity.identity())


def test_without_a_wish_a_shape_stays_as_it_is() -> None:
    assert remesh_shape(BALL, TaskSettings()) is BALL
    empty = replace(BALL, vertices=np.zeros((0, 3)), faces=np.zeros((0, 3), dtype=np.int64))
    assert remesh_shape(empty, TaskSettings(quads=100)) is empty


@pytest.mark.parametrize("wanted", [{"triangles": 600}, {"quads": 600}])
def test_it_gets_the_faces_that_were_wanted(wanted: dict[str, int]) -> None:
    found = remesh_shape(replace(BALL, seconds={Phase.EXTRACTING: 1.0}), TaskSettings(**wanted))
    assert is_closed(found.faces) and found.note == "" and found.seconds[Phase.EXTRACTING] > 1
    assert len(found.faces) - found.quads == pytest.approx(600, rel=0.02)
    assert found.quad_share == ("quads" in wanted)


@pytest.mark.parametrize(
    ("wanted", "note"),
    [
        ({"triangles": 1}, "The mesh has 4 triangles; with fewer it would no longer be closed."),
        ({"quads": 1}, "quads; with fewer it would no longer be closed."),
        ({"quads": 100_000}, "The mesh has 10240 quads; for more use a finer resolution."),
    ],
)
def test_a_number_that_cannot_be_had_is_told(wanted: dict[str, int], note: str) -> None:
    found = remesh_shape(BALL, TaskSettings(**wanted))
    assert is_closed(found.faces) and note in found.note


def test_an_open_mesh_keeps_its_triangles_and_says_so() -> None:
    found = remesh_shape(replace(BALL, faces=BALL.faces[1:]), TaskSettings(quads=100))
    assert found.quads == 0 and np.array_equal(found.faces, BALL.faces[1:]) and "not closed" in found.note


def test_triangles_and_quads_at_once_are_refused() -> None:
    with pytest.raises(InputError, match="300 triangles and 200 quads were asked for; set one of them to 0"):
        TaskSettings(triangles=300, quads=200)
