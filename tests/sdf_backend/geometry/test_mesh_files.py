"""Meshes and point clouds through real files, and files that are something else."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import OUTPUT_FORMATS, check_output, observed_colors, read_geometry, write_mesh

BOX = trimesh.creation.box((1, 2, 3), transform=trimesh.transformations.translation_matrix([10, 20, 30]))
PLY_HEADER = "ply\nformat ascii 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\n"


def corners(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(n, 3, 3) triangles in an order that does not depend on the file."""
    triangles = vertices[faces]
    first = np.array([np.lexsort(triangle.T)[0] for triangle in triangles])
    rolled = np.stack([np.roll(triangle, -start, axis=0) for triangle, start in zip(triangles, first, strict=True)])
    return rolled[np.lexsort(rolled.reshape(len(rolled), -1).T)]


@pytest.mark.parametrize("suffix", OUTPUT_FORMATS)
def test_a_mesh_comes_back_with_its_vertices_and_its_winding(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"box{suffix}"
    write_mesh(path, np.array(BOX.vertices), np.array(BOX.faces))
    read = read_geometry(path)
    assert np.allclose(corners(read.vertices, read.faces), corners(np.array(BOX.vertices), np.array(BOX.faces)))
    assert trimesh.Trimesh(read.vertices, read.faces).volume == pytest.approx(6)
    assert (read.vertices.dtype, read.faces.dtype) == (np.float64, np.int64)


@pytest.mark.parametrize("suffix", OUTPUT_FORMATS)
def test_a_mesh_with_observed_weights_comes_back_too(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"box{suffix.upper()}"
    write_mesh(path, np.array(BOX.vertices), np.array(BOX.faces), np.linspace(0, 1, 8))
    read = read_geometry(path)
    assert trimesh.Trimesh(read.vertices, read.faces).volume == pytest.approx(6)


def test_ply_holds_the_observed_weight_of_each_vertex_and_its_colour(tmp_path: Path) -> None:
    observed = np.linspace(0, 1, 8).astype(np.float32)
    write_mesh(tmp_path / "box.ply", np.array(BOX.vertices), np.array(BOX.faces), observed)
    loaded = trimesh.load(tmp_path / "box.ply", process=False)
    assert isinstance(loaded, trimesh.Trimesh)
    columns = loaded.metadata["_ply_raw"]["vertex"]["data"]
    assert np.array_equal(columns["observed"].reshape(-1), observed)
    assert np.array_equal(loaded.visual.vertex_colors[:, :3], np.round(255 * observed_colors(observed)))


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_obj_and_glb_hold_the_observed_colours(tmp_path: Path, suffix: str) -> None:
    observed = np.linspace(0, 1, 8)
    write_mesh(tmp_path / f"box{suffix}", np.array(BOX.vertices), np.array(BOX.faces), observed)
    loaded = trimesh.load(tmp_path / f"box{suffix}", process=False, force="mesh")
    assert isinstance(loaded, trimesh.Trimesh)
    order = [int(np.flatnonzero((np.abs(loaded.vertices - vertex) < 1e-5).all(axis=1))[0]) for vertex in BOX.vertices]
    assert np.abs(loaded.visual.vertex_colors[order, :3] - 255 * observed_colors(observed)).max() <= 1


def test_colours_go_from_orange_for_completed_to_blue_for_observed() -> None:
    completed, middle, blue = 255 * observed_colors(np.array([-1.0, 0.5, 2.0]))
    assert completed[0] > 200 > completed[2]
    assert blue[2] > 150 > blue[0]
    np.testing.assert_allclose(middle, (completed + blue) / 2)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
@pytest.mark.parametrize("faces", [np.array(BOX.faces), np.zeros((0, 3), dtype=np.int64)], ids=["mesh", "cloud"])
def test_colours_of_vertices_come_back_to_the_last_level(tmp_path: Path, suffix: str, faces: np.ndarray) -> None:
    colors, path = np.arange(24).reshape(8, 3) / 24, tmp_path / f"box{suffix}"
    if len(faces):
        write_mesh(path, np.array(BOX.vertices), faces, np.linspace(0, 1, 8), colors=colors)
    else:
        trimesh.PointCloud(BOX.vertices, np.round(255 * colors).astype(np.uint8)).export(path)
    read = read_geometry(path)
    assert read.colors is not None and len(read.faces) == len(faces)
    order = [int(np.linalg.norm(read.vertices - vertex, axis=1).argmin()) for vertex in BOX.vertices]
    assert np.abs(read.colors[order] - colors).max() <= 1.01 / 255


@pytest.mark.parametrize("suffix", OUTPUT_FORMATS)
def test_a_file_without_colours_has_none(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"box{suffix}"
    write_mesh(path, np.array(BOX.vertices), np.array(BOX.faces))
    assert read_geometry(path).colors is None


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e5), suffix=st.sampled_from(OUTPUT_FORMATS))
def test_coordinates_of_any_size_come_back_in_single_precision(
    tmp_path_factory: pytest.TempPathFactory, seed: int, scale: float, suffix: str
) -> None:
    vertices = np.random.default_rng(seed).normal(size=(12, 3)) * scale
    faces = np.arange(12).reshape(4, 3)
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    write_mesh(path, vertices, faces)
    read = read_geometry(path)
    assert np.abs(read.vertices[read.faces] - vertices[faces]).max() <= scale * 1e-5


def test_the_parts_of_a_scene_are_joined_with_their_transforms(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    box = trimesh.creation.box((1, 1, 1))
    scene.add_geometry(box, node_name="here", geom_name="box")
    turn = trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1], [0, 0, 0])
    turn[:3, 3] = 10, 0, 0
    scene.add_geometry(trimesh.creation.box((1, 4, 1)), node_name="there", transform=turn)
    scene.export(tmp_path / "scene.glb")
    read = read_geometry(tmp_path / "scene.glb")
    mesh = trimesh.Trimesh(read.vertices, read.faces)
    assert np.allclose(mesh.bounds, [[-0.5, -0.5, -0.5], [12, 0.5, 0.5]])
    assert mesh.volume == pytest.approx(5)
    assert mesh.body_count == 2


