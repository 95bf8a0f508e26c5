"""Pictures, judged by the pixels that a person would look at."""

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdf_backend.errors import InputError
from training import pictures

RED = (220, 20, 20)
SIZE = (120, 90)
BALL = trimesh.creation.icosphere(subdivisions=3)
BOX = trimesh.creation.box(extents=(2, 2, 2))


def centre(image: np.ndarray) -> np.ndarray:
    return image[image.shape[0] // 2, image.shape[1] // 2].astype(int)


def covered(image: np.ndarray) -> np.ndarray:
    return (np.abs(image.astype(int) - np.array(pictures.BACKGROUND, int)) > 3).any(axis=2)


def is_red(pixel: np.ndarray) -> bool:
    return bool(pixel[0] > pixel[1] + 60 and pixel[0] > pixel[2] + 60)


def is_blue(pixel: np.ndarray) -> bool:
    return bool(pixel[2] > pixel[0] + 40)


def magenta_share(image: np.ndarray) -> float:
    image = image.astype(int)
    return float(np.mean((image[..., 0] > image[..., 1] + 40) & (image[..., 2] > image[..., 1] + 40)))


class TestMesh:
    def test_red_ball_on_a_light_ground(self):
        image = pictures.render_mesh(BALL.vertices, BALL.faces, SIZE, color=RED)
        assert image.shape == (90, 120, 3)
        assert image.dtype == np.uint8
        assert is_red(centre(image))
        assert tuple(image[0, 0]) == pictures.BACKGROUND
        assert tuple(image[-1, -1]) == pictures.BACKGROUND

    def test_fills_the_picture_but_for_the_margin(self):
        disc = covered(pictures.render_mesh(BALL.vertices, BALL.faces, SIZE))
        diameter = 90 * (1 - 2 * pictures.MARGIN)
        assert disc.any(axis=1).sum() == pytest.approx(diameter, abs=2)
        assert disc.any(axis=0).sum() == pytest.approx(diameter, abs=2)
        assert disc.sum() == pytest.approx(np.pi / 4 * diameter**2, rel=0.05)

    def test_lit_from_above_left(self):
        image = pictures.render_mesh(BALL.vertices, BALL.faces, SIZE).astype(int).sum(axis=2)
        assert image[25, 45] > image[65, 75] + 60

    def test_inverted_ball_shows_the_warning(self):
        assert magenta_share(pictures.render_mesh(BALL.vertices, BALL.faces[:, ::-1], SIZE)) > 0.4

    def test_closed_meshes_show_no_warning(self):
        torus = trimesh.creation.torus(1, 0.3)
        for mesh in (BALL, BOX, torus):
            assert magenta_share(pictures.render_mesh(mesh.vertices, mesh.faces, SIZE)) == 0

    def test_inside_of_an_open_mesh_shows_the_warning(self):
        bowl = BALL.faces[BALL.triangles_center[:, 1] < 0]
        from_above = pictures.render_mesh(BALL.vertices, bowl, SIZE, elevation=60)
        from_below = pictures.render_mesh(BALL.vertices, bowl, SIZE, elevation=-60)
        assert magenta_share(from_above) > 0.2
        assert magenta_share(from_below) < 0.05

    def test_faces_doubled_back_to_back_count_as_their_fronts(self):
        doubled = np.concatenate([BOX.faces, BOX.faces[:, ::-1]])
        image = pictures.render_mesh(BOX.vertices, doubled, SIZE).astype(int)
        assert np.abs(image - pictures.render_mesh(BOX.vertices, BOX.faces, SIZE)).max() <= 1

    def test_creases_stay_sharp(self):
        # Three sides of a box are seen; smoothing across its edges would give hundreds of shades.
        image = pictures.render_mesh(BOX.vertices, BOX.faces, SIZE)
        shades, counts = np.unique(image[covered(image)], axis=0, return_counts=True)
        assert np.sort(counts)[-3:].sum() > 0.85 * covered(image).sum()
        assert len(shades) > 3  # antialiased edges

    def test_nearer_hides_farther(self):
        both = np.concatenate([0.5 * BALL.vertices + [0, 0, 2], BALL.vertices])
        faces = np.concatenate([BALL.faces, BALL.faces + len(BALL.vertices)])
        colors = np.repeat([RED, (20, 20, 220)], len(BALL.vertices), axis=0)
        front = pictures.render_mesh(both, faces, SIZE, azimuth=0, elevation=0, vertex_colors=colors)
        back = pictures.render_mesh(both, faces, SIZE, azimuth=180, elevation=0, vertex_colors=colors)
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
    def test_where_the_camera_stands(self, azimuth, elevation, up, toward):
        colors = np.where((BALL.vertices @ np.array(toward) > 0)[:, None], RED, (20, 20, 220))
        image = pictures.render_mesh(BALL.vertices, BALL.faces, SIZE, azimuth, elevation, up, vertex_colors=colors)
        assert is_red(centre(image))

    @pytest.mark.parametrize(("up", "axis"), [("y", 1), ("z", 2)])
    def test_up_is_up_and_right_is_right(self, up, axis):
        marked = np.zeros((len(BALL.vertices), 3))
        marked[:, 0] = 255 * (BALL.vertices[:, axis] > 0.2)
        marked[:, 2] = 255 * (BALL.vertices[:, 0] > 0.2)
        image = pictures.render_mesh(BALL.vertices, BALL.faces, SIZE, 0, 0, up, vertex_colors=marked).astype(int)
        assert image[20, 60, 0] > 100 > image[70, 60, 0]
        assert image[45, 85, 2] > 100 > image[45, 35, 2]

    def test_observed_values(self):
        observed = BALL.vertices[:, 0] > 0
        image = pictures.render_mesh(BALL.vertices, BALL.faces, SIZE, 0, 0, vertex_colors=observed)
        assert is_blue(image[45, 75].astype(int))
        assert is_red(image[45, 45].astype(int) * [1, 0, 1])  # orange: red well above blue

    def test_shared_bounds_keep_the_scale(self):
        bounds = pictures.shared_bounds(BALL.vertices, 0.5 * BALL.vertices)
        large = pictures.render_mesh(BALL.vertices, BALL.faces, SIZE, bounds=bounds)
        small = pictures.render_mesh(0.5 * BALL.vertices, BALL.faces, SIZE, bounds=bounds)
        assert covered(small).sum() == pytest.approx(covered(large).sum() / 4, rel=0.1)

    @settings(deadline=None, max_examples=15)
    @given(st.floats(1e-3, 1e3), st.tuples(*[st.floats(-100, 100)] * 3))
    def test_framing_ignores_scale_and_place(self, scale, shift):
        moved = pictures.render_mesh(BOX.vertices * scale + np.array(shift), BOX.faces, (40, 30)).astype(int)
        still = pictures.render_mesh(BOX.vertices, BOX.faces, (40, 30)).astype(int)
        assert np.mean(np.abs(moved - still)) < 1

    def test_deterministic(self):
        first, again = (pictures.render_mesh(BALL.vertices, BALL.faces, SIZE) for _ in range(2))
        assert np.array_equal(first, again)

    def test_malformed(self):
        with pytest.raises(InputError, match="faces is empty"):
            pictures.render_mesh(BALL.vertices, np.zeros((0, 3), int))
        with pytest.raises(InputError, match="vertex_colors has shape"):
            pictures.render_mesh(BALL.vertices, BALL.faces, vertex_colors=np.zeros((2, 3)))
        with pytest.raises(InputError, match="a low and a high corner"):
            pictures.render_mesh(BALL.vertices, BALL.faces, bounds=[[1, 1, 1], [0, 0, 0]])
        with pytest.raises(ValueError, match="up is 'x'"):
            pictures.render_mesh(BALL.vertices, BALL.faces, up="x")
        with pytest.raises(ValueError, match="size is"):
            pictures.render_mesh(BALL.vertices, BALL.faces, size=(0, 10))


class TestPoints:
    def test_a_dense_ball(self):
        points, _ = trimesh.sample.sample_surface(BALL, 20_000, seed=0)
        image = pictures.render_points(points, SIZE, color=RED, radius=2)
        assert is_red(centre(image))
        assert tuple(image[0, 0]) == pictures.BACKGROUND

    def test_one_point_is_one_small_disc(self):
        image = pictures.render_points([[5.0, 5.0, 5.0]], SIZE, color=RED, radius=3)
        assert is_red(centre(image))
        assert covered(image).sum() == pytest.approx(np.pi * 3**2, rel=0.35)

    def test_nearer_hides_farther(self):
        points = [[0, 0, -1], [0, 0, 1], [-1, 0, 0], [1, 0, 0]]
        colors = [(20, 20, 220), RED, RED, RED]
        front = pictures.render_points(points, SIZE, 0, 0, vertex_colors=colors, radius=3)
        back = pictures.render_points(points, SIZE, 180, 0, vertex_colors=colors, radius=3)
        assert is_red(centre(front))
        assert is_blue(centre(back))

    def test_inverted_normals_are_dark(self):
        points = BALL.vertices
        right = pictures.render_points(points, SIZE, normals=points, radius=4)
        wrong = pictures.render_points(points, SIZE, normals=-points, radius=4)
        assert centre(right).sum() > centre(wrong).sum() + 100

    def test_points_outside_the_bounds_are_cut_off(self):
        image = pictures.render_points([[50.0, 0, 0]], SIZE, bounds=[[-1, -1, -1], [1, 1, 1]])
        assert not covered(image).any()

    def test_malformed(self):
        with pytest.raises(InputError, match="points is empty"):
            pictures.render_points(np.zeros((0, 3)))
        with pytest.raises(InputError, match="2 points but 1 normals"):
            pictures.render_points(np.zeros((2, 3)), normals=[[0, 0, 1]])


class TestSignedSlice:
    def samples(self) -> tuple[np.ndarray, np.ndarray]:
        points = np.random.default_rng(0).uniform(-1, 1, (20_000, 3))
        return points, np.linalg.norm(points, axis=1) - 0.6

    @pytest.mark.parametrize("axis", ["x", "y", "z"])
    def test_blue_inside_and_red_outside(self, axis):
        image = pictures.signed_slice(*self.samples(), axis, (160, 160), thickness=0.2)
        assert is_blue(centre(image))
        patch = image[135:145, 75:85]  # below the ball; the legend stands above it
        red, _, blue = patch[covered(patch)].mean(axis=0)
        assert red > blue + 40

    @pytest.mark.parametrize(("letter", "number"), [("x", 0), ("y", 1), ("z", 2)])
    def test_axes_by_number(self, letter, number):
        by_letter, by_number = (pictures.signed_slice(*self.samples(), axis) for axis in (letter, number))
        assert np.array_equal(by_letter, by_number)

    def test_only_the_plane_is_drawn(self):
        # Inside the ball of samples nothing is within reach of the plane: what is left is the outer ring.
        points = np.array([[0, 0, 0.5], [0.8, 0, 0]])
        image = pictures.signed_slice(points, np.array([-0.1, 0.1]), "z", (160, 160))
        assert not covered(image)[60:100, 60:100].any()

    def test_malformed(self):
        points, sdf = self.samples()
        with pytest.raises(InputError, match="None of the 1 samples lies within"):
            pictures.signed_slice([[0, 0, 1]], [0.1])
        with pytest.raises(InputError, match="one a point"):
            pictures.signed_slice(points, sdf[:-1])
        with pytest.raises(InputError, match="finite"):
            pictures.signed_slice(points, np.full(len(points), np.nan))
        with pytest.raises(ValueError, match="axis is 'w'"):
            pictures.signed_slice(points, sdf, "w")


class TestSheets:
    def tiles(self, count: int) -> list[np.ndarray]:
        return [np.full((30, 120, 3), 40 * index, np.uint8) for index in range(count)]

    def test_contact_sheet(self, tmp_path):
        path = tmp_path / "made" / "sheet.png"
        pictures.contact_sheet(self.tiles(5), ["one", "two", "three", "four", "five"], 3, path)
        assert [file.name for file in path.parent.iterdir()] == ["sheet.png"]
        with Image.open(path) as image:
            assert image.format == "PNG"
            sheet = np.asarray(image)
        gap, cell = pictures.GAP, 30 + pictures.GAP // 2 + round(1.35 * pictures.FONT_SIZE)
        assert sheet.shape == (gap + 2 * (cell + gap), gap + 3 * (120 + gap), 3)
        for index in range(5):
            row, column = divmod(index, 3)
            top, left = gap + row * (cell + gap), gap + column * (120 + gap)
            assert (sheet[top : top + 30, left : left + 120] == 40 * index).all()
            assert sheet[top + 30 : top + cell, left : left + 120].min() < 120  # the label's ink

    def test_failure_leaves_the_old_file_and_no_other(self, tmp_path):
        path = tmp_path / "sheet.png"
        path.write_bytes(b"old")
        with pytest.raises(TypeError):
            pictures.write_png(np.zeros((4, 4, 7), np.uint8), path)
        assert [file.name for file in tmp_path.iterdir()] == ["sheet.png"]
        assert path.read_bytes() == b"old"

    def test_long_labels_wrap(self):
        short = pictures.side_by_side([("label", self.tiles(1)[0])])
        long = pictures.side_by_side([("a label of many words that fit no single line", self.tiles(1)[0])])
        assert long.shape[0] > short.shape[0]
        assert long.shape[1] == short.shape[1]

    def test_sizes_may_differ(self):
        small, large = np.zeros((10, 20, 3), np.uint8), np.zeros((40, 60, 3), np.uint8)
        row = pictures.side_by_side([("small", small), ("large", large)])
        assert row.shape[1] == 3 * pictures.GAP + 2 * 60
        black = (row[: pictures.GAP + 40] == 0).all(axis=2)
        assert black.sum() == small[..., 0].size + large[..., 0].size

    def test_malformed(self, tmp_path):
        with pytest.raises(ValueError, match="no images"):
            pictures.side_by_side([])
        with pytest.raises(ValueError, match="2 images but 1 labels"):
            pictures.contact_sheet(self.tiles(2), ["one"], 2, tmp_path / "sheet.png")
        with pytest.raises(ValueError, match="columns is 0"):
            pictures.contact_sheet(self.tiles(1), ["one"], 0, tmp_path / "sheet.png")
        assert list(tmp_path.iterdir()) == []
