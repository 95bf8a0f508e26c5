"""Meshes and point clouds through real files, and files that are something else."""

import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf_backend.errors import InputError
from sdf_backend.geometry.closure import is_closed
from sdf_backend.geometry.file_readers.formats import read_file
from sdf_backend.geometry.mesh_files import OUTPUT_FORMATS, WriteSettings, check_output, read_geometry, write_mesh
from sdf_backend.geometry.quads import quad_mesh, triangles_of

BOX = trimesh.creation.box((1, 2, 3), transform=trimesh.transformations.translation_matrix([10, 20, 30]))
BALL = trimesh.creation.icosphere(3)
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


def test_ply_holds_the_observed_weight_of_each_vertex_and_no_colours_that_nobody_gave(tmp_path: Path) -> None:
    observed = np.linspace(0, 1, 8).astype(np.float32)
    write_mesh(tmp_path / "box.ply", np.array(BOX.vertices), np.array(BOX.faces), observed)
    loaded = trimesh.load(tmp_path / "box.ply", process=False)
    assert isinstance(loaded, trimesh.Trimesh)
    columns = loaded.metadata["_ply_raw"]["vertex"]["data"]
    assert np.array_equal(columns["observed"].reshape(-1), observed)
    assert columns.dtype.names == ("x", "y", "z", "observed")


SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 2, 0]])
HALVES = np.array([[0, 1, 2], [0, 2, 3], [3, 2, 4]])


@pytest.mark.parametrize(("suffix", "quads"), [(".ply", 1), (".obj", 1), (".glb", 0), (".stl", 0), (".3mf", 0)])
def test_ply_and_obj_hold_quads_and_the_rest_says_that_it_cannot(tmp_path: Path, suffix: str, quads: int) -> None:
    path = tmp_path / f"square{suffix}"
    note = write_mesh(path, SQUARE, HALVES, quads=1)
    assert note.count("holds only triangles") == 1 - quads
    [part] = read_file(path)
    assert part.polygons.sizes.tolist() == ([4, 3] if quads else [3, 3, 3])
    corners = part.vertices[part.polygons.corners[: part.polygons.sizes[0]]]
    assert np.allclose(corners, SQUARE[:4] if quads else SQUARE[:3])


@pytest.mark.parametrize("suffix", OUTPUT_FORMATS)
def test_normals_are_written_where_a_format_holds_them(tmp_path: Path, suffix: str) -> None:
    path, ball = tmp_path / f"ball{suffix}", trimesh.creation.icosphere(3)
    note = write_mesh(path, np.array(ball.vertices), np.array(ball.faces), settings=WriteSettings(normals=True))
    assert ("holds no normals" in note) == (suffix in (".stl", ".3mf"))
    if not note:
        loaded = trimesh.load(path, process=False, force="mesh")
        assert isinstance(loaded, trimesh.Trimesh)
        normals = loaded.vertex_normals if suffix != ".ply" else ply_columns(path, "nx", "ny", "nz")
        assert "vertex_normals" in loaded._cache or suffix == ".ply"
        assert np.abs(normals - loaded.vertices).max() < 0.02  # of a ball they are its points
        assert len(read_geometry(path).faces) == len(ball.faces)


def ply_columns(path: Path, *names: str) -> np.ndarray:
    columns = trimesh.load(path, process=False).metadata["_ply_raw"]["vertex"]["data"]
    return np.stack([columns[name].reshape(-1) for name in names], axis=1)


@pytest.mark.parametrize("suffix", OUTPUT_FORMATS)
def test_texture_coordinates_are_written_where_a_format_holds_them(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("xatlas")
    path, ball, colors = tmp_path / f"ball{suffix}", trimesh.creation.icosphere(2), np.full((162, 3), 0.2)
    note = write_mesh(
        path, np.array(ball.vertices), np.array(ball.faces), colors=colors, settings=WriteSettings(uv=True)
    )
    assert ("without texture coordinates" in note) == (suffix not in (".obj", ".glb"))
    if note:
        return
    loaded = trimesh.load(path, process=False, force="mesh")
    assert isinstance(loaded, trimesh.Trimesh)
    places = loaded.visual.uv[loaded.faces]  # (m, 3, 2)
    assert places.min() >= 0 and places.max() <= 1
    # Faces keep their shares of the area, and do not overlap.
    a, b = places[:, 1] - places[:, 0], places[:, 2] - places[:, 0]
    areas = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    assert 0.3 < areas.sum() <= 1 and (areas > 0).all()
    assert np.quantile(areas / loaded.area_faces, 0.95) < 2 * np.quantile(areas / loaded.area_faces, 0.05)
    read = read_geometry(path)
    assert len(read.faces) == len(ball.faces) and read.colors is not None and np.abs(read.colors - 0.2).max() < 0.01


def test_quads_keep_their_texture_coordinates_and_those_on_a_seam_are_cut(tmp_path: Path) -> None:
    pytest.importorskip("xatlas")
    vertices, quads = quad_mesh(*(np.asarray(of) for of in (BALL.vertices, BALL.faces)), 200)
    note = write_mesh(
        tmp_path / "ball.obj", vertices, triangles_of(quads), quads=len(quads), settings=WriteSettings(uv=True)
    )
    [part] = read_file(tmp_path / "ball.obj")
    cut = (part.polygons.sizes == 3).sum() // 2
    assert (part.polygons.sizes == 4).sum() == len(quads) - cut
    told = f"{cut} of {len(quads)} quads, across which a seam of the texture runs, were cut in two."
    assert note == (told if cut else "")
    assert is_closed(read_geometry(tmp_path / "ball.obj").faces)


def test_texture_coordinates_without_the_software_for_them_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xatlas", None)
    with pytest.raises(InputError, match=r"texture coordinates need more software.*sdf-shapes\[formats\]"):
        WriteSettings(uv=True)


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

    path = tmp_path / "box.3mf"
    path.write_text("old")
    monkeypatch.setattr(trimesh.Trimesh, "export", half)
    with pytest.raises(MemoryError):
        write_mesh(path, np.array(BOX.vertices), np.array(BOX.faces))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
