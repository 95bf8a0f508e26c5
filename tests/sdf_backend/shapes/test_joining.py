"""Broken meshes joined with the missing part of a result: spheres, boxes, tubes and cups, cut where it is known."""

from collections import Counter

import igl
import numpy as np
import pytest
import trimesh
from skimage import measure

from sdf_backend.geometry.clipping import clip_above
from sdf_backend.shapes.joining import MissingPart, find_missing_part


def sphere(radius: float = 0.5, subdivisions: int = 5) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)


def cut(mesh: trimesh.Trimesh, axis: int, level: float, above: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The part of a mesh below, or above, a level along an axis; open along the cut."""
    sign = 1 if above else -1
    vertices, faces = np.array(mesh.vertices), np.array(mesh.faces)
    return clip_above(vertices, faces, sign * vertices[:, axis], sign * level)


def joined(vertices: np.ndarray, faces: np.ndarray, part: MissingPart) -> trimesh.Trimesh:
    """The mesh with its missing part."""
    return trimesh.Trimesh(
        np.concatenate([vertices, part.vertices]), np.concatenate([faces, part.faces]), process=False
    )


def union_of_boxes(boxes: list[trimesh.Trimesh]) -> tuple[np.ndarray, np.ndarray]:
    """The surface of the union of axis-aligned boxes in the unit cube about the origin, by Marching Cubes."""
    steps = np.linspace(-1, 1, 161)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1)
    distances = [
        (np.abs(grid - box.bounds.mean(axis=0)) - np.ptp(box.bounds, axis=0) / 2).max(axis=-1) for box in boxes
    ]
    vertices, faces, _, _ = measure.marching_cubes(np.min(distances, axis=0), 0.0, spacing=(steps[1] - steps[0],) * 3)
    return vertices.astype(np.float64) - 1, faces.astype(np.int64)


def edge_counts(mesh: trimesh.Trimesh) -> Counter[int]:
    """How many edges have how many faces."""
    _, counts = np.unique(np.sort(mesh.edges, axis=1), axis=0, return_counts=True)
    return Counter(counts.tolist())


@pytest.mark.parametrize("radius", [0.5, 0.49, 0.515])
def test_half_a_sphere_and_a_result_of_almost_its_size_become_a_closed_sphere(radius: float) -> None:
    vertices, faces = cut(sphere(), 1, 0.1)
    result = sphere(radius)
    part = find_missing_part(vertices, faces, np.array(result.vertices), np.array(result.faces))
    whole = joined(vertices, faces, part)
    assert (part.closed_loops, part.open_loops) == (1, 0)
    assert set(edge_counts(whole)) == {2} and whole.is_winding_consistent and whole.is_watertight
    assert whole.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=0.08)
    # Nothing of the new part lies before the cut, and it meets the boundary without a step.
    assert part.vertices[:, 1].min() > 0.09
    near = part.vertices[part.vertices[:, 1] < 0.13]
    assert np.abs(np.linalg.norm(near, axis=1) - 0.5).max() < 0.01


def test_the_seam_is_smooth_where_the_surface_is() -> None:
    vertices, faces = cut(sphere(), 1, 0.1)
    result = sphere(0.49)
    whole = joined(
        vertices, faces, find_missing_part(vertices, faces, np.array(result.vertices), np.array(result.faces))
    )
    middle = whole.triangles_center[whole.face_adjacency].mean(axis=1)
    seam = np.abs(middle[:, 1] - 0.1) < 0.02
    assert np.degrees(np.median(whole.face_adjacency_angles[seam])) < 5


def test_a_coarse_box_cut_obliquely_is_closed() -> None:
    box = trimesh.creation.box([0.8, 0.4, 0.6])
    fine = box.subdivide_to_size(0.02)
    values = np.array(box.vertices) @ np.array([1.0, 0.3, 0.2])
    vertices, faces = clip_above(np.array(box.vertices), np.array(box.faces), -values, -0.1)
    part = find_missing_part(vertices, faces, np.array(fine.vertices), np.array(fine.faces))
    whole = joined(vertices, faces, part)
    assert set(edge_counts(whole)) == {2} and whole.is_watertight
    assert whole.volume == pytest.approx(0.8 * 0.4 * 0.6, rel=0.01)


def test_a_tube_without_its_middle_gets_both_ends_joined() -> None:
    tube = trimesh.creation.cylinder(0.2, 1.6, sections=48).subdivide_to_size(0.03)
    halves = [cut(tube, 2, -0.307), cut(tube, 2, 0.293, above=True)]
    vertices = np.concatenate([half[0] for half in halves])
    faces = np.concatenate([halves[0][1], halves[1][1] + len(halves[0][0])])
    part = find_missing_part(vertices, faces, np.array(tube.vertices), np.array(tube.faces))
    whole = joined(vertices, faces, part)
    assert (part.closed_loops, part.open_loops) == (2, 0)
    assert whole.is_watertight and whole.volume == pytest.approx(tube.volume, rel=0.02)


def test_a_rim_that_the_result_does_not_continue_stays_open() -> None:
    """A bowl: an open hemisphere, as its result is; and a hole in its bottom, which the result closes."""
    bowl_vertices, bowl_faces = cut(sphere(), 1, 0.0)
    vertices, faces = clip_above(bowl_vertices, bowl_faces, np.linalg.norm(bowl_vertices - [0, -0.5, 0], axis=1), 0.15)
    result_vertices, result_faces = cut(sphere(0.502), 1, 0.0)
    part = find_missing_part(vertices, faces, result_vertices, result_faces)
    whole = joined(vertices, faces, part)
    assert (part.closed_loops, part.open_loops) == (1, 1)
    assert edge_counts(whole)[1] == edge_counts(trimesh.Trimesh(bowl_vertices, bowl_faces, process=False))[1]


def test_a_mesh_that_is_oriented_inwards_gets_a_part_like_it() -> None:
    vertices, faces = cut(sphere(), 1, 0.1)
    faces = faces[:, ::-1]
    result = sphere(0.495)
    whole = joined(
        vertices, faces, find_missing_part(vertices, faces, np.array(result.vertices), np.array(result.faces))
    )
    assert whole.is_winding_consistent and whole.is_watertight and whole.volume < 0


def test_a_part_that_begins_amid_the_surface_becomes_a_closed_piece_that_reaches_into_it() -> None:
    seat = trimesh.creation.box([0.8, 0.2, 0.8])
    leg = trimesh.creation.box([0.1, 0.5, 0.1]).apply_translation([0.2, -0.3, 0.2])
    result_vertices, result_faces = union_of_boxes([seat, leg])
    vertices, faces = np.array(seat.vertices), np.array(seat.faces)
    part = find_missing_part(vertices, faces, result_vertices, result_faces)
    whole = joined(vertices, faces, part)
    assert whole.is_watertight and whole.is_winding_consistent and len(whole.split()) == 2
    piece = max(whole.split(), key=lambda one: -one.bounds[0, 1])
    assert piece.bounds[0] == pytest.approx([0.15, -0.55, 0.15], abs=0.005)
    assert -0.1 < piece.bounds[1, 1] < -0.07 and piece.volume == pytest.approx(0.1 * 0.1 * 0.46, rel=0.05)


def test_an_end_about_several_pieces_gets_no_cap_between_them() -> None:
    """Two columns under a beam, cut upright along the middle of all: the new half is a C that ends in a long loop."""
    boxes = [trimesh.creation.box([0.2, 1.2, 0.2]).apply_translation([0, 0, z]) for z in (-0.5, 0.5)] + [
        trimesh.creation.box([0.2, 0.2, 1.2]).apply_translation([0, 0.6, 0])
    ]
    vertices, faces = union_of_boxes(boxes)
    halves = [cut(box, 0, 0.003) for box in boxes]
    offsets = np.cumsum([0, *(len(half[0]) for half in halves)])
    kept = np.concatenate([half[0] for half in halves])
    kept_faces = np.concatenate([half[1] + offset for half, offset in zip(halves, offsets, strict=False)])
    part = find_missing_part(kept, kept_faces, vertices, faces)
    assert part.overlaps >= 1
    whole = joined(kept, kept_faces, part)
    between = np.array([[0.0, y, 0.0] for y in (-0.4, -0.2, 0.0, 0.2)])
    squared, _, _ = igl.point_mesh_squared_distance(between, np.array(whole.vertices), np.array(whole.faces))
    assert np.sqrt(squared).min() > 0.2  # nothing stands between the columns


def test_a_whole_mesh_lacks_nothing() -> None:
    mesh, result = sphere(), sphere(0.49)
    part = find_missing_part(
        np.array(mesh.vertices), np.array(mesh.faces), np.array(result.vertices), np.array(result.faces)
    )
    assert len(part.faces) == len(part.vertices) == part.closed_loops == part.open_loops == 0


def test_a_result_that_ends_where_the_mesh_ends_adds_nothing() -> None:
    vertices, faces = cut(sphere(), 1, 0.1)
    part = find_missing_part(vertices, faces, vertices * 0.999, faces)
    assert (len(part.faces), part.closed_loops, part.open_loops) == (0, 0, 1)


def test_vertices_at_one_place_count_as_one() -> None:
    """Every face with vertices of its own, as in a file that splits them at the seams of a texture."""
    vertices, faces = cut(sphere(subdivisions=3), 1, 0.1)
    apart, apart_faces = vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)
    result = sphere(0.495)
    part = find_missing_part(apart, apart_faces, np.array(result.vertices), np.array(result.faces))
    whole = joined(apart, apart_faces, part)
    whole.merge_vertices(digits_vertex=12)
    assert whole.is_watertight and whole.is_winding_consistent


def test_a_part_that_is_missing_where_the_boundary_touches_itself_overlaps() -> None:
    """Two quarters of a sphere that meet in two points: a new quarter runs beside both."""
    vertices, faces = np.array(sphere().vertices), np.array(sphere().faces)
    centres = vertices[faces].mean(axis=1)
    kept = faces[centres[:, 0] * centres[:, 2] > 0]
    part = find_missing_part(vertices, kept, 0.998 * vertices, faces)
    assert (part.closed_loops, part.open_loops, part.overlaps) == (0, 0, 2)
    # From outside no gap is to be seen: every ray inwards meets the new part or the kept one.
    whole = joined(vertices, kept, part)
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert whole.ray.intersects_any(2 * directions, -directions).mean() > 0.99


def test_a_boundary_that_touches_itself_elsewhere_does_no_harm() -> None:
    """Two triangles that share a vertex, far from the cut."""
    vertices, faces = cut(sphere(), 1, 0.1)
    butterfly = np.array([[0.0, -0.49, 0], [0.01, -0.48, 0], [0, -0.48, 0.01], [-0.01, -0.48, 0], [0, -0.48, -0.01]])
    wings = np.array([[0, 1, 2], [0, 3, 4]]) + len(vertices)
    vertices, faces = np.concatenate([vertices, butterfly]), np.concatenate([faces, wings])
    result = sphere(0.495)
    part = find_missing_part(vertices, faces, np.array(result.vertices), np.array(result.faces))
    assert (part.closed_loops, part.open_loops) == (1, 0)
    assert edge_counts(joined(vertices, faces, part))[1] == 6


def test_of_two_surfaces_that_meet_one_boundary_one_is_joined_and_the_other_overlaps() -> None:
    """A result with two walls beyond the cut, both of which end at it."""
    vertices, faces = cut(sphere(), 1, 0.1)
    walls = [cut(sphere(radius), 1, 0.1, above=True) for radius in (0.5, 0.496)]
    both = np.concatenate([walls[0][0], walls[1][0]])
    both_faces = np.concatenate([walls[0][1], walls[1][1] + len(walls[0][0])])
    part = find_missing_part(vertices, faces, both, both_faces)
    assert (part.closed_loops, part.open_loops, part.overlaps) == (1, 0, 1)
    assert set(edge_counts(joined(vertices, faces, part))) == {2}


def test_a_piece_that_floats_beside_the_mesh_is_no_part_of_it() -> None:
    mesh, floater = sphere(), trimesh.creation.icosphere(subdivisions=3, radius=0.1).apply_translation([0.8, 0, 0])
    result = trimesh.util.concatenate([sphere(0.495), floater])
    part = find_missing_part(
        np.array(mesh.vertices), np.array(mesh.faces), np.array(result.vertices), np.array(result.faces)
    )
    assert len(part.faces) == 0
