"""Fewer triangles, on shapes whose surface and topology are known."""

import numpy as np
import pytest
import trimesh

from sdf_backend.geometry.closure import enclosed_volume, is_closed
from sdf_backend.geometry.simplification import simplify_mesh

BALL, RING = trimesh.creation.icosphere(5), trimesh.creation.torus(1, 0.3, 96, 48)


@pytest.mark.parametrize(
    "mesh", [BALL, RING, BALL + RING.copy().apply_translation([3, 0, 0])], ids=["ball", "ring", "both"]
)
@pytest.mark.parametrize("triangles", [5_000, 1_000])
@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_number_is_met_and_the_surface_stays_closed(mesh: trimesh.Trimesh, triangles: int, scale: float) -> None:
    vertices, faces = simplify_mesh(scale * (mesh.vertices + [7, -3, 2]), np.asarray(mesh.faces), triangles)
    assert len(faces) == triangles
    simple = trimesh.Trimesh(vertices, faces, process=False)
    assert simple.is_watertight and simple.euler_number == mesh.euler_number and simple.body_count == mesh.body_count
    assert enclosed_volume(vertices, faces) == pytest.approx(scale**3 * mesh.volume, rel=0.02)


def test_edges_and_flat_sides_of_a_box_stay_as_they_are() -> None:
    box = trimesh.creation.box().subdivide_loop(0)
    for _ in range(4):
        box = box.subdivide()
    vertices, faces = simplify_mesh(np.asarray(box.vertices), np.asarray(box.faces), 12)
    assert len(faces) == 12
    np.testing.assert_allclose(np.sort(np.abs(vertices), axis=0), 0.5, atol=1e-6)


def test_what_would_tear_stays() -> None:
    vertices, faces = simplify_mesh(np.asarray(RING.vertices), np.asarray(RING.faces), 4)
    assert 4 < len(faces) < 40 and is_closed(faces)
    assert trimesh.Trimesh(vertices, faces, process=False).euler_number == 0


@pytest.mark.parametrize("kept", [len(BALL.faces), len(BALL.faces) - 1])
def test_a_mesh_with_few_triangles_and_an_open_one_stay_as_they_are(kept: int) -> None:
    vertices, faces = np.asarray(BALL.vertices), np.asarray(BALL.faces)[:kept]
    same, same_faces = simplify_mesh(vertices, faces, len(BALL.faces) if kept == len(BALL.faces) else 100)
    assert same is vertices and same_faces is faces
