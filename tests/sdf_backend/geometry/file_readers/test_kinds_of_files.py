"""Files of the kinds on which readers fail, with what is right: those of tests/cases, and more made here."""

import bz2
import gzip
import io
import json
import os
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import DracoPy
import laspy
import numpy as np
import pye57
import pytest
import trimesh
from sample_files import FACES, VERTICES, binary_files, gltf, text_files

from sdf_backend.errors import InputError
from sdf_backend.geometry.file_readers.pcd import decompress_lzf
from sdf_backend.geometry.mesh_files import OUTPUT_FORMATS, read_geometry, write_mesh
from sdf_backend.geometry.source_geometry import Geometry

CASES = Path(__file__).parents[3] / "cases"
PLY = "ply\nformat {}\nelement vertex {}\nproperty {} x\nproperty {} y\nproperty {} z\n"
SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


def area(geometry: Geometry) -> float:
    return float(trimesh.triangles.area(geometry.vertices[geometry.faces]).sum())


def volume(geometry: Geometry) -> float:
    return float(np.linalg.det(geometry.vertices[geometry.faces]).sum() / 6)


def written(path: Path, content: str | bytes) -> Geometry:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_geometry(path)


@pytest.mark.parametrize(
    ("name", "vertices", "faces"),
    [
        ("mixed_polygons.ply", 150, 280),
        ("tristrips_binary.ply", 42, 80),
        ("ngons.off", 10, 16),
        ("texture_missing.ply", 16, 18),
        ("lowpoly_table.obj", 40, 60),
        ("header.xyz", 300, 0),
        ("comma.xyz", 300, 0),
        ("decimal_comma.xyz", 300, 0),
        ("points.txt", 300, 0),
        ("points.pcd", 300, 0),
        ("surface_samples.ply", 600, 0),
    ],
)
def test_a_case_has_its_vertices_and_faces(name: str, vertices: int, faces: int) -> None:
    read = read_geometry(CASES / name)
    assert (len(read.vertices), len(read.faces)) == (vertices, faces)
    assert np.ptp(read.vertices, axis=0).max() < 3.01


def test_a_ply_that_was_cut_off_is_refused_with_what_is_there() -> None:
    with pytest.raises(InputError, match=r"ends early: 300 rows of vertex are announced, 147 are there"):
        read_geometry(CASES / "truncated.ply")


# --- polygons


def test_a_concave_polygon_keeps_its_notch() -> None:
    read = read_geometry(CASES / "bracket.obj")
    assert (area(read), volume(read)) == (pytest.approx(12.5), pytest.approx(1.5))


@pytest.mark.parametrize("turn", range(6))
@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply"])
def test_an_l_has_its_area_and_winding_whatever_corner_comes_first(tmp_path: Path, suffix: str, turn: int) -> None:
    outline = np.array([(0, 0), (3, 0), (3, 1), (1, 1), (1, 4), (0, 4)])
    points = np.column_stack([outline, 2 * outline[:, 0]])  # in a slanted plane
    corners = " ".join(str((turn + i) % 6 + (suffix == ".obj")) for i in range(6))
    rows = ["{} {} {}".format(*point) for point in points]
    content = {
        ".obj": "".join(f"v {row}\n" for row in rows) + f"f {corners}\n",
        ".off": "\n".join(["OFF 6 1 0", *rows, f"6 {corners}\n"]),
        ".ply": PLY.format("ascii 1.0", 6, *["float"] * 3)
        + "element face 1\nproperty list uchar int vertex_index\nend_header\n"
        + "\n".join([*rows, f"6 {corners}\n"]),
    }[suffix]
    read = written(tmp_path / f"l{suffix}", content)
    across = np.cross(*np.moveaxis(np.diff(read.vertices[read.faces], axis=1), 1, 0)).sum(axis=0) / 2
    np.testing.assert_allclose(across, [-12, 0, 6])  # the area vector of the outline
    assert area(read) == pytest.approx(np.linalg.norm(across)) and len(read.faces) == 4


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("code", "name"), [("B", "uchar"), ("H", "ushort"), ("i", "int")])
def test_binary_ply_mixes_polygons_in_either_byte_order(tmp_path: Path, order: str, code: str, name: str) -> None:
    header = PLY.format(f"binary_{'little' if order == '<' else 'big'}_endian 1.0", 5, *["double"] * 3)
    header += f"element face 3\nproperty uchar red\nproperty list {name} uint vertex_indices\nend_header\n"
    points = [*SQUARE, (0.5, 0.5, 1)]
    faces = [(0, 1, 2, 3), (0, 1, 4), (3, 2, 1, 0, 4)]
    body = b"".join(struct.pack(f"{order}3d", *point) for point in points)
    body += b"".join(struct.pack(f"{order}B{code}{len(face)}I", 7, len(face), *face) for face in faces)
    read = written(tmp_path / "mixed.ply", header.encode() + body)
    assert read.vertices.tolist() == [list(point) for point in points]
    assert len(read.faces) == 2 + 1 + 3 and [0, 1, 4] in read.faces.tolist()


