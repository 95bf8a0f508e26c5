"""Meshes in real folders: both layouts of ShapeNet, plain folders, split files, and packages of the starter data."""

import csv
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh
from game_files import RESTING, Pmd, write_psa

from sdf_backend.errors import InputError
from training.catalog import MESH_SUFFIXES, CatalogEntry, Layout, list_meshes, read_mesh, read_split, select_split
from training.collect import COLUMNS, OPTIONAL_COLUMNS, collect, read_catalog

# One triangle in a part that is kept and one, far away, in a part named beacon.
TRIANGLE = "numvert 3\n0 0 0\n1 0 0\n0 2 0\nnumsurf 1\nSURF 0x10\nmat 0\nrefs 3\n0 0 0\n1 0 0\n2 0 0\nkids 0\n"
WING, BEACON = f'OBJECT poly\nname "wing"\n{TRIANGLE}', f'OBJECT poly\nname "Beacon1"\nloc 9 9 9\n{TRIANGLE}'
AC_FILE = f"AC3Db\nOBJECT world\nkids 2\n{WING}{BEACON}"


def write_box(path: Path, size: tuple[float, float, float] = (1.0, 2.0, 3.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.creation.box(size).export(path)
    return path


def names(entries: list[CatalogEntry]) -> list[str]:
    return [entry.name for entry in entries]


def test_a_shapenet_v1_tree_is_listed_by_its_model_names(tmp_path: Path) -> None:
    for name in ("b2", "a1"):
        write_box(tmp_path / "02691156" / name / "model.obj")
    write_box(tmp_path / "03001627" / "chair" / "model.obj")
    entries = list_meshes(tmp_path, Layout.SHAPENET1, "02691156")
    assert entries == [CatalogEntry(name, tmp_path / "02691156" / name / "model.obj", "train") for name in ("a1", "b2")]


def test_a_shapenet_v2_tree_is_listed_by_its_model_names(tmp_path: Path) -> None:
    for name in ("b2", "a1"):
        models = tmp_path / "02691156" / name / "models"
        write_box(models / "model_normalized.obj")
        (models / "model_normalized.json").write_text("{}")
        (tmp_path / "02691156" / name / "screenshots").mkdir()
    entries = list_meshes(tmp_path, Layout.SHAPENET2, "02691156")
    assert names(entries) == ["a1", "b2"]
    assert all(entry.path.name == "model_normalized.obj" for entry in entries)


def test_layouts_are_not_confused(tmp_path: Path) -> None:
    write_box(tmp_path / "02691156" / "a1" / "model.obj")
    with pytest.raises(InputError, match="contains no mesh in the layout shapenet2.*known layouts: shapenet1"):
        list_meshes(tmp_path, Layout.SHAPENET2, "02691156")


def test_all_formats_in_a_plain_folder_are_listed_and_read(tmp_path: Path) -> None:
    for suffix in (suffix for suffix in MESH_SUFFIXES if suffix != ".ac"):
        write_box(tmp_path / f"box-{suffix[1:]}{suffix}")
    (tmp_path / "plane.AC").write_text(AC_FILE)
    (tmp_path / "readme.txt").write_text("no mesh")
    entries = list_meshes(tmp_path, Layout.FOLDER)
    assert names(entries) == ["box-glb", "box-obj", "box-off", "box-ply", "box-stl", "plane"]
    for entry in entries[:-1]:
        mesh = trimesh.Trimesh(*read_mesh(entry.path))
        assert np.allclose(mesh.extents, [1, 2, 3]), entry.name
        assert mesh.volume == pytest.approx(6), entry.name
    vertices, faces = read_mesh(entries[-1].path)
    assert len(faces) == 2
    assert vertices.max() == 11


def test_a_mesh_in_a_sub_folder_carries_the_folders_name(tmp_path: Path) -> None:
    write_box(tmp_path / "old" / "wooden" / "chair.obj")
    assert names(list_meshes(tmp_path, Layout.FOLDER)) == ["old_wooden_chair"]


def test_a_category_is_a_sub_folder(tmp_path: Path) -> None:
    write_box(tmp_path / "chairs" / "one.obj")
    write_box(tmp_path / "lamps" / "two.obj")
    assert names(list_meshes(tmp_path, Layout.FOLDER, "lamps")) == ["two"]


def test_hidden_files_and_folders_named_like_meshes_are_ignored(tmp_path: Path) -> None:
    write_box(tmp_path / "one.obj")
    write_box(tmp_path / ".one.4711.tmp.obj")  # what a killed writer leaves
    (tmp_path / "._two.obj").write_bytes(b"\0\5\26\7")  # what macOS leaves
    (tmp_path / "three.obj").mkdir()
    assert names(list_meshes(tmp_path, Layout.FOLDER)) == ["one"]


def test_splits_and_credits_come_from_sources_json(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        write_box(tmp_path / f"{name}.obj")
    credit = {"split": "test", "licence": "CC-BY-4.0", "creator": "Ada", "family": "boxes", "package": "ignored"}
    rows = [{"name": "one", **credit}, {"name": "two", "licence": "", "procedural": True}, {"name": "gone", **credit}]
    (tmp_path / "sources.json").write_text(json.dumps(rows))
    one, three, two = list_meshes(tmp_path, Layout.FOLDER)
    assert one == CatalogEntry("one", tmp_path / "one.obj", "test", "CC-BY-4.0", "Ada", "boxes")
    assert two == CatalogEntry("two", tmp_path / "two.obj", "train", "unknown", "unknown", "", procedural=True)
    assert three == CatalogEntry("three", tmp_path / "three.obj")


@pytest.mark.parametrize("content", ["", "{", '{"one": 1}', '[{"licence": "x"}]', "[1]", "5"])
def test_an_unreadable_sources_json_is_rejected(tmp_path: Path, content: str) -> None:
    write_box(tmp_path / "one.obj")
    (tmp_path / "sources.json").write_text(content)
    with pytest.raises(InputError, match=r"cannot read .*sources\.json"):
        list_meshes(tmp_path, Layout.FOLDER)


def test_two_meshes_of_one_name_are_rejected_with_that_name(tmp_path: Path) -> None:
    write_box(tmp_path / "chair.obj")
    write_box(tmp_path / "chair.ply")
    write_box(tmp_path / "table.ply")
    with pytest.raises(InputError, match="several meshes named chair; rename all but one"):
        list_meshes(tmp_path, Layout.FOLDER)


@pytest.mark.parametrize("layout", list(Layout))
def test_a_folder_without_meshes_is_rejected(tmp_path: Path, layout: Layout) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match=f"contains no mesh in the layout {layout}"):
        list_meshes(tmp_path, layout)


def test_a_missing_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="elsewhere is not a folder"):
        list_meshes(tmp_path, Layout.FOLDER, "elsewhere")


def test_a_mesh_without_faces_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "cloud.ply"
    trimesh.PointCloud(np.eye(3)).export(path)
    with pytest.raises(InputError, match="has no faces"):
        read_mesh(path)


def test_an_official_split_file_selects_its_shapes(tmp_path: Path) -> None:
    path = tmp_path / "sv2_planes_test.json"
    path.write_text(json.dumps({"ShapeNetV2": {"02691156": ["b2", "not-downloaded"]}}))
    entries = [CatalogEntry(name, tmp_path) for name in ("a1", "b2", "c3")]
    assert select_split(entries, read_split(path), "test") == [CatalogEntry("b2", tmp_path, "test")]


def test_a_name_that_is_not_utf_8_is_spelled_out(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.obj")).write_text("v 0 0 0\n")
    [entry] = list_meshes(tmp_path, Layout.FOLDER)
    assert entry.name == "caf_udce9" and entry.path.exists()


def test_a_split_file_may_be_a_plain_list(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('["b2", "a1"]')
    assert read_split(path) == ["b2", "a1"]


@pytest.mark.parametrize("content", [b"", b"[", b"\xff\xfe", b"no json"])
def test_an_unreadable_split_file_is_rejected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot read the split file"):
        read_split(path)


def test_a_missing_split_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the split file"):
        read_split(tmp_path / "missing.json")


@pytest.mark.parametrize("content", ["{}", "[]", "[1, 2]", '{"ShapeNetV2": {"02691156": []}}'])
def test_a_split_file_without_names_is_rejected(tmp_path: Path, content: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(InputError, match="lists no shape"):
        read_split(path)


def test_a_split_file_of_another_category_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lists none of the meshes"):
        select_split([CatalogEntry("a1", tmp_path)], {"z9"}, "train")


# The starter data: members of packages.

ROW = dict.fromkeys(COLUMNS, "") | {"category": "airplanes", "split": "train", "licence": "GPL-2.0+", "creator": "Ada"}
PLANE = {**ROW, "package": "planes", "member": "Aircraft/Cub/Models/cub.ac", "family": "cub"}
# A row-major quarter turn about x: y -> z, z -> -y.
SHIP = {
    **ROW,
    "category": "ships",
    "archive": "boats.sh3f",
    "member": "boat/boat.obj",
    "rotation": "1 0 0 0 0 -1 0 1 0",
}


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    folder = tmp_path / "packages"
    models = folder / "planes" / "usr" / "share" / "Aircraft" / "Cub" / "Models"
    models.mkdir(parents=True)
    (models / "cub.ac").write_text(AC_FILE)
    # Another member of the same file name, which must not be taken for it.
    other = folder / "planes" / "usr" / "share" / "Aircraft" / "Abc" / "Models"
    other.mkdir(parents=True)
    (other / "cub.ac").write_text("AC3Db\n")
    box = write_box(tmp_path / "boat.obj", (1, 2, 3))
    (folder / "boats").mkdir()
    with zipfile.ZipFile(folder / "boats" / "boats.sh3f", "w") as archive:
        archive.write(box, "boat/boat.obj")
    return folder


def write_catalog(folder: Path, *rows: dict[str, str]) -> Path:
    path = folder / "catalog.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, (*COLUMNS, *OPTIONAL_COLUMNS), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_members_are_collected_as_rotated_obj_files_without_effects(tmp_path: Path, packages: Path) -> None:
    output, told = tmp_path / "meshes", []
    assert collect(write_catalog(tmp_path, PLANE, SHIP), packages, output, report=told.append) == 2
    assert told == []
    [plane] = list_meshes(output, Layout.FOLDER, "airplanes")
    assert plane.name == "Aircraft_Cub_cub"
    assert (plane.licence, plane.creator, plane.family, plane.split) == ("GPL-2.0+", "Ada", "cub", "train")
    vertices, faces = read_mesh(plane.path)
    assert np.ptp(vertices[faces].reshape(-1, 3), axis=0).tolist() == [1, 2, 0]  # the beacon at 9 9 9 is gone
    [ship] = list_meshes(output, Layout.FOLDER, "ships")
    mesh = trimesh.Trimesh(*read_mesh(ship.path))
    assert np.allclose(mesh.extents, [1, 3, 2])
    assert mesh.volume == pytest.approx(6)


def test_rotations_apply_to_column_vectors(tmp_path: Path, packages: Path) -> None:
    row = {**PLANE, "rotation": "0 -1 0; 1 0 0; 0 0 1"}  # x -> y, y -> -x
    collect(write_catalog(tmp_path, row), packages, tmp_path / "meshes")
    vertices, faces = read_mesh(tmp_path / "meshes" / "airplanes" / "Aircraft_Cub_cub.obj")
    corners = vertices[faces].reshape(-1, 3)
    assert sorted(corners.tolist()) == [[-2, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_sources_json_holds_the_source_of_each_mesh(tmp_path: Path, packages: Path) -> None:
    collect(write_catalog(tmp_path, PLANE), packages, tmp_path / "meshes")
    [credit] = json.loads((tmp_path / "meshes" / "airplanes" / "sources.json").read_text())
    assert credit == {
        "name": "Aircraft_Cub_cub",
        **{key: PLANE[key] for key in ("split", "licence", "creator", "family", "package", "member")},
    }


def test_a_mesh_that_has_not_changed_is_left_as_it_is(tmp_path: Path, packages: Path) -> None:
    """Otherwise `prepare`, which compares times, would sample it again."""
    catalog, output = write_catalog(tmp_path, PLANE, SHIP), tmp_path / "meshes"
    collect(catalog, packages, output)
    plane, ship = (output / name for name in ("airplanes/Aircraft_Cub_cub.obj", "ships/boat.obj"))
    for path in (plane, ship):
        os.utime(path, (1, 1))
    collect(write_catalog(tmp_path, PLANE, {**SHIP, "rotation": ""}), packages, output)
    assert plane.stat().st_mtime == 1
    assert ship.stat().st_mtime > 1


def test_members_that_cannot_be_read_are_reported_and_left_out(tmp_path: Path, packages: Path) -> None:
    (packages / "broken.sh3f").write_bytes(b"PK\3\4 no zip")
    (packages / "broken.ac").write_text("AC3Db\nOBJECT world\nkids 1\nOBJECT poly\nnumvert 3\n0 0")
    (packages / "broken.obj").write_bytes(b"\xff\x00\xff")
    with zipfile.ZipFile(packages / "rotten.sh3f", "w") as archive:
        archive.write(packages / "broken.obj", "broken.obj")
    broken = {
        "nowhere.ac": {**ROW, "member": "nowhere.ac"},
        "lacking.obj": {**SHIP, "member": "lacking.obj"},
        "absent.sh3f": {**SHIP, "archive": "absent.sh3f"},
        "broken.sh3f": {**SHIP, "archive": "broken.sh3f", "member": "ship.obj"},
        "broken.ac": {**ROW, "member": "broken.ac"},
        "broken.obj": {**SHIP, "archive": "rotten.sh3f", "member": "broken.obj"},
        "nine numbers": {**PLANE, "member": "Aircraft/Abc/Models/cub.ac", "rotation": "1 0 0"},
    }
    told: list[str] = []
    catalog = write_catalog(tmp_path, *broken.values(), PLANE)
    assert collect(catalog, packages, tmp_path / "meshes", report=told.append) == 1
    assert len(told) == len(broken)
    for line, (mark, _) in zip(told, broken.items(), strict=True):
        assert line.startswith("left out ")
        assert mark in line
    assert names(list_meshes(tmp_path / "meshes", Layout.FOLDER, "airplanes")) == ["Aircraft_Cub_cub"]
    assert not (tmp_path / "meshes" / "ships").exists()


def test_only_the_requested_category_is_collected(tmp_path: Path, packages: Path) -> None:
    assert collect(write_catalog(tmp_path, PLANE, SHIP), packages, tmp_path / "meshes", "ships") == 1
    assert [path.name for path in (tmp_path / "meshes").iterdir()] == ["ships"]


def test_a_catalogue_without_any_member_in_the_packages_is_rejected(tmp_path: Path, packages: Path) -> None:
    catalog = write_catalog(tmp_path, {**ROW, "member": "nowhere.ac"})
    with pytest.raises(InputError, match="none of the 1 members"):
        collect(catalog, packages, tmp_path / "meshes", report=lambda line: None)
    assert not (tmp_path / "meshes").exists()


def test_a_missing_packages_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unpack the packages there"):
        collect(write_catalog(tmp_path, PLANE), tmp_path / "nowhere", tmp_path / "meshes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "lacks the columns category, split"),
        (b"category,split\nplanes,train\n", "lacks the columns package"),
        (b"\xff\xfe\x00\x01", "cannot read the catalogue"),
    ],
)
def test_an_unusable_catalogue_is_rejected(tmp_path: Path, packages: Path, content: bytes, message: str) -> None:
    path = tmp_path / "catalog.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        collect(path, packages, tmp_path / "meshes")


def test_a_truncated_row_is_rejected_with_its_number(tmp_path: Path, packages: Path) -> None:
    path = write_catalog(tmp_path, PLANE)
    path.write_text(path.read_text() + "airplanes,train\n")
    with pytest.raises(InputError, match=r"row 2 of .*catalog\.csv lacks a category or a member"):
        collect(path, packages, tmp_path / "meshes")


def test_a_missing_catalogue_is_rejected(tmp_path: Path, packages: Path) -> None:
    with pytest.raises(InputError, match="cannot read the catalogue"):
        collect(tmp_path / "missing.csv", packages, tmp_path / "meshes")


def test_a_missing_package_is_one_error_before_anything_is_written(tmp_path: Path, packages: Path) -> None:
    rows = [{**SHIP, "package": "boats-data", "archive": "more.zip", "member": f"{name}.obj"} for name in "ab"]
    with pytest.raises(
        InputError, match=r"the package boats-data, which holds 1 of the files, .*apt-get download boats-data"
    ):
        collect(write_catalog(tmp_path, PLANE, *rows), packages, tmp_path / "meshes")
    assert not (tmp_path / "meshes").exists()
    assert collect(write_catalog(tmp_path, PLANE, *rows), packages, tmp_path / "meshes", "airplanes") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"licence": "CC-BY-NC-4.0"}, r"row 2 of .*catalog\.csv has the licence 'CC-BY-NC-4\.0', which is not one of"),
        ({"licence": "FAL-1.3"}, r"row 2 of .*catalog\.csv trains with a mesh under FAL-1\.3"),
        ({"licence": "CC-BY-SA-3.0"}, "a model of the training meshes of airplanes would have to be shipped under"),
        ({"split": "validation"}, r"row 2 of .*catalog\.csv has the split 'validation'; it should be train or test"),
        ({"member": "Cub/cub.ac", "family": "two"}, r"lists 2 pieces of airplanes named Cub_cub; keep one row"),
        ({"pose": "walk.psa"}, "the pose 'walk.psa' is not an animation and a frame"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_why(
    tmp_path: Path, packages: Path, change: dict, message: str
) -> None:
    first = {**PLANE, "member": "Cub/Models/cub.ac"}
    path = write_catalog(tmp_path, first, {**PLANE, **change})
    with pytest.raises(InputError, match=message):
        collect(path, packages, tmp_path / "meshes")


def test_a_test_piece_may_be_under_a_licence_that_training_pieces_may_not(tmp_path: Path, packages: Path) -> None:
    rows = [PLANE, {**PLANE, "member": "Abc/Models/cub.ac", "split": "test", "licence": "FAL-1.3"}]
    assert [row["licence"] for row in read_catalog(write_catalog(tmp_path, *rows))] == ["GPL-2.0+", "FAL-1.3"]


def test_poses_of_one_mesh_are_pieces_of_their_own(tmp_path: Path, packages: Path) -> None:
    Pmd().write(packages / "horse.dae.cached.pmd")
    write_psa(packages / "walk.dae.cached.psa", [[RESTING], [((0, 0, 4), (0, 0, 0, 1))]])
    horse = {**ROW, "category": "quadrupeds", "member": "horse.dae.cached.pmd", "licence": "CC-BY-SA-3.0"}
    rows = [{**horse, "pose": f"walk.dae.cached.psa#{frame}"} for frame in (0, 1)]
    assert collect(write_catalog(tmp_path, horse, *rows), packages, tmp_path / "meshes") == 3
    entries = list_meshes(tmp_path / "meshes", Layout.FOLDER, "quadrupeds")
    assert names(entries) == ["horse", "horse_walk_0", "horse_walk_1"]
    assert [read_mesh(entry.path)[0][:, 2].max() for entry in entries] == [0, 0, -4]
