"""Hand-written AC3D files, with the results that the format description implies."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdf_backend.errors import InputError
from training.mesh_readers.ac3d import read_ac3d

HEADER = 'AC3Db\nMATERIAL "" rgb 1 1 1 amb 0 0 0 emis 0 0 0 spec 0 0 0 shi 0 trans 0\n'
SQUARE = "numvert 4\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
ONE_FACE = "numsurf 1\nSURF 0x10\nmat 0\nrefs 4\n0 0 0\n1 1 0\n2 1 1\n3 0 1\n"
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
FAN = [[0, 1, 2], [0, 2, 3]]
QUARTER_TURN = "0 1 0 -1 0 0 0 0 1"  # rows are where x, y and z go: x -> y, y -> -x


def poly(name: str, *, before: str = "", body: str = SQUARE + ONE_FACE, kids: str = "", promised: int = 0) -> str:
    return f'OBJECT poly\nname "{name}"\n{before}{body}kids {promised}\n{kids}'


def world(*objects: str, promised: int | None = None) -> str:
    return f"{HEADER}OBJECT world\nkids {len(objects) if promised is None else promised}\n{''.join(objects)}"


def read(tmp_path: Path, text: str, drop: tuple[str, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    path = tmp_path / "mesh.ac"
    path.write_bytes(text.encode())
    return read_ac3d(path, drop)


def test_a_polygon_is_fanned_from_its_first_corner(tmp_path: Path) -> None:
    vertices, faces = read(tmp_path, world(poly("square")))
    assert np.array_equal(vertices, CORNERS)
    assert faces.tolist() == FAN


def test_several_objects_keep_their_own_indices(tmp_path: Path) -> None:
    vertices, faces = read(tmp_path, world(poly("one"), poly("two", before="loc 0 0 5\n")))
    assert np.array_equal(vertices, np.concatenate([CORNERS, CORNERS + [0, 0, 5]]))
    assert faces.tolist() == FAN + [[corner + 4 for corner in face] for face in FAN]


def test_a_nested_object_is_transformed_by_its_parent(tmp_path: Path) -> None:
    child = poly("child", before="loc 1 0 0\n")
    parent = f'OBJECT group\nname "parent"\nrot {QUARTER_TURN}\nloc 0 0 10\nkids 1\n{child}'
    vertices, _ = read(tmp_path, world(parent))
    # First the shift of the child, (x + 1, y, z), then the rotation, (-y, x + 1, z), and shift of the parent.
    expected = np.stack([-CORNERS[:, 1], CORNERS[:, 0] + 1, CORNERS[:, 2] + 10], axis=1)
    assert np.allclose(vertices, expected)


def test_nested_rotations_are_composed(tmp_path: Path) -> None:
    child = poly("child", before=f"rot {QUARTER_TURN}\nloc 1 0 0\n")
    parent = f"OBJECT group\nrot {QUARTER_TURN}\nkids 1\n{child}"
    vertices, _ = read(tmp_path, world(parent))
    assert np.allclose(vertices, CORNERS * [-1, -1, 1] + [0, 1, 0])


def test_a_transform_does_not_affect_siblings(tmp_path: Path) -> None:
    vertices, _ = read(tmp_path, world(poly("moved", before="loc 7 7 7\n"), poly("still")))
    assert np.array_equal(vertices[4:], CORNERS)


@pytest.mark.parametrize("text", ["kids 0", "two words\nOBJECT poly\nnumvert 9", "", "\n\n"])
def test_a_data_block_is_skipped_whatever_its_content(tmp_path: Path, text: str) -> None:
    vertices, faces = read(tmp_path, world(poly("square", before=f"data {len(text)}\n{text}\n")))
    assert np.array_equal(vertices, CORNERS)
    assert faces.tolist() == FAN


@pytest.mark.parametrize("ending", ["\r\n", "\r\r\n"])
def test_line_endings_do_not_matter(tmp_path: Path, ending: str) -> None:
    text = world(poly("one", kids=poly("two"), promised=1, before="data 3\nabc\n"))
    plain, changed = read(tmp_path, text), read(tmp_path, text.replace("\n", ending))
    assert np.array_equal(plain[0], changed[0])
    assert np.array_equal(plain[1], changed[1])
    assert len(plain[1]) == 4


def test_empty_lines_between_rows_do_not_matter(tmp_path: Path) -> None:
    body = (SQUARE + ONE_FACE).replace("\n", "\n\n  \n")
    vertices, faces = read(tmp_path, world(poly("square", body=body)))
    assert np.array_equal(vertices, CORNERS)
    assert faces.tolist() == FAN


def test_a_wrong_number_of_kids_loses_no_object(tmp_path: Path) -> None:
    text = world(poly("one", kids=poly("two", promised=2), promised=5), promised=9)
    vertices, faces = read(tmp_path, text)
    assert len(vertices) == 8
    assert len(faces) == 4


def test_a_part_is_dropped_with_its_children_alone(tmp_path: Path) -> None:
    beacon = poly("Red-BEACON.001", kids=poly("bulb"), promised=1)
    vertices, faces = read(tmp_path, world(beacon, poly("wing", before="loc 0 0 3\n")), drop=("beacon", "strobe"))
    assert len(faces) == 2
    assert np.array_equal(vertices[faces].reshape(-1, 3), (CORNERS + [0, 0, 3])[FAN].reshape(-1, 3))


def test_a_child_can_be_dropped_without_its_parent(tmp_path: Path) -> None:
    _, faces = read(tmp_path, world(poly("wing", kids=poly("light"), promised=1)), drop=("light",))
    assert faces.tolist() == FAN


@pytest.mark.parametrize(("flags", "triangles"), [("0x0", 2), ("0x30", 2), ("0x1", 0), ("0x21", 0), ("0x2", 0)])
def test_lines_are_not_surfaces(tmp_path: Path, flags: str, triangles: int) -> None:
    _, faces = read(tmp_path, world(poly("square", body=SQUARE + ONE_FACE.replace("0x10", flags))))
    assert len(faces) == triangles


def test_a_line_after_a_polygon_is_ignored(tmp_path: Path) -> None:
    line = "SURF 0x2\nmat 0\nrefs 2\n0 0 0\n1 0 0\n"
    surfaces = ONE_FACE.replace("numsurf 1", "numsurf 2") + line
    assert len(read(tmp_path, world(poly("square", body=SQUARE + surfaces)))[1]) == 2


@pytest.mark.parametrize("keep", ["numvert 4\n0 0 0\n1 0", "numvert 4\n0 0 0\n", "refs 4\n0 0 0\n1 1", "SURF 0x10\n"])
def test_a_truncated_file_is_rejected_with_its_name_and_the_reason(tmp_path: Path, keep: str) -> None:
    text = world(poly("square"))
    cut = text[: text.index(keep) + len(keep)]
    with pytest.raises(InputError, match=r"mesh\.ac is damaged or cut short: \S"):
        read(tmp_path, cut)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("numvert 4", "numvert four"),
        ("1 1 0\n0 1 0\n", "1 1 zero\n0 1 0\n"),
    ],
    ids=["count", "coordinate"],
)
def test_a_damaged_row_is_rejected(tmp_path: Path, good: str, bad: str) -> None:
    text = world(poly("square"))
    assert good in text
    with pytest.raises(InputError, match=r"mesh\.ac is damaged"):
        read(tmp_path, text.replace(good, bad))


@pytest.mark.parametrize("corner", [4, -1])
def test_a_surface_with_an_index_out_of_range_is_ignored(tmp_path: Path, corner: int) -> None:
    broken = ONE_FACE.replace("refs 4\n0 0 0", f"refs 4\n{corner} 0 0")
    vertices, faces = read(tmp_path, world(poly("broken", body=SQUARE + broken), poly("sound")))
    assert len(vertices) == 8
    assert faces.tolist() == [[corner + 4 for corner in face] for face in FAN]


@pytest.mark.parametrize("content", [b"", b"v 0 0 0\n", b"\xff\xfe\x00", b"\n" + HEADER.encode()])
def test_another_format_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.ac"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not an AC3D file"):
        read_ac3d(path)


def test_a_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing\.ac"):
        read_ac3d(tmp_path / "nothing.ac")


def test_an_empty_world_has_no_faces(tmp_path: Path) -> None:
    vertices, faces = read(tmp_path, world())
    assert vertices.shape == (0, 3)
    assert faces.shape == (0, 3)


@given(cut=st.integers(0, 400), junk=st.binary(max_size=20))
def test_a_damaged_file_gives_valid_indices_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    whole = world(poly("one", kids=poly("two", before="data 2\nhi\n"), promised=1)).encode()
    path = tmp_path_factory.mktemp("damaged", numbered=True) / "mesh.ac"
    path.write_bytes(whole[:cut] + junk + whole[cut + len(junk) :])
    try:
        vertices, faces = read_ac3d(path)
    except InputError:
        return
    assert faces.size == 0 or 0 <= faces.min() <= faces.max() < len(vertices)


def strip(count: int) -> str:
    refs = "".join(f"{corner} 0 0\n" for corner in range(count))
    return f"numsurf 1\nSURF 0x34\nmat 0\nrefs {count}\n{refs}"


@pytest.mark.parametrize(
    ("count", "expected"),
    [(2, []), (3, [[0, 1, 2]]), (4, [[0, 1, 2], [2, 1, 3]]), (5, [[0, 1, 2], [2, 1, 3], [2, 3, 4]])],
)
def test_every_other_triangle_of_a_strip_is_turned_over(tmp_path: Path, count: int, expected: list) -> None:
    points = "numvert 5\n0 0 0\n1 0 0\n0 1 0\n1 1 0\n0 2 0\n"
    vertices, faces = read(tmp_path, world(poly("strip", body=points + strip(count))))
    assert faces.tolist() == expected
    edges = vertices[faces[:, 1:]] - vertices[faces[:, :1]] if expected else np.zeros((0, 2, 3))
    assert (np.cross(edges[:, 0], edges[:, 1])[:, 2] > 0).all()


def test_normals_behind_the_coordinates_are_passed_over(tmp_path: Path) -> None:
    points = "numvert 3\n0 0 0 0 0 1\n1 0 0 0 0 1\n0 1 0 0 0 1\n"
    vertices, faces = read(tmp_path, world(poly("strip", body=points + strip(3))))
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    assert faces.tolist() == [[0, 1, 2]]
