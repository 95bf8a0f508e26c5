"""Metrics against analytic results."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from training.evaluation import metrics
from training.triangle_mesh import Mesh

SQUARE = Mesh(np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float), np.array([[0, 1, 2], [0, 2, 3]]))
coordinates = st.floats(-1, 1, allow_nan=False, width=32)
clouds = st.integers(1, 30).flatmap(lambda n: arrays(np.float64, (n, 3), elements=coordinates))
with_50_examples = settings(max_examples=50)


def sphere(radius: float = 1.0, subdivisions: int = 5) -> Mesh:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Mesh(np.asarray(mesh.vertices), np.asarray(mesh.faces))


def on_sphere(count: int, seed: int) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


class TestChamferDistance:
    def test_concentric_spheres(self):
        directions = on_sphere(20_000, 0)
        assert metrics.chamfer_distance(directions, 1.1 * directions) == pytest.approx(2 * 0.1**2, rel=1e-9)

    def test_concentric_spheres_sampled_independently(self):
        # Besides the gap, finite sampling adds about 1 / (pi * density) on each side.
        sampling = 2 * 4 * np.pi / (np.pi * 30_000)
        measured = metrics.chamfer_distance(on_sphere(30_000, 0), 1.1 * on_sphere(30_000, 1))
        assert measured == pytest.approx(2 * 0.1**2 + sampling, rel=0.02)

    def test_translated_plane(self):
        plane = np.random.default_rng(0).random((5_000, 3)) * [1, 1, 0]
        assert metrics.chamfer_distance(plane, plane + np.array([0, 0, 0.2])) == pytest.approx(2 * 0.2**2)

    def test_counts_may_differ(self):
        assert metrics.chamfer_distance([[0, 0, 0]], [[1, 0, 0], [3, 0, 0]]) == pytest.approx(1 + (1 + 9) / 2)

    @with_50_examples
    @given(clouds, clouds)
    def test_symmetric_and_not_negative(self, a, b):
        assert metrics.chamfer_distance(a, b) == pytest.approx(metrics.chamfer_distance(b, a))
        assert metrics.chamfer_distance(a, b) >= 0

    @with_50_examples
    @given(clouds)
    def test_zero_on_itself(self, a):
        assert metrics.chamfer_distance(a, a[::-1]) == 0

    @with_50_examples
    @given(clouds, clouds, st.integers(0, 2**32 - 1))
    def test_invariant_under_rigid_motion(self, a, b, seed):
        rotation, shift = Rotation.random(rng=np.random.default_rng(seed)), np.array([0.3, -2.0, 1.0])
        moved = metrics.chamfer_distance(rotation.apply(a) + shift, rotation.apply(b) + shift)
        assert moved == pytest.approx(metrics.chamfer_distance(a, b), abs=1e-9)

    @with_50_examples
    @given(clouds, clouds, st.floats(0.1, 10))
    def test_grows_with_the_square_of_the_scale(self, a, b, scale):
        assert metrics.chamfer_distance(a * scale, b * scale) == pytest.approx(
            metrics.chamfer_distance(a, b) * scale**2, abs=1e-12
        )


class TestEarthMoversDistance:
    def test_translation(self):
        points, shift = on_sphere(500, 0), np.array([0.03, -0.04, 0.12])
        moved = np.random.default_rng(1).permutation(points + shift)
        assert metrics.earth_movers_distance(points, moved) == pytest.approx(0.13, rel=1e-9)

    def test_matches_points_one_to_one(self):
        a, b = [[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [1, 0, 0]]
        assert metrics.earth_movers_distance(a, b) == pytest.approx(0.5)

    def test_unequal_counts_are_rejected(self):
        with pytest.raises(ValueError, match="a has 3 points and b has 2"):
            metrics.earth_movers_distance(np.zeros((3, 3)), np.zeros((2, 3)))

    @with_50_examples
    @given(clouds)
    def test_zero_on_itself(self, a):
        assert metrics.earth_movers_distance(a, a[::-1]) == pytest.approx(0, abs=1e-12)


class TestHausdorffDistance:
    def test_is_the_largest_distance_of_either_mesh_from_the_other(self):
        ball, finer = (trimesh.creation.icosphere(subdivisions=level, radius=0.5) for level in (4, 5))
        horn = trimesh.creation.box([0.1, 0.1, 0.4])
        horn.apply_translation([0, 0, 0.6])  # from 0.4 to 0.8
        horned = trimesh.util.concatenate([ball, horn])
        # The same ball with different vertices.
        assert metrics.hausdorff_distance(ball, finer) < 0.002
        expected = np.hypot(0.8, np.hypot(0.05, 0.05)) - 0.5
        there, back = metrics.hausdorff_distance(ball, horned), metrics.hausdorff_distance(horned, ball)
        assert there == back == pytest.approx(expected, abs=2e-3)

    def test_equals_the_largest_of_both_one_sided_distances(self):
        first, second = sphere(1.0, 2), sphere(1.1, 1)
        there = metrics.point_to_mesh_distance(first.vertices, second.vertices, second.faces).max()
        back = metrics.point_to_mesh_distance(second.vertices, first.vertices, first.faces).max()
        assert metrics.hausdorff_distance(first, second) == pytest.approx(max(there, back), rel=1e-12)


class TestAccuracyAndCompletion:
    def test_accuracy_ignores_the_worst_tenth(self):
        plane = np.random.default_rng(0).random((1_000, 3)) * [1, 1, 0]
        plane[:, 2] = np.where(np.arange(1_000) < 900, 0.01, 0.5)
        assert metrics.mesh_accuracy(plane, SQUARE) == pytest.approx(0.01)
        assert metrics.mesh_accuracy(plane, SQUARE, share=0.901) == pytest.approx(0.5)

    def test_accuracy_is_measured_to_triangles_rather_than_vertices(self):
        # The square has only four vertices, far from the point.
        assert metrics.mesh_accuracy([[0.5, 0.4, 0.002]], SQUARE) == pytest.approx(0.002)

    def test_accuracy_accepts_a_trimesh(self):
        box = trimesh.creation.box(extents=(2, 2, 2))
        assert metrics.mesh_accuracy([[0.0, 0.0, 1.25]], box) == pytest.approx(0.25)

    @pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
    def test_a_share_out_of_range_is_rejected(self, share):
        with pytest.raises(ValueError, match="share is"):
            metrics.mesh_accuracy(np.zeros((1, 3)), SQUARE, share=share)

    def test_completion_of_a_sphere_against_itself(self):
        points, _ = metrics.sample_surface(sphere().vertices, sphere().faces, 5_000, np.random.default_rng(0))
        assert metrics.mesh_completion(points, sphere()) == 1.0

    def test_completion_against_a_larger_sphere(self):
        points, _ = metrics.sample_surface(sphere().vertices, sphere().faces, 5_000, np.random.default_rng(0))
        assert metrics.mesh_completion(points, sphere(1.05)) == 0.0
        assert metrics.mesh_completion(points, sphere(1.05), distance=0.06) == 1.0

    def test_completion_of_a_half(self):
        half = Mesh(SQUARE.vertices * [0.5, 1, 1], SQUARE.faces)
        grid = np.stack(np.meshgrid(np.linspace(0.05, 0.95, 10), np.linspace(0, 1, 5), [0.0]), axis=-1).reshape(-1, 3)
        assert metrics.mesh_completion(grid, half) == 0.5


class TestNormalCosineSimilarity:
    def test_sphere_with_itself(self):
        rng, mesh = np.random.default_rng(0), sphere()
        a = metrics.sample_surface(mesh.vertices, mesh.faces, 10_000, rng)
        b = metrics.sample_surface(mesh.vertices, mesh.faces, 10_000, rng)
        assert metrics.normal_cosine_similarity(*a, *b) == pytest.approx(1, abs=2e-3)

    def test_flipped_normals_do_not_matter(self):
        points = on_sphere(200, 0)
        assert metrics.normal_cosine_similarity(points, points, points, -3 * points) == pytest.approx(1)

    def test_known_angle(self):
        points = on_sphere(50, 0)
        up, tilted = np.tile([0.0, 0, 1], (50, 1)), np.tile([0, np.sqrt(3), 1], (50, 1))
        assert metrics.normal_cosine_similarity(points, up, points, tilted) == pytest.approx(0.5)

    def test_both_directions_have_equal_weight(self):
        # The point of a finds the parallel normal; one of the two points of b finds a perpendicular one.
        a, b = [[0, 0, 0]], [[0, 0, 0], [5, 0, 0]]
        assert metrics.normal_cosine_similarity(a, [[0, 0, 1]], b, [[0, 0, 1], [1, 0, 0]]) == pytest.approx(
            (1 + 0.5) / 2
        )

    def test_a_zero_normal_is_rejected(self):
        with pytest.raises(ValueError, match="1 of the normals of b have length zero"):
            metrics.normal_cosine_similarity([[0, 0, 0]], [[0, 0, 1]], [[0, 0, 0]], [[0, 0, 0]])


class TestSampleSurface:
    def test_points_lie_on_the_surface_with_its_normals(self):
        box = trimesh.creation.box(extents=(2, 2, 2))
        points, normals = metrics.sample_surface(box.vertices, box.faces, 2_000, np.random.default_rng(0))
        assert np.allclose(np.abs(points).max(axis=1), 1)
        # On each side of the box the normal is the coordinate axis of that side, pointing outwards.
        assert np.allclose(np.sum(points * normals, axis=1), 1)
        assert np.allclose(np.linalg.norm(normals, axis=1), 1)

    def test_faces_are_weighted_by_area_and_sampled_uniformly(self):
        vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 0, 0], [9, 9, 0]], float)
        faces = np.array([[0, 1, 2], [3, 4, 3], [0, 2, 1]])
        points, normals = metrics.sample_surface(vertices, faces, 20_000, np.random.default_rng(0))
        assert np.allclose(points.mean(axis=0), [1 / 3, 1 / 3, 0], atol=0.01)
        assert np.isfinite(normals).all()
        assert np.mean(normals[:, 2] > 0) == pytest.approx(0.5, abs=0.02)

    def test_deterministic_under_the_generator(self):
        first = metrics.sample_surface(SQUARE.vertices, SQUARE.faces, 10, np.random.default_rng(7))
        again = metrics.sample_surface(SQUARE.vertices, SQUARE.faces, 10, np.random.default_rng(7))
        other = metrics.sample_surface(SQUARE.vertices, SQUARE.faces, 10, np.random.default_rng(8))
        assert np.array_equal(first[0], again[0])
        assert not np.array_equal(first[0], other[0])

    @pytest.mark.parametrize(
        ("vertices", "faces", "message"),
        [
            (np.zeros((3, 3)), [[0, 1, 2]], "None of the mesh's 1 faces has an area"),
            (np.eye(3), np.zeros((0, 3), int), "faces is empty"),
            (np.eye(3), [[0, 1, 3]], "vertex indices from 0 to 3; there are 3"),
            (np.eye(3), [[0.0, 1.0, 2.0]], "must hold integers"),
            (np.eye(3), [[0, 1, 2, 0]], r"faces has shape \(1, 4\)"),
            (np.full((3, 3), np.nan), [[0, 1, 2]], "NaN or infinity in 3 of its 3 rows"),
        ],
    )
    def test_a_malformed_mesh_is_rejected(self, vertices, faces, message):
        with pytest.raises(ValueError, match=message):
            metrics.sample_surface(vertices, faces, 5, np.random.default_rng(0))

    def test_a_count_of_zero_is_rejected(self):
        with pytest.raises(ValueError, match="count is 0"):
            metrics.sample_surface(SQUARE.vertices, SQUARE.faces, 0, np.random.default_rng(0))


class TestScoreShape:
    def test_a_perfect_shape(self):
        scores = metrics.score_shape(sphere(), sphere(), np.random.default_rng(0), truth_scale=0.5)
        assert scores.chamfer == pytest.approx(2 * 4 / 30_000, rel=0.05)  # finite sampling alone
        assert scores.chamfer_original == pytest.approx(scores.chamfer / 0.25)
        assert scores.chamfer_exact < 1e-9
        assert scores.emd < 0.2
        assert scores.accuracy < 1e-6
        assert scores.completion == 1.0
        assert scores.cosine == pytest.approx(1, abs=1e-3)

    def test_a_larger_sphere(self):
        scores = metrics.score_shape(sphere(1.05), sphere(), np.random.default_rng(0))
        assert scores.chamfer == pytest.approx(2 * 0.05**2 + 2 * 4 / 30_000, rel=0.05)
        assert scores.chamfer == scores.chamfer_original
        assert scores.chamfer_exact == pytest.approx(2 * 0.05**2, rel=0.02)
        assert scores.accuracy == pytest.approx(0.05, abs=2e-3)
        assert scores.completion == 0.0

    def test_the_same_generator_state_gives_the_same_scores(self):
        mesh = sphere(subdivisions=2)
        again = [metrics.score_shape(mesh, sphere(subdivisions=1), np.random.default_rng(3)) for _ in range(2)]
        assert again[0] == again[1]

    @pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
    def test_a_scale_that_is_not_positive_is_rejected(self, scale):
        with pytest.raises(ValueError, match="truth_scale is"):
            metrics.score_shape(SQUARE, SQUARE, np.random.default_rng(0), truth_scale=scale)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((0, 3)), "a is empty"),
        (np.zeros((4, 2)), r"a has shape \(4, 2\)"),
        (np.zeros(3), r"a has shape \(3,\)"),
        ([[0, 0, 0], [0, np.nan, 0]], "NaN or infinity in 1 of its 2 rows"),
        ([[np.inf, 0, 0]], "NaN or infinity"),
    ],
)
@pytest.mark.parametrize("measure", [metrics.chamfer_distance, metrics.earth_movers_distance])
def test_malformed_points_are_rejected(measure, points, message):
    with pytest.raises(ValueError, match=message):
        measure(points, np.zeros((1, 3)))