@pytest.mark.parametrize("strip", ["4 0 1 3 2", "9 0 1 3 -1 1 2 3 -1 -1", "6 0 1 3 3 2 2"])
def test_triangle_strips_turn_over_and_may_break(tmp_path: Path, strip: str) -> None:
    text = PLY.format("ascii 1.0", 4, *["float"] * 3) + "element tristrips 1\nproperty list int int vertex_indices\n"
    rows = "".join("{} {} {}\n".format(*point) for point in SQUARE)
    read = written(tmp_path / "strip.ply", f"{text}end_header\n{rows}{strip}\n")
    normals = np.cross(*np.moveaxis(np.diff(read.vertices[read.faces], axis=1), 1, 0))
    assert area(read) in (0.5, 1.0) and (normals[:, 2] > 0).all()


@pytest.mark.parametrize(
    ("heading", "row"),
    [("COFF", "255 0 0 255"), ("NOFF", "0 0 1"), ("OFF # of a program", ""), ("CNOFF", "0 0 1 1 0 0")],
)
def test_off_of_other_makes_has_the_same_vertices(tmp_path: Path, heading: str, row: str) -> None:
    points = "".join("{} {} {} {}\n".format(*point, row) for point in SQUARE)
    read = written(tmp_path / "square.off", f"{heading}\n# counts\n4 1 0\n\n{points}4 0 1 2 3 0.5 0.5 0.5\n")
    assert read.vertices.tolist() == [list(point) for point in SQUARE] and area(read) == 1
    assert (read.colors is not None) == heading.startswith("C")


def test_obj_counts_back_and_continues_lines_and_has_colours(tmp_path: Path) -> None:
    colored = "".join("v {} {} {} 1 0.5 0\n".format(*point) for point in SQUARE)
    text = f"mtllib gone.mtl\n{colored}vt 0 0\nvn 0 0 1\nf -4/1/1 -3//1 \\\n-2/1 -1\nv 0 0 1 0 0 0\nf 1 2 5\n"
    read = written(tmp_path / "mixed.obj", text)
    assert read.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 4]]
    assert read.colors is not None and read.colors[0].tolist() == [1, 0.5, 0]


# --- clouds


CLOUD = np.round(np.random.default_rng(3).normal(size=(40, 3)), 4) + 2


