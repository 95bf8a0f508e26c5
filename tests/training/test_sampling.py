"""Signs and distances of analytic shapes with the defects of real meshes."""

from collections.abc import Callable

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sdf_backend.errors import InputError
from sdf_backend.geometry.signed_distance import unsigned_distance
from training.sampling import Noise, SampleSettings, quantise, sample_mesh

Mesh = tuple[np.ndarray, np.ndarray]
SETTINGS = SampleSettings(count=40_000, surface_count=4_000)


def sphere() -> Mesh:
    mesh = trimesh.creation.icosphere(subdivisions=4)
    return np.array(mesh.vertices), np.array(mesh.faces)


def box() -> Mesh:
    mesh = trimesh.creation.box((1.0, 0.6, 0.8)).subdivide_loop(0).subdivide().subdivide().subdivide()
    return np.array(mesh.vertices), np.array(mesh.faces)


def joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    faces = [faces + start for (_, faces), start in zip(meshes, starts, strict=False)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces)


def disc(normal: int, size: float, centre: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    """A square surface without thickness."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * size
    return np.insert(corners, normal, 0.0, axis=1) + centre, np.array([[0, 1, 2], [0, 2, 3]])


def clean(mesh: Mesh) -> Mesh:
    return mesh


def doubled(mesh: Mesh) -> Mesh:
    """Every face twice, back to back, as in raw ShapeNet."""
    return mesh[0], np.concatenate([mesh[1], mesh[1][:, ::-1]])


def doubled_unmerged(mesh: Mesh) -> Mesh:
    return joined(
        (mesh[0][mesh[1]].reshape(-1, 3), np.arange(mesh[1].size).reshape(-1, 3)), (mesh[0], mesh[1][:, ::-1])
    )


def flipped(mesh: Mesh) -> Mesh:
    return mesh[0], mesh[1][:, ::-1]


def inconsistent(mesh: Mesh) -> Mesh:
    faces = mesh[1].copy()
    turned = np.random.default_rng(1).random(len(faces)) < 0.5
    faces[turned] = faces[turned, ::-1]
    return mesh[0], faces


def holed(mesh: Mesh) -> Mesh:
    """Without a few scattered faces."""
    gone = np.random.default_rng(2).choice(len(mesh[1]), size=6, replace=False)
    return mesh[0], np.delete(mesh[1], gone, axis=0)


def walled(mesh: Mesh) -> Mesh:
    """With two crossing walls inside."""
    return joined(mesh, disc(0, 0.25), disc(2, 0.2, (0.05, 0.02, 0.1)))


def shelled(mesh: Mesh) -> Mesh:
    """With a second shell inside the first."""
    return joined(mesh, (mesh[0] * 0.5, mesh[1]))


def all_defects_at_once(mesh: Mesh) -> Mesh:
    return doubled(inconsistent(walled(shelled(mesh))))


DEFECTS = [clean, doubled, doubled_unmerged, flipped, inconsistent, holed, walled, shelled, all_defects_at_once]


def sphere_distance(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points, axis=1) - 1.0


def box_distance(points: np.ndarray) -> np.ndarray:
    beyond = np.abs(points) - np.array([0.5, 0.3, 0.4])
    return np.linalg.norm(np.maximum(beyond, 0), axis=1) + np.minimum(beyond.max(axis=1), 0)


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize(("shape", "truth"), [(sphere, sphere_distance), (box, box_distance)])
def test_defective_meshes_have_right_signs_and_exact_distances(
    shape: Callable[[], Mesh], truth: Callable[[np.ndarray], np.ndarray], defect: Callable[[Mesh], Mesh]
) -> None:
    samples = sample_mesh(*defect(shape()), SETTINGS, np.random.default_rng(0))
    original = samples.points / samples.scale - samples.offset
    expected = truth(original) * samples.scale
    far = np.abs(expected) > 0.01
    wrong = np.sign(samples.distances) != np.sign(expected)
    assert wrong[far].mean() <= 0.001
    assert samples.uncertain <= 0.01 * SETTINGS.count
    # An icosphere lies inside the sphere it stands for, so distances are held to the clean triangles.
    vertices, faces = shape() if defect is not holed else holed(shape())
    triangles = ((vertices + samples.offset) * samples.scale)[faces]
    assert np.abs(np.abs(samples.distances) - unsigned_distance(samples.points, triangles)).max() < 1e-5


def test_distances_of_a_box_equal_its_formula() -> None:
    samples = sample_mesh(*box(), SETTINGS, np.random.default_rng(0))
    expected = box_distance(samples.points / samples.scale - samples.offset) * samples.scale
    assert np.abs(samples.distances - expected).max() < 1e-5


def test_an_open_surface_beside_a_body_has_no_inside() -> None:
    mesh = joined(box(), disc(1, 0.3, (0.0, 1.0, 0.0)))
    samples = sample_mesh(*mesh, SETTINGS, np.random.default_rng(0))
    original = samples.points / samples.scale - samples.offset
    expected = box_distance(original)
    far = np.abs(samples.distances) > 0.01
    assert (np.sign(samples.distances) != np.sign(expected))[far].mean() <= 0.001


def test_several_separate_bodies_are_all_solid() -> None:
    vertices, faces = sphere()
    mesh = joined((vertices, faces), (vertices + np.array([3, 0, 0]), faces))
    samples = sample_mesh(*mesh, SETTINGS, np.random.default_rng(0))
    original = samples.points / samples.scale - samples.offset
    expected = np.minimum(sphere_distance(original), sphere_distance(original - (3, 0, 0)))
    far = np.abs(expected) > 0.01
    assert (np.sign(samples.distances) != np.sign(expected))[far].mean() <= 0.001


@pytest.mark.parametrize("noise", list(Noise))
def test_samples_lie_in_deepsdf_proportions(noise: Noise) -> None:
    settings = SampleSettings(count=40_000, noise=noise, surface_count=1_000)
    samples = sample_mesh(*box(), settings, np.random.default_rng(0))
    near = samples.distances[: int(settings.count * (1 - settings.uniform_share))]
    wide, narrow = np.abs(near[::2]).mean(), np.abs(near[1::2]).mean()
    # Away from edges the distance is the noise's component along the normal: its mean modulus is sigma sqrt(2/pi).
    assert narrow == pytest.approx(np.sqrt(noise.variances[1] * 2 / np.pi), rel=0.15)
    assert wide == pytest.approx(np.sqrt(noise.variances[0] * 2 / np.pi), rel=0.25)


def test_surface_points_are_on_the_surface_with_outward_normals() -> None:
    samples = sample_mesh(*inconsistent(sphere()), SETTINGS, np.random.default_rng(0))
    original = samples.surface / samples.scale - samples.offset
    assert np.abs(np.linalg.norm(original, axis=1) - 1).max() < 0.01
    assert ((original * samples.normals).sum(axis=1) > 0.9).all()


def test_the_same_seed_gives_the_same_samples() -> None:
    first, second = (sample_mesh(*sphere(), SETTINGS, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.distances, second.distances)


@pytest.mark.parametrize(
    ("mesh", "reason"),
    [
        (disc(1, 1.0), "encloses no volume"),
        ((np.zeros((3, 3)), np.array([[0, 1, 2]])), "coincide"),
        ((np.full((3, 3), np.nan), np.array([[0, 1, 2]])), "finite"),
        ((np.eye(3), np.array([[0, 0, 1]])), "degenerate"),
        ((np.zeros((0, 3)), np.zeros((0, 3), dtype=int)), "finite"),
    ],
)
def test_unusable_meshes_are_rejected_with_the_reason(mesh: Mesh, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        sample_mesh(*mesh, SETTINGS, np.random.default_rng(0))


@given(arrays(float, (5, 3), elements=st.floats(-1.25, 1.25)))
def test_quantised_points_are_near_and_quantising_again_changes_nothing(points: np.ndarray) -> None:
    once = quantise(points)
    assert np.abs(once - points).max() <= 2e-5
    np.testing.assert_allclose(quantise(once), once, atol=1e-12)