def test_a_file_without_faces_is_a_point_cloud_with_its_normals(tmp_path: Path) -> None:
    rows = "0 0 1 0 0 2\n1 0 0 1 0 0\n0 1 0 0 1 0\n"
    normals = "property float nx\nproperty float ny\nproperty float nz\nend_header\n"
    (tmp_path / "cloud.ply").write_text(PLY_HEADER.format(3) + normals + rows)
    read = read_geometry(tmp_path / "cloud.ply")
    assert read.vertices.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert read.faces.shape == (0, 3)
    assert read.normals is not None
    assert read.normals.tolist() == [[0, 0, 2], [1, 0, 0], [0, 1, 0]]


def test_normals_that_are_not_finite_are_ignored(tmp_path: Path) -> None:
    normals = "property float nx\nproperty float ny\nproperty float nz\nend_header\n"
    (tmp_path / "cloud.ply").write_text(PLY_HEADER.format(1) + normals + "0 0 1 nan 0 2\n")
    read = read_geometry(tmp_path / "cloud.ply")
    assert len(read.vertices) == 1
    assert read.normals is None


@pytest.mark.parametrize(("name", "text"), [("cloud.obj", "v 0 0 1\nv 1 2 3\n"), ("cloud.xyz", "0 0 1\n1 2 3\n")])
def test_a_cloud_without_normals_has_none(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    read = read_geometry(tmp_path / name)
    assert read.vertices.tolist() == [[0, 0, 1], [1, 2, 3]]
    assert read.faces.shape == (0, 3)
    assert read.normals is None


def test_a_meshs_vertices_keep_their_order_and_are_not_merged(tmp_path: Path) -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=float)
    write_mesh(tmp_path / "two.ply", vertices, np.arange(6).reshape(2, 3))
    assert np.array_equal(read_geometry(tmp_path / "two.ply").vertices, vertices)


GARBAGE = np.random.default_rng(0).bytes(3_000)
SUFFIXES = (".ply", ".obj", ".glb", ".stl", ".off", ".xyz")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", GARBAGE, b"hello world\n"], ids=["empty", "garbage", "words"])
def test_a_file_that_is_no_mesh_is_refused_with_its_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=rf"broken\{suffix} (cannot be read as a mesh or point file: \S|has no vertices)"
    ):
        read_geometry(path)


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".stl"])
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"cut{suffix}"
    write_mesh(path, np.array(BOX.vertices), np.array(BOX.faces))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="cut"):
        read_geometry(path)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_points_that_are_not_finite_are_left_out_and_counted(tmp_path: Path, value: str) -> None:
    text = PLY_HEADER.format(3) + f"end_header\n{value} 0 0\n1 {value} {value}\n0 0 1\n"
    (tmp_path / "holes.ply").write_text(text)
    read = read_geometry(tmp_path / "holes.ply")
    assert read.vertices.tolist() == [[0, 0, 1]]
    assert read.notes == ("2 of 3 points have no finite coordinates and were left out.",)


@pytest.mark.parametrize("index", [3, 1_000_000, -1])
def test_faces_with_indices_of_missing_vertices_are_refused(tmp_path: Path, index: int) -> None:
    faces = "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    (tmp_path / "loose.ply").write_text(PLY_HEADER.format(3) + faces + f"0 0 0\n1 0 0\n0 1 0\n3 0 1 {index}\n")
    with pytest.raises(InputError, match=r"loose\.ply has faces with vertex indices out of range; it has 3 vertices"):
        read_geometry(tmp_path / "loose.ply")


def test_a_file_without_vertices_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.ply").write_text(PLY_HEADER.format(0) + "end_header\n")
    with pytest.raises(InputError, match=r"none\.ply has no vertices"):
        read_geometry(tmp_path / "none.ply")


@pytest.mark.parametrize(("name", "reason"), [("missing.ply", "does not exist"), (".", "is a folder")])
def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"{reason}; give a mesh or point file"):
        read_geometry(tmp_path / name)


@pytest.mark.parametrize("name", ["box.dae", "box", "box.ply.gz", ".ply"])
def test_an_unknown_output_format_is_refused_and_the_known_ones_are_listed(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"is not a mesh format; use one of \.ply, \.obj, \.glb, \.stl"):
        write_mesh(tmp_path / name, np.array(BOX.vertices), np.array(BOX.faces))
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_folder_or_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.ply").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"folder\.ply: it is a folder; give a file name"):
        check_output(tmp_path / "folder.ply")
    with pytest.raises(InputError, match=r"file is a file; choose another folder"):
        write_mesh(tmp_path / "file" / "box.ply", np.array(BOX.vertices), np.array(BOX.faces))
    assert (tmp_path / "file").read_text() == "mine"


def test_missing_folders_of_an_output_are_created(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a" / "b" / "box.stl", np.array(BOX.vertices), np.array(BOX.faces))
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["box.stl"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(mesh: trimesh.Trimesh, file: Path, **_: object) -> None:
        Path(file).write_text("half")
        raise MemoryError

    path = tmp_path / "box.obj"
    path.write_text("old")
    monkeypatch.setattr(trimesh.Trimesh, "export", half)
    with pytest.raises(MemoryError):
        write_mesh(path, np.array(BOX.vertices), np.array(BOX.faces))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