@pytest.mark.parametrize(
    ("name", "heading", "line"),
    [
        ("semicolon.csv", "x;y;z;label\n", "{:.4f};{:.4f};{:.4f};tree"),
        ("semicolon_comma.txt", "", "{:.4f};{:.4f};{:.4f}"),
        ("intensity.pts", "40\n", "{:.4f} {:.4f} {:.4f} 7 255 0 3"),
        ("tabs.asc", "// made by hand\n", "{:.4f}\t{:.4f}\t{:.4f}"),
        ("spaced.csv", '"X", "Y", "Z", "R", "G", "B"\n', "{:.4f}, {:.4f}, {:.4f}, 255, 0, 3"),
        ("reordered.csv", "id,z,y,x\n", "9,{2:.4f},{1:.4f},{0:.4f}"),
    ],
)
def test_lists_of_points_are_read_whatever_separates_them(tmp_path: Path, name: str, heading: str, line: str) -> None:
    rows = "".join(line.format(*point) + "\n" for point in CLOUD)
    decimal_comma = name == "semicolon_comma.txt"
    read = written(tmp_path / name, heading + (rows.replace(".", ",") if decimal_comma else rows))
    np.testing.assert_allclose(read.vertices, CLOUD)
    if "255" in line:
        assert read.colors is not None
        np.testing.assert_allclose(read.colors[0], [1, 0, 3 / 255])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("few.pts", "3\n1 2 3\n4 5 6\n", "announces 3 points, and 2 follow"),
        ("both.csv", "0,0450,0,0012,0,5\n1,0450,0,0012,0,5\n", "commas separate both its columns and its decimals"),
        ("ragged.xyz", "1 2 3\n1 2 3 4\n", "different numbers of columns"),
        ("words.txt", "this is no list\nof points at all\n", "do not begin with three numbers"),
    ],
)
def test_a_list_of_points_that_is_not_certain_is_refused(tmp_path: Path, name: str, content: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        written(tmp_path / name, content)


def test_ptx_grids_are_placed_and_empty_pixels_left_out(tmp_path: Path) -> None:
    grid = "2\n2\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n0 1 0 0\n-1 0 0 0\n0 0 1 0\n10 20 30 1\n"
    rows = "1 0 0 0.5 255 0 0\n0 0 0 0.5 0 0 0\n0 1 0 0.5 0 255 0\n0 0 0 0.5 0 0 0\n"
    read = written(tmp_path / "scan.ptx", 2 * (grid + rows))
    assert read.vertices.tolist() == 2 * [[10, 21, 30], [9, 20, 30]]
    assert read.colors is not None and read.colors[0].tolist() == [1, 0, 0]
    assert read.notes == 2 * ("2 of 4 points of a scan are empty and were left out.",)


def test_pcd_holds_normals_and_packed_colours(tmp_path: Path) -> None:
    names = "x y z rgb normal_x normal_y normal_z"
    packed = struct.unpack("<f", bytes([3, 0, 255, 0]))[0]
    rows = b"".join(struct.pack("<7f", *point, packed, 0, 0, 1) for point in CLOUD)
    header = f"FIELDS {names}\nSIZE{' 4' * 7}\nTYPE{' F' * 7}\nCOUNT{' 1' * 7}\nPOINTS 40\nDATA binary\n"
    read = written(tmp_path / "scan.pcd", header.encode() + rows)
    np.testing.assert_allclose(read.vertices, CLOUD, atol=1e-6)
    assert read.colors is not None and np.allclose(read.colors, [1, 0, 3 / 255])
    assert read.normals is not None and read.normals.tolist() == 40 * [[0, 0, 1]]


def test_compressed_pcd_is_read_field_after_field(tmp_path: Path) -> None:
    columns = np.repeat(CLOUD[:1], 40, axis=0).astype("<f4").T.tobytes()
    # Each field: four bytes as they are, then copies of them, which reach into what they write.
    packed = b"".join(b"\x03" + columns[160 * i : 160 * i + 4] + bytes([7 << 5, 156 - 9, 3]) for i in range(3))
    assert decompress_lzf(packed, len(columns)) == columns
    header = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nPOINTS 40\nDATA binary_compressed\n"
    content = header.encode() + struct.pack("<2I", len(packed), len(columns)) + packed
    with pytest.raises(InputError, match="compressed data are damaged"):
        written(tmp_path / "cut.pcd", header.encode() + struct.pack("<2I", len(packed), 500) + packed)
    np.testing.assert_allclose(written(tmp_path / "scan.pcd", content).vertices, 40 * [CLOUD[0].tolist()], atol=1e-6)


def test_las_laz_e57_and_npy_are_clouds(tmp_path: Path) -> None:
    files = binary_files(tmp_path)
    (tmp_path / "scan.laz").write_bytes(files[".las"])
    laspy.read(io.BytesIO(files[".las"])).write(str(tmp_path / "scan.laz"))
    scans = pye57.E57(str(tmp_path / "scan.e57"), mode="w")
    scans.write_scan_raw({f"cartesian{axis}": column.copy() for axis, column in zip("XYZ", VERTICES.T, strict=True)})
    scans.close()
    (tmp_path / "scan.las").write_bytes(files[".las"])
    (tmp_path / "scan.npy").write_bytes(files[".npy"])
    for suffix in (".las", ".laz", ".e57", ".npy"):
        read = read_geometry(tmp_path / f"scan{suffix}")
        np.testing.assert_allclose(read.vertices, VERTICES, atol=2e-6)
        assert len(read.faces) == 0


def test_every_format_gives_the_same_mesh_or_cloud(tmp_path: Path) -> None:
    for suffix, content in [*text_files().items(), *binary_files(tmp_path).items()]:
        read = written(tmp_path / f"same{suffix}", content)
        if len(read.faces):
            assert np.abs(np.sort(read.vertices[read.faces], axis=0) - np.sort(VERTICES[FACES], axis=0)).max() < 1e-5
        else:
            np.testing.assert_allclose(read.vertices, VERTICES, atol=1e-5)


def test_an_unknown_format_is_refused_with_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.blend is not a format that is read; these are: .*\.las .*\.ply .*\.zip"):
        written(tmp_path / "scene.blend", "BLENDER")


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = binary_files(tmp_path)[".las"]
    monkeypatch.setitem(__import__("sys").modules, "laspy", None)
    with pytest.raises(InputError, match=r"LAS and LAZ needs more software; .*pip install 'sdf-shapes\["):
        written(tmp_path / "scan.las", content)


# --- meaningless faces and missing pixels


SAMPLES = np.random.default_rng(0).normal(size=(600, 3))
SAMPLES /= np.linalg.norm(SAMPLES, axis=1, keepdims=True)


@pytest.mark.parametrize(
    "faces",
    [
        np.arange(600).reshape(-1, 3),
        np.stack([np.arange(598) + i for i in range(3)], axis=1),
        np.random.default_rng(1).integers(600, size=(400, 3)),
    ],
    ids=["in order", "strips", "at random"],
)
def test_faces_that_join_samples_without_meaning_are_no_surface(tmp_path: Path, faces: np.ndarray) -> None:
    write_mesh(tmp_path / "samples.ply", SAMPLES, faces)
    read = read_geometry(tmp_path / "samples.ply")
    assert (len(read.vertices), len(read.faces)) == (600, 0)
    assert read.notes == (f"Its {len(faces)} faces join points at random; the points were taken as a cloud.",)


PLANKS = trimesh.util.concatenate(
    [trimesh.creation.box((2, 0.1, 0.02), trimesh.transformations.translation_matrix((0, i, 0))) for i in range(40)]
)


@pytest.mark.parametrize("unmerged", [False, True], ids=["shared", "each face its own vertices"])
@pytest.mark.parametrize(
    "mesh",
    [
        trimesh.creation.icosphere(3),
        PLANKS,
        trimesh.creation.cylinder(1, 30, sections=200),
    ],
    ids=["sphere", "planks", "long cylinder"],
)
def test_faces_of_a_real_mesh_stay(tmp_path: Path, mesh: trimesh.Trimesh, unmerged: bool) -> None:
    mesh = mesh.copy()
    if unmerged:
        mesh.unmerge_vertices()
    write_mesh(tmp_path / "mesh.ply", np.array(mesh.vertices), np.array(mesh.faces))
    read = read_geometry(tmp_path / "mesh.ply")
    assert len(read.faces) == len(mesh.faces) and read.notes == ()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("value", [(0.0, 0.0, 0.0), (9.0, 9.0, 9.0), (np.nan, np.nan, np.nan)])
def test_missing_pixels_are_left_out_and_counted(tmp_path: Path, value: tuple[float, ...], share: float) -> None:
    missing = round(share * 600)
    points = np.concatenate([SAMPLES, np.tile(value, (missing, 1))])
    write_mesh(tmp_path / "depth.ply", points, np.zeros((0, 3), dtype=int))
    read = read_geometry(tmp_path / "depth.ply")
    assert len(read.vertices) == 600 and read.notes[0].startswith(f"{missing} of {600 + missing} points ")


def test_a_mesh_with_vertices_that_are_not_finite_loses_their_faces_alone(tmp_path: Path) -> None:
    vertices = VERTICES.copy()
    vertices[5] = np.nan
    write_mesh(tmp_path / "holes.ply", vertices, FACES)
    read = read_geometry(tmp_path / "holes.ply")
    assert len(read.vertices) == len(VERTICES) - 1
    assert len(read.faces) == len(FACES) - int((FACES == 5).any(axis=1).sum())
    np.testing.assert_allclose(read.vertices[5], VERTICES[6], atol=1e-6)


# --- glTF


def glb(tree: dict, binary: bytes = b"") -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunk = struct.pack("<I4s", len(binary), b"BIN\0") + binary if binary else b""
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(chunk), len(text), b"JSON") + text + chunk


