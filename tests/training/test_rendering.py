"""Rendered images, judged by their pixels."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf_backend.errors import InputError
from sdf_backend.geometry.camera import BACKGROUND, MARGIN
from training import rendering

RED = (220, 20, 20)
SIZE = (120, 90)
BALL = trimesh.creation.icosphere(subdivisions=3)
BOX = trimesh.creation.box(extents=(2, 2, 2))


def centre(image: np.ndarray) -> np.ndarray:
    return image[image.shape[0] // 2, image.shape[1] // 2].astype(int)


def covered(image: np.ndarray) -> np.ndarray:
    return (np.abs(image.astype(int) - np.array(BACKGROUND, int)) > 3).any(axis=2)


def is_red(pixel: np.ndarray) -> bool:
    return bool(pixel[0] > pixel[1] + 60 and pixel[0] > pixel[2] + 60)


def is_blue(pixel: np.ndarray) -> bool:
    return bool(pixel[2] > pixel[0] + 40)


def magenta_share(image: np.ndarray) -> float:
    image = image.astype(int)
    return float(np.mean((image[..., 0] > image[..., 1] + 40) & (image[..., 2] > image[..., 1] + 40)))


class TestMesh:
    def test_a_red_ball_on_a_light_background(self):
        image = rendering.render_mesh(BALL.vertices, BALL.faces, SIZE, color=RED)
        assert image.shape == (90, 120, 3)
        assert image.dtype == np.uint8
        assert is_red(centre(image))
        assert tuple(image[0, 0]) == BACKGROUND
        assert tuple(image[-1, -1]) == BACKGROUND

    def test_the_mesh_fills_the_image_except_for_the_margin(self):
        disc = covered(rendering.render_mesh(BALL.vertices, BALL.faces, SIZE))
        diameter = 90 * (1 - 2 * MARGIN)
        assert disc.any(axis=1).sum() == pytest.approx(diameter, abs=2)
        assert disc.any(axis=0).sum() == pytest.approx(diameter, abs=2)
        assert disc.sum() == pytest.approx(np.pi / 4 * diameter**2, rel=0.05)

    def test_the_light_comes_from_above_left(self):
        image = rendering.render_mesh(BALL.vertices, BALL.faces, SIZE).astype(int).sum(axis=2)
        assert image[25, 45] > image[65, 75] + 60

    def test_an_inverted_ball_shows_back_faces(self):
        assert magenta_share(rendering.render_mesh(BALL.vertices, BALL.faces[:, ::-1], SIZE)) > 0.4

    def test_closed_meshes_show_no_back_faces(self):
        torus = trimesh.creation.torus(1, 0.3)
        for mesh in (BALL, BOX, torus):
            assert magenta_share(rendering.render_mesh(mesh.vertices, mesh.faces, SIZE)) == 0

    def test_the_inside_of_an_open_mesh_shows_back_faces(self):
        bowl = BALL.faces[BALL.triangles_center[:, 1] < 0]
        from_above = rendering.render_mesh(BALL.vertices, bowl, SIZE, elevation=60)
        from_below = rendering.render_mesh(BALL.vertices, bowl, SIZE, elevation=-60)
        assert magenta_share(from_above) > 0.2
        assert magenta_share(from_below) < 0.05

    def test_faces_doubled_back_to_back_show_their_front(self):
        doubled = np.concatenate([BOX.faces, BOX.faces[:, ::-1]])
        image = rendering.render_mesh(BOX.vertices, doubled, SIZE).astype(int)
        assert np.abs(image - rendering.render_mesh(BOX.vertices, BOX.faces, SIZE)).max() <= 1

    def test_creases_stay_sharp(self):
        # Three sides of a box are visible; smoothing across its edges would give hundreds of shades.
        image = rendering.render_mesh(BOX.vertices, BOX.faces, SIZE)
        shades, counts = np.unique(image[covered(image)], axis=0, return_counts=True)
        assert np.sort(counts)[-3:].sum() > 0.85 * covered(image).sum()
        assert len(shades) > 3  # antialiased edges

    def test_near_surfaces_hide_far_ones(self):
        both = np.concatenate([0.5 * BALL.vertices + [0, 0, 2], BALL.vertices])
        faces = np.concatenate([BALL.faces, BALL.faces + len(BALL.vertices)])
        colors = np.repeat([RED, (20, 20, 220)], len(BALL.vertices), axis=0)
        front = rendering.render_mesh(both, faces, SIZE, azimuth=0, elevation=0, vertex_colors=colors)
        back = rendering.render_mesh(both, faces, SIZE, azimuth=180, elevation=0, vertex_colors=colors)
        assert is_red(centre(front))
        assert is_blue(centre(back))

    @pytest.mark.parametrize(
        ("azimuth", "elevation", "up", "toward"),
        [
            (0, 0, "y", (0, 0, 1)),
            (90, 0, "y", (1, 0, 0)),
            (0, 90, "y", (0, 1, 0)),
            (0, 0, "z", (0, -1, 0)),
            (90, 0, "z", (1, 0, 0)),
            (0, 90, "z", (0, 0, 1)),
        ],
    )
    def test_camera_directions(self, azimuth, elevation, up, toward):
        colors = np.where((BALL.vertices @ np.array(toward) > 0)[:, None], RED, (20, 20, 220))
        image = rendering.render_mesh(BALL.vertices, BALL.faces, SIZE, azimuth, elevation, up, vertex_colors=colors)
        assert is_red(centre(image))

    @pytest.mark.parametrize(("up", "axis"), [("y", 1), ("z", 2)])
    def test_up_and_right_of_the_image(self, up, axis):
        marked = np.zeros((len(BALL.vertices), 3))
        marked[:, 0] = 255 * (BALL.vertices[:, axis] > 0.2)
        marked[:, 2] = 255 * (BALL.vertices[:, 0] > 0.2)
        image = rendering.render_mesh(BALL.vertices, BALL.faces, SIZE, 0, 0, up, vertex_colors=marked).astype(int)
        assert image[20, 60, 0] > 100 > image[70, 60, 0]
        assert image[45, 85, 2] > 100 > image[45, 35, 2]

    def test_observed_values_are_blue_and_completed_ones_orange(self):
        observed = BALL.vertices[:, 0] > 0
        image = rendering.render_mesh(BALL.vertices, BALL.faces, SIZE, 0, 0, vertex_colors=observed)
        assert is_blue(image[45, 75].astype(int))
        assert is_red(image[45, 45].astype(int) * [1, 0, 1])  # orange: red well above blue

    def test_shared_bounds_give_a_common_scale(self):
        bounds = rendering.shared_bounds(BALL.vertices, 0.5 * BALL.vertices)
        large = rendering.render_mesh(BALL.vertices, BALL.faces, SIZE, bounds=bounds)
        small = rendering.render_mesh(0.5 * BALL.vertices, BALL.faces, SIZE, bounds=bounds)
        assert covered(small).sum() == pytest.approx(covered(large).sum() / 4, rel=0.1)

    @settings(max_examples=15)
    @given(st.floats(1e-3, 1e3), st.tuples(*[st.floats(-100, 100)] * 3))
    def test_framing_is_independent_of_scale_and_position(self, scale, shift):
        moved = rendering.render_mesh(BOX.vertices * scale + np.array(shift), BOX.faces, (40, 30)).astype(int)
        still = rendering.render_mesh(BOX.vertices, BOX.faces, (40, 30)).astype(int)
        assert np.mean(np.abs(moved - still)) < 1

    def test_rendering_is_deterministic(self):
        first, again = (rendering.render_mesh(BALL.vertices, BALL.faces, SIZE) for _ in range(2))
        assert np.array_equal(first, again)

    def test_malformed_input_is_rejected(self):
        with pytest.raises(InputError, match="faces is empty"):
            rendering.render_mesh(BALL.vertices, np.zeros((0, 3), int))
        with pytest.raises(InputError, match="vertex_colors has shape"):
            rendering.render_mesh(BALL.vertices, BALL.faces, vertex_colors=np.zeros((2, 3)))
        with pytest.raises(InputError, match="a low and a high corner"):
            rendering.render_mesh(BALL.vertices, BALL.faces, bounds=[[1, 1, 1], [0, 0, 0]])
        with pytest.raises(ValueError, match="up is 'x'"):
            rendering.render_mesh(BALL.vertices, BALL.faces, up="x")
        with pytest.raises(ValueError, match="size is"):
            rendering.render_mesh(BALL.vertices, BALL.faces, size=(0, 10))


class TestPoints:
    def test_a_dense_point_cloud_of_a_ball(self):
        points, _ = trimesh.sample.sample_surface(BALL, 20_000, seed=0)
        image = rendering.render_points(points, SIZE, color=RED, radius=2)
        assert is_red(centre(image))
        assert tuple(image[0, 0]) == BACKGROUND

    def test_one_point_is_one_small_disc(self):
        image = rendering.render_points([[5.0, 5.0, 5.0]], SIZE, color=RED, radius=3)
        assert is_red(centre(image))
        assert covered(image).sum() == pytest.approx(np.pi * 3**2, rel=0.35)

    def test_near_surfaces_hide_far_ones(self):
        points = [[0, 0, -1], [0, 0, 1], [-1, 0, 0], [1, 0, 0]]
        colors = [(20, 20, 220), RED, RED, RED]
        front = rendering.render_points(points, SIZE, 0, 0, vertex_colors=colors, radius=3)
        back = rendering.render_points(points, SIZE, 180, 0, vertex_colors=colors, radius=3)
        assert is_red(centre(front))
        assert is_blue(centre(back))

    def test_inverted_normals_are_dark(self):
        points = BALL.vertices
        right = rendering.render_points(points, SIZE, normals=points, radius=4)
        wrong = rendering.render_points(points, SIZE, normals=-points, radius=4)
        assert centre(right).sum() > centre(wrong).sum() + 100

    def test_points_outside_the_bounds_are_clipped(self):
        image = rendering.render_points([[50.0, 0, 0]], SIZE, bounds=[[-1, -1, -1], [1, 1, 1]])
        assert not covered(image).any()

    def test_malformed_input_is_rejected(self):
        with pytest.raises(InputError, match="points is empty"):
            rendering.render_points(np.zeros((0, 3)))
        with pytest.raises(InputError, match="2 points but 1 normals"):
            rendering.render_points(np.zeros((2, 3)), normals=[[0, 0, 1]])


class TestSignedSlice:
    def samples(self) -> tuple[np.ndarray, np.ndarray]:
        points = np.random.default_rng(0).uniform(-1, 1, (20_000, 3))
        return points, np.linalg.norm(points, axis=1) - 0.6

    @pytest.mark.parametrize("axis", ["x", "y", "z"])
    def test_samples_are_blue_inside_and_red_outside(self, axis):
        image = rendering.signed_slice(*self.samples(), axis, (160, 160), thickness=0.2)
        assert is_blue(centre(image))
        patch = image[135:145, 75:85]  # below the ball; the legend is at the top
        red, _, blue = patch[covered(patch)].mean(axis=0)
        assert red > blue + 40

    @pytest.mark.parametrize(("letter", "number"), [("x", 0), ("y", 1), ("z", 2)])
    def test_axes_can_be_numbers(self, letter, number):
        by_letter, by_number = (rendering.signed_slice(*self.samples(), axis) for axis in (letter, number))
        assert np.array_equal(by_letter, by_number)

    def test_only_samples_near_the_plane_are_drawn(self):
        # The inner sample is too far from the plane; the outer one is drawn.
        points = np.array([[0, 0, 0.5], [0.8, 0, 0]])
        image = rendering.signed_slice(points, np.array([-0.1, 0.1]), "z", (160, 160))
        assert not covered(image)[60:100, 60:100].any()

    def test_malformed_input_is_rejected(self):
        points, sdf = self.samples()
        with pytest.raises(InputError, match="None of the 1 samples lies within"):
            rendering.signed_slice([[0, 0, 1]], [0.1])
        with pytest.raises(InputError, match="one per point"):
            rendering.signed_slice(points, sdf[:-1])
        with pytest.raises(InputError, match="finite"):
            rendering.signed_slice(points, np.full(len(points), np.nan))
        with pytest.raises(ValueError, match="axis is 'w'"):
            rendering.signed_slice(points, sdf, "w")