def test_draco_that_cannot_be_undone_is_named() -> None:
    with pytest.raises(InputError, match=r"Draco compression \(KHR_draco_mesh_compression\)"):
        read_geometry(CASES / "draco.glb")


def test_draco_is_decoded_and_placed(tmp_path: Path) -> None:
    packed = DracoPy.encode(VERTICES.astype(np.float32), FACES.astype(np.uint32), quantization_bits=20)
    tree = gltf()
    tree["nodes"] = [{"mesh": 0}, {"mesh": 0, "translation": [5, 0, 0]}]
    tree["scenes"] = [{"nodes": [0, 1]}]
    tree["extensionsUsed"] = ["KHR_draco_mesh_compression"]
    tree["meshes"][0]["primitives"][0]["extensions"] = {
        "KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {}}
    }
    tree["bufferViews"], tree["buffers"] = [{"buffer": 0, "byteLength": len(packed)}], [{"byteLength": len(packed)}]
    read = written(tmp_path / "draco.glb", glb(tree, packed + b"\0" * (-len(packed) % 4)))
    one = volume(Geometry(VERTICES, FACES))
    assert volume(read) == pytest.approx(2 * one, rel=1e-4) and read.vertices[:, 0].max() == pytest.approx(6, abs=1e-4)


@pytest.mark.parametrize("name", ["EXT_meshopt_compression", "KHR_meshopt_compression", "EXT_mesh_gpu_instancing"])
def test_what_changes_the_geometry_and_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        written(tmp_path / "packed.gltf", json.dumps(gltf() | {"extensionsUsed": [name]}))


def test_quantised_positions_and_sparse_ones_are_decoded(tmp_path: Path) -> None:
    tree, scale = gltf(), 2.0
    points = np.round(VERTICES / scale * 32767).astype("<i2")
    rows = np.pad(points, ((0, 0), (0, 1)))  # to four bytes
    sparse = np.array([7], "<u2").tobytes() + b"\0\0" + np.array([32767, 0, 0], "<i2").tobytes() + b"\0\0"
    content = rows.tobytes() + FACES.astype("<u2").tobytes() + sparse
    tree["buffers"] = [{"byteLength": len(content)}]
    size = rows.nbytes + 2 * FACES.size
    tree["bufferViews"] = [
        {"buffer": 0, "byteLength": rows.nbytes, "byteStride": 8},
        {"buffer": 0, "byteOffset": rows.nbytes, "byteLength": 2 * FACES.size},
        {"buffer": 0, "byteOffset": size, "byteLength": 2},
        {"buffer": 0, "byteOffset": size + 4, "byteLength": 6},
    ]
    tree["accessors"][0] |= {"componentType": 5122, "normalized": True}
    tree["accessors"][0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": 2, "componentType": 5123},
        "values": {"bufferView": 3},
    }
    tree["nodes"] = [{"mesh": 0, "scale": [scale, scale, scale]}]
    read = written(tmp_path / "quantised.glb", glb(tree, content + b"\0" * (-len(content) % 4)))
    expected = VERTICES.copy()
    expected[7] = [scale, 0, 0]
    np.testing.assert_allclose(read.vertices, expected, atol=1e-4)


def test_thirty_thousand_instances_are_placed(tmp_path: Path) -> None:
    tree = gltf()
    tree["nodes"] = [{"children": list(range(1, 30_001))}]
    tree["nodes"] += [{"mesh": 0, "translation": [3 * i, 0, 0]} for i in range(30_000)]
    read = written(tmp_path / "many.gltf", json.dumps(tree))
    assert len(read.faces) == 30_000 * len(FACES) and read.vertices[:, 0].max() == pytest.approx(3 * 29_999 + 1)


def test_a_node_that_is_its_own_child_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two parents"):
        written(tmp_path / "loop.gltf", json.dumps(gltf() | {"nodes": [{"mesh": 0, "children": [0]}]}))


def test_a_mirrored_instance_keeps_its_outside(tmp_path: Path) -> None:
    read = written(tmp_path / "mirror.gltf", json.dumps(gltf() | {"nodes": [{"mesh": 0, "scale": [-1, 1, 1]}]}))
    assert volume(read) == pytest.approx(volume(Geometry(VERTICES, FACES)), rel=1e-5)


# --- far from the origin


@pytest.mark.parametrize("suffix", OUTPUT_FORMATS)
@pytest.mark.parametrize("place", [(500_123.25, 5_412_345.5, 312.75), (-2e6, 0, 0), (0, 0, 3e8)])
def test_map_coordinates_come_back(tmp_path: Path, suffix: str, place: tuple[float, ...]) -> None:
    vertices = VERTICES + place
    note = write_mesh(tmp_path / f"far{suffix}", vertices, FACES, np.ones(len(VERTICES)))
    read = read_geometry(tmp_path / f"far{suffix}")
    assert np.abs(np.sort(read.vertices[read.faces], axis=0) - np.sort(vertices[FACES], axis=0)).max() < 1e-4
    assert note.startswith("STL has single precision, so the mesh was moved by") == (suffix == ".stl")


def test_text_keeps_all_its_digits(tmp_path: Path) -> None:
    read = written(tmp_path / "map.xyz", "500123.1234 5412345.6789 312.5\n500124.1234 5412346.6789 313.5\n")
    assert read.vertices[0].tolist() == [500123.1234, 5412345.6789, 312.5]


# --- bounds


def packed_zeros(size: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(f"{number}.xyz", bytes(size // 4))
    return file.getvalue()


def many_zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"{number}.xyz", "")
    return file.getvalue()


def many_in_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for number in range(20_000):
            archive.addfile(tarfile.TarInfo(f"{number}.xyz"))
    return file.getvalue()


def test_archives_that_unpack_to_gigabytes_or_hold_20_000_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The limit is lowered, so that the test unpacks megabytes.
    monkeypatch.setattr("sdf_backend.geometry.file_readers.archives.MOST_UNPACKED", 1 << 20)
    for name, content in [
        ("bomb.zip", packed_zeros(2 << 20)),
        ("bomb.3mf", packed_zeros(2 << 20)),
        ("bomb.ply.bz2", bz2.compress(bytes(2 << 20))),
        ("bomb.xyz.gz", gzip.compress(bytes(2 << 20))),
    ]:
        with pytest.raises(InputError, match=r"it unpacks to 0\.0 GB; at most 0\.0 GB are read"):
            written(tmp_path / name, content)
    monkeypatch.undo()
    for name, content in [("many.zip", many_zipped()), ("many.tar", many_in_tar())]:
        with pytest.raises(InputError, match=r"(20,000|10,001) files; at most 10,000 are read"):
            written(tmp_path / name, content)


def packed_3mf(objects: str, items: str) -> bytes:
    """A 3MF file whose object 1 is a triangle."""
    space = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
    corners = "".join(f'<vertex x="{x}" y="{y}" z="0"/>' for x, y in ((0, 0), (1, 0), (0, 1)))
    triangle = f'<vertices>{corners}</vertices><triangles><triangle v1="0" v2="1" v3="2"/></triangles>'
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "3D/3dmodel.model",
            f'<model xmlns="{space}"><resources><object id="1"><mesh>{triangle}</mesh></object>{objects}</resources>'
            f"<build>{items}</build></model>",
        )
    return file.getvalue()


def group_3mf(number: int, of: int, times: int) -> str:
    rows = "".join(
        f'<component objectid="{of}" transform="1 0 0 0 1 0 0 0 1 {shift} {number} 0"/>' for shift in range(times)
    )
    return f'<object id="{number}"><components>{rows}</components></object>'


def test_all_meshes_that_a_3mf_file_places_are_read(tmp_path: Path) -> None:
    for objects, items, count in [
        ("", '<item objectid="1"/>' * 300, 300),
        (group_3mf(2, 1, 300), '<item objectid="2"/>', 300),
        (group_3mf(2, 1, 4) + group_3mf(3, 2, 3), '<item objectid="3"/><item objectid="1"/>', 13),
        ('<object id="2"><mesh><vertices/><triangles/></mesh></object>', '<item objectid="2"/><item objectid="1"/>', 1),
    ]:
        assert len(written(tmp_path / "placed.3mf", packed_3mf(objects, items)).faces) == count


def test_a_3mf_file_of_which_meshes_would_be_lost_is_refused(tmp_path: Path) -> None:
    fence = packed_3mf(group_3mf(2, 1, 30), '<item objectid="2"/>' * 30)
    with pytest.raises(InputError, match=r"it places 900 meshes, groups within groups, .*; export it as GLB"):
        written(tmp_path / "fence.3mf", fence)


@pytest.mark.parametrize(("depth", "times"), [(30, 2), (3_000, 9), (3_000, 1)])
def test_a_3mf_file_of_endless_groups_is_refused_before_it_is_read(tmp_path: Path, depth: int, times: int) -> None:
    groups = "".join(group_3mf(number, number - 1, times) for number in range(2, depth + 2))
    items = f'<item objectid="{depth + 1}"/>' * 40
    started = time.monotonic()
    with pytest.raises(InputError, match="more than 100,000 groups within groups; export it as GLB"):
        written(tmp_path / "groups.3mf", packed_3mf(groups, items))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("name", ["mesh.zip", "mesh.tar", "mesh.tar.gz", "mesh.tgz", "mesh.tar.bz2", "mesh.ply.bz2"])
def test_archives_are_unpacked(tmp_path: Path, name: str) -> None:
    ply, file = text_files()[".ply"], io.BytesIO()
    if name == "mesh.zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("folder/mesh.ply", ply)
            archive.writestr("folder/readme.txt", "not points")
            archive.writestr("__MACOSX/._mesh.ply", b"\0")
        content = file.getvalue()
    elif ".tar" in name or name == "mesh.tgz":
        with tarfile.open(fileobj=file, mode="w") as archive:
            member = tarfile.TarInfo("folder/mesh.ply")
            member.size = len(ply)
            archive.addfile(member, io.BytesIO(ply))
        packing = {".gz": gzip.compress, ".tgz": gzip.compress, ".bz2": bz2.compress}
        content = packing.get(Path(name).suffix, bytes)(file.getvalue())
    else:
        content = bz2.compress(ply)
    assert len(written(tmp_path / name, content).faces) == len(FACES)


def test_a_buffer_that_is_a_pipe_missing_or_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.bin")
    for uri, words in [
        ("pipe.bin", "pipe.bin is not a file"),
        ("gone.bin", "needs the file gone.bin, which is missing"),
        ("../../etc/passwd", "lies outside of its folder"),
    ]:
        tree = gltf() | {"buffers": [{"byteLength": 4, "uri": uri}]}
        with pytest.raises(InputError, match=words):
            written(tmp_path / "mesh.gltf", json.dumps(tree))
    os.mkfifo(tmp_path / "pipe.ply")
    with pytest.raises(InputError, match="is a pipe, a socket or a device; give a mesh or point file"):
        read_geometry(tmp_path / "pipe.ply")


@pytest.mark.parametrize("suffix", [".obj", ".off", ".xyz", ".csv", ".pts", ".pcd"])
def test_a_line_of_many_megabytes_is_refused(tmp_path: Path, suffix: str) -> None:
    line = b"v " + 3_000_000 * b"0.5 "
    content = text_files()[suffix] + line
    with pytest.raises(InputError, match=r"a line of more than 1,048,576 characters"):
        written(tmp_path / f"long{suffix}", content)


def test_a_header_of_many_megabytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it has no PLY header"):
        written(tmp_path / "long.ply", b"ply\nformat ascii 1.0\ncomment " + bytes(2_000_000) + b"\nend_header\n")


def test_a_name_that_is_too_long_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="cannot be read: File name too long") as refused:
        read_geometry(Path("a" * 5_000 + ".ply"))
    assert len(str(refused.value)) < 300
