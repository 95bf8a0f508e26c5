"""The command line: results of all commands, and one clear line for each error."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from backend_process import half_sphere
from typer.main import get_command
from typer.testing import CliRunner, Result

from sdf_backend.cli import app
from sdf_backend.engine import Engine, Source
from sdf_backend.errors import InputError
from sdf_backend.geometry.mesh_files import read_geometry
from sdf_backend.model.store import MODELS_VARIABLE
from sdf_backend.settings import TaskSettings

ROOT = Path(__file__).parents[2]
COMMANDS = tuple(get_command(app).commands)  # type: ignore[attr-defined]
QUICK = ("--model", "spheres", "--pose", "known", "--resolution", "32", "--quality", "preview", "--device", "cpu")
RADIUS = 0.5


@pytest.fixture(autouse=True)
def known_models(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODELS_VARIABLE, str(models_folder))


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(result: Result) -> str:
    """The one line on stderr of a run that fails as it should."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)  # a traceback is for defects only
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def write_cloud(path: Path, points: np.ndarray) -> Path:
    rows = "\n".join(" ".join(map(repr, row)) for row in points.tolist())
    path.write_text(
        f"ply\nformat ascii 1.0\nelement vertex {len(points)}\n"
        f"property double x\nproperty double y\nproperty double z\nend_header\n{rows}\n"
    )
    return path


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    return write_cloud(tmp_path / "cloud.ply", half_sphere())


# Results.


def check_sphere(path: Path, radius: float, tolerance: float) -> None:
    read = read_geometry(path)
    mesh = trimesh.Trimesh(read.vertices, read.faces)
    assert mesh.is_watertight
    assert mesh.volume > 0
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - radius).max() < tolerance


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb", ".stl", ".3mf"])
def test_half_a_sphere_is_completed_to_a_closed_sphere_in_every_format(
    cloud: Path, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / "new" / f"whole{suffix}"
    result = invoke("complete", cloud, "-o", output, *QUICK)
    assert result.exit_code == 0, result.stderr
    check_sphere(output, RADIUS, 0.04)
    assert str(output) in result.stdout


def test_further_candidates_are_written_beside_the_best(cloud: Path, tmp_path: Path) -> None:
    result = invoke("complete", cloud, "-o", tmp_path / "whole.ply", *QUICK, "--candidates", "3")
    assert result.exit_code == 0, result.stderr
    assert sorted(path.name for path in tmp_path.glob("whole*")) == ["whole-2.ply", "whole-3.ply", "whole.ply"]
    for path in tmp_path.glob("whole*"):
        check_sphere(path, RADIUS, 0.06)


def test_a_mesh_that_is_kept_stays_as_it_is_and_is_closed(cloud: Path, tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS)
    half = trimesh.Trimesh(ball.vertices, np.array(ball.faces)[ball.triangles_center[:, 1] < 0.07], process=False)
    half.remove_unreferenced_vertices()
    half.export(tmp_path / "half.ply")
    given, output = read_geometry(tmp_path / "half.ply"), tmp_path / "whole.ply"
    result = invoke("complete", tmp_path / "half.ply", "-o", output, *QUICK, "--keep", "input", "--json")
    [row] = json.loads(result.stdout)
    assert (row["kept_vertices"], row["kept_faces"], row["note"]) == (len(given.vertices), len(given.faces), "")
    read = read_geometry(output)
    assert np.array_equal(read.vertices[: len(given.vertices)], given.vertices)
    assert np.array_equal(read.faces[: len(given.faces)], given.faces)
    check_sphere(output, RADIUS, 0.04)
    told = invoke("complete", cloud, "-o", output, *QUICK, "--keep", "input")
    assert told.exit_code == 0 and "point cloud, which has no faces to keep" in told.stdout


def test_a_mesh_has_at_most_the_triangles_that_were_wanted_and_its_volume_is_told(cloud: Path, tmp_path: Path) -> None:
    output = tmp_path / "whole.3mf"
    result = invoke("complete", cloud, "-o", output, *QUICK, "--triangles", "300", "--json")
    [row] = json.loads(result.stdout)
    assert row["faces"] == 300 and row["note"] == ""
    assert row["volume"] == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.05)
    check_sphere(output, RADIUS, 0.04)
    told = invoke("complete", cloud, "-o", output, *QUICK, "--triangles", "1")
    assert told.exit_code == 0 and "with fewer it would no longer be closed" in told.stdout
    assert read_geometry(output).faces.shape == (4, 3)


def test_a_mesh_of_quads_is_closed_and_their_share_is_told(cloud: Path, tmp_path: Path) -> None:
    output = tmp_path / "whole.obj"
    [row] = json.loads(invoke("complete", cloud, "-o", output, *QUICK, "--quads", "300", "--json").stdout)
    assert row["quads"] == pytest.approx(300, rel=0.02) and row["quad_share"] == 1 and row["note"] == ""
    assert sum(line.startswith("f ") for line in output.read_text().splitlines()) == row["quads"]
    check_sphere(output, RADIUS, 0.04)
    told = invoke("complete", cloud, "-o", tmp_path / "whole.stl", *QUICK, "--quads", "300")
    assert "quads (100% of the faces)" in told.stdout and "STL holds only triangles" in told.stdout
    refused = invoke("complete", cloud, "-o", output, *QUICK, "--quads", "300", "--triangles", "300")
    assert refused.exit_code == 1 and "set one of them to 0" in refused.stderr


def test_quads_of_a_kept_input_stay_triangles_and_that_is_told(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS)
    half = trimesh.Trimesh(ball.vertices, np.array(ball.faces)[ball.triangles_center[:, 1] < 0.07], process=False)
    half.remove_unreferenced_vertices()
    half.export(tmp_path / "half.ply")
    result = invoke(
        "complete", tmp_path / "half.ply", "-o", tmp_path / "whole.ply", *QUICK, "--keep", "input", "--quads", "300",
        "--json",
    )  # fmt: skip
    [row] = json.loads(result.stdout)
    assert row["quads"] == 0 and row["kept_faces"] == len(half.faces)
    assert "The part that completes a kept input has triangles" in row["note"]


@pytest.mark.parametrize(("shown", "colored"), [("input", False), ("observed", True), ("deviation", True)])
def test_a_file_has_colours_only_where_they_were_given_or_asked_for(
    cloud: Path, tmp_path: Path, shown: str, colored: bool
) -> None:
    output = tmp_path / "whole.ply"
    result = invoke("complete", cloud, "-o", output, *QUICK, "--colors", shown)
    assert result.exit_code == 0, result.stderr
    assert (read_geometry(output).colors is not None) == colored


def test_a_coloured_cloud_gives_a_coloured_mesh(tmp_path: Path) -> None:
    points = half_sphere()
    red = np.tile(np.array([200, 30, 10, 255], dtype=np.uint8), (len(points), 1))
    trimesh.PointCloud(points, red).export(tmp_path / "red.ply")
    result = invoke("complete", tmp_path / "red.ply", "-o", tmp_path / "whole.ply", *QUICK)
    assert result.exit_code == 0, result.stderr
    colors = read_geometry(tmp_path / "whole.ply").colors
    assert colors is not None and np.unique(np.round(255 * colors), axis=0).tolist() == [[200, 30, 10]]


def test_a_file_for_a_printer_that_is_open_says_so(tmp_path: Path) -> None:
    both = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS) + trimesh.creation.box([0.1] * 3)
    trimesh.Trimesh(both.vertices, np.array(both.faces)[:-1], process=False).export(tmp_path / "open.ply")
    output = tmp_path / "open.stl"
    result = invoke("complete", tmp_path / "open.ply", "-o", output, *QUICK, "--keep", "input")
    assert result.exit_code == 0, result.stderr
    assert "faces, open" in result.stdout and "is not closed, as a 3D printer requires" in result.stdout


@pytest.mark.parametrize("radius", [0.45, 0.55])
def test_the_fit_follows_the_size_of_the_input(tmp_path: Path, radius: float) -> None:
    path = write_cloud(tmp_path / "cloud.ply", half_sphere(radius=radius))
    assert invoke("complete", path, "-o", tmp_path / "whole.ply", *QUICK).exit_code == 0
    check_sphere(tmp_path / "whole.ply", radius, 0.04)


def test_json_lists_what_was_written(cloud: Path, tmp_path: Path) -> None:
    result = invoke("complete", cloud, "-o", tmp_path / "whole.ply", *QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    [row] = json.loads(result.stdout)
    read = read_geometry(tmp_path / "whole.ply")
    assert row["path"] == str(tmp_path / "whole.ply")
    assert row["model"] == "spheres"
    assert (row["vertices"], row["faces"]) == (len(read.vertices), len(read.faces))
    assert row["explained"] > 0.9
    assert row["residual"] < 0.02
    assert (row["scale"], row["translation"]) == (1, [0, 0, 0])
    assert all(seconds >= 0 for seconds in row["seconds"].values())


def test_only_vertices_near_the_input_are_marked_as_observed(cloud: Path, tmp_path: Path) -> None:
    assert invoke("complete", cloud, "-o", tmp_path / "whole.ply", *QUICK).exit_code == 0
    loaded = trimesh.load(tmp_path / "whole.ply", process=False)
    assert isinstance(loaded, trimesh.Trimesh)
    observed = loaded.metadata["_ply_raw"]["vertex"]["data"]["observed"].reshape(-1)
    assert observed[loaded.vertices[:, 1] > 0.1].min() > 0.5
    assert observed[loaded.vertices[:, 1] < -0.2].max() == 0


def test_the_same_input_gives_the_same_file_under_every_seed(cloud: Path, tmp_path: Path) -> None:
    for name, seed in (("one.stl", "3"), ("two.stl", "4")):
        assert invoke("complete", cloud, "-o", tmp_path / name, *QUICK, "--seed", seed).exit_code == 0
    assert (tmp_path / "one.stl").read_bytes() == (tmp_path / "two.stl").read_bytes()


def test_a_whole_mesh_is_reconstructed(tmp_path: Path) -> None:
    trimesh.creation.icosphere(subdivisions=3, radius=RADIUS).export(tmp_path / "ball.obj")
    result = invoke("reconstruct", tmp_path / "ball.obj", "-o", tmp_path / "again.ply", *QUICK)
    assert result.exit_code == 0, result.stderr
    check_sphere(tmp_path / "again.ply", RADIUS, 0.04)


def test_two_shapes_are_interpolated(tmp_path: Path) -> None:
    small, large = (write_cloud(tmp_path / f"{radius}.ply", half_sphere(radius=radius)) for radius in (0.45, 0.55))
    result = invoke("interpolate", small, large, "-o", tmp_path / "walk", "--steps", "3", *QUICK)
    assert result.exit_code == 0, result.stderr
    for index, radius in enumerate((0.45, 0.5, 0.55)):
        check_sphere(tmp_path / "walk" / f"step_{index:03d}.ply", radius, 0.04)


def test_samples_are_closed_shapes_in_the_canonical_frame(tmp_path: Path) -> None:
    options = ("--model", "spheres", "--count", "2", "--resolution", "32", "--format", "stl", "--json")
    result = invoke("sample", "-o", tmp_path / "new", *options)
    assert result.exit_code == 0, result.stderr
    paths = sorted((tmp_path / "new").iterdir())
    assert [row["path"] for row in json.loads(result.stdout)] == [str(path) for path in paths]
    assert [path.name for path in paths] == ["sample_000.stl", "sample_001.stl"]
    for path in paths:
        check_sphere(path, RADIUS, 0.25)


def test_models_are_listed_for_people_and_for_scripts(models_folder: Path) -> None:
    assert "spheres" in invoke("models").stdout
    rows = {row["name"]: row for row in json.loads(invoke("models", "--json").stdout)}
    assert rows["spheres"]["path"] == str(models_folder / "spheres.safetensors")
    assert rows["spheres"]["sources"] == [{"licence": "CC0-1.0", "creator": "the tests", "shapes": 12}]


def test_brackets_in_a_path_are_printed(tmp_path: Path) -> None:
    path = write_cloud(tmp_path / "cloud [old].ply", half_sphere())
    result = invoke("complete", path, "-o", tmp_path / "whole [new].ply", *QUICK)
    assert str(tmp_path / "whole [new].ply") in result.stdout


@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)])
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert "Usage" in result.stdout
    assert all(name in result.stdout for name in COMMANDS) or command


# Errors of the input.


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(4_000))


def missing(path: Path) -> None:
    path.unlink(missing_ok=True)


def with_nan(path: Path) -> None:
    points = half_sphere()
    points[7, 1] = np.nan
    write_cloud(path, points)


def fifty_points(path: Path) -> None:
    write_cloud(path, half_sphere(50))


def one_point(path: Path) -> None:
    write_cloud(path, np.full((500, 3), 0.25))


def one_line(path: Path) -> None:
    write_cloud(path, np.linspace([0, 0, 0], [1, 2, 3], 500))


def one_plane(path: Path) -> None:
    write_cloud(path, half_sphere() * [1, 0, 1])


def a_mesh_in_one_point(path: Path) -> None:
    trimesh.Trimesh(np.full((200, 3), 0.25), np.arange(198).reshape(-1, 3), process=False).export(path)


def a_flat_mesh(path: Path) -> None:
    grid = trimesh.creation.box((1, 1, 1)).subdivide().subdivide().subdivide()
    grid.vertices[:, 2] = 0
    grid.export(path)


def huge(path: Path) -> None:
    write_cloud(path, half_sphere() * 1e300)


BAD_INPUTS: list[tuple[Callable[[Path], None], str]] = [
    (missing, "does not exist"),
    (garbage, "cannot be read as a mesh or point file"),
    (empty, "cannot be read as a mesh or point file"),
    (fifty_points, "has 50 points; at least 100 are needed"),
    (one_point, "coincide"),
    (one_line, "in one plane"),
    (one_plane, "in one plane"),
    (a_mesh_in_one_point, "coincide"),
    (a_flat_mesh, "in one plane"),
    (huge, "has coordinates up to 5e+299"),
]


@pytest.mark.parametrize(("spoil", "message"), [pytest.param(*case, id=case[0].__name__) for case in BAD_INPUTS])
@pytest.mark.parametrize("command", ["complete", "interpolate"])
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, command: str, spoil: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "input.ply"
    spoil(path)
    output = tmp_path / "out" / "whole.ply" if command == "complete" else tmp_path / "out"
    sources = [path] if command == "complete" else [path, path]
    line = refused(invoke(command, *sources, "-o", output, *QUICK))
    assert message in line
    assert not (tmp_path / "out").exists()


def test_points_that_are_not_finite_are_left_out_and_counted(tmp_path: Path) -> None:
    with_nan(tmp_path / "input.ply")
    done = invoke("complete", tmp_path / "input.ply", "-o", tmp_path / "whole.ply", *QUICK)
    assert done.exit_code == 0, done.stderr
    assert "1 of 3,000 points have no finite coordinates and were left out." in done.stdout + done.stderr
    assert np.isfinite(read_geometry(tmp_path / "whole.ply").vertices).all()


@pytest.mark.parametrize("spoil", [missing, garbage, with_nan, a_mesh_in_one_point, a_flat_mesh])
def test_a_mesh_that_cannot_be_reconstructed_is_one_line_and_writes_nothing(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    path = tmp_path / "input.ply"
    spoil(path)
    refused(invoke("reconstruct", path, "-o", tmp_path / "out" / "whole.ply", *QUICK))
    assert not (tmp_path / "out").exists()


def test_a_point_cloud_cannot_be_reconstructed(cloud: Path, tmp_path: Path) -> None:
    assert "use complete" in refused(invoke("reconstruct", cloud, "-o", tmp_path / "whole.ply", *QUICK))


# Errors of options.


@dataclass(frozen=True)
class Refusal:
    """Options in place of the good ones, and a part of the line that must follow."""

    options: tuple[str, ...]
    message: str


REFUSALS = [
    Refusal(("--model", "boats"), "unknown model 'boats'; known models: "),
    Refusal(("--model", "gone.safetensors"), "gone.safetensors does not exist; give the name or the file of a model"),
    Refusal(("--resolution", "5"), "resolution is 5; use 16 to 1024"),
    Refusal(("--resolution", "5000"), "resolution is 5000; use 16 to 1024"),
    Refusal(("--seed", "-1"), "seed is -1; use 0 to 9223372036854775807"),
    Refusal(("--seed", "99999999999999999999"), "seed is 99999999999999999999; use 0 to 9223372036854775807"),
    Refusal(("--refine", "1.5"), "refine is 1.5; use 0 to 1"),
    Refusal(("--candidates", "17"), "candidates is 17; use 1 to 16"),
    Refusal(("--pose", "aligned", "--up", "z", "--front", "-z"), "are parallel"),
    Refusal(("--pose", "free", "--up", "w"), "'w' is not an axis"),
    Refusal(("--sensor", "here"), "the sensor position 'here' is not X,Y,Z; give three numbers"),
    Refusal(("--sensor", "1,2"), "three finite coordinates"),
    Refusal(("--sensor", "1,2,3,4"), "three finite coordinates"),
    Refusal(("--sensor", "nan,0,0"), "three finite coordinates"),
    Refusal(("--device", "gpu"), "unknown device 'gpu'"),
    Refusal(("--device", "meta"), "unknown device 'meta'"),
    Refusal(("--device", "cuda:99"), "no device cuda:99"),
    Refusal(("--models", "nowhere"), "the models folder nowhere does not exist; correct --models"),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: " ".join(refusal.options))
def test_a_bad_option_is_one_line_and_writes_nothing(cloud: Path, tmp_path: Path, refusal: Refusal) -> None:
    line = refused(invoke("complete", cloud, "-o", tmp_path / "out" / "whole.ply", *QUICK, *refusal.options))
    assert refusal.message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "options", "axes"),
    [
        ("part.obj", (), ("+y", "+z")),
        ("part.OBJ", ("--front", "x"), ("+y", "+x")),
        ("part.glb", (), ("+y", "+z")),
        ("part.obj", ("--up", "z"), ("+z", "-y")),
        ("part.ply", (), ("+z", "-y")),
        ("part.stl", ("--front", "x"), ("+z", "+x")),
    ],
)
def test_up_is_that_of_the_format_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: tuple[str, ...], axes: tuple[str, str]
) -> None:
    heard: list[TaskSettings] = []

    def complete(engine: Engine, model: str, sources: list[Source], settings: TaskSettings, progress: Any) -> None:
        heard.append(settings)
        raise InputError("heard enough")

    monkeypatch.setattr(Engine, "complete", complete)
    trimesh.creation.icosphere(subdivisions=2).export(tmp_path / name, file_type=name[-3:].lower())
    result = invoke("complete", str(tmp_path / name), "-o", str(tmp_path / "whole.ply"), *options)
    assert "heard enough" in result.stderr
    assert [(one.up, one.front) for one in heard] == [axes]


def test_an_unknown_model_is_answered_with_the_known_ones(cloud: Path, tmp_path: Path) -> None:
    line = refused(invoke("complete", cloud, "-o", tmp_path / "whole.ply", *QUICK, "--model", "boats"))
    assert "spheres" in line.split("known models:")[1]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("whole.dae", ".dae is not a mesh format; use one of .ply, .obj, .glb, .stl"),
        ("whole", "no suffix is not a mesh format; use one of"),
        ("file/whole.ply", "file is a file; choose another folder"),
        ("file/deeper/whole.ply", "file is a file; choose another folder"),
        ("folder.ply", "it is a folder; give a file name"),
    ],
)
def test_an_invalid_output_is_one_line(cloud: Path, tmp_path: Path, output: str, message: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder.ply").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert message in refused(invoke("complete", cloud, "-o", tmp_path / output, *QUICK))
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("command", ["sample", "interpolate"])
def test_an_output_folder_that_is_a_file_is_one_line(cloud: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "file").write_text("mine")
    sources = [cloud, cloud] if command == "interpolate" else []
    options = ("--model", "spheres", "--resolution", "32")
    assert "file is a file" in refused(invoke(command, *sources, "-o", tmp_path / "file", *options))


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("/proc/nowhere/whole.ply", "cannot write /proc/nowhere/whole.ply"),
        ("long/" + "x" * 300 + ".ply", "File name too long"),
        ("broken link/whole.ply", "cannot write"),
        ("folder.ply", "it is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_input_is_read(
    tmp_path: Path, output: str, said: str
) -> None:
    (tmp_path / "broken link").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.ply").mkdir()
    before = sorted(tmp_path.rglob("*"))
    line = refused(invoke("complete", tmp_path / "absent.ply", "-o", tmp_path / output, *QUICK))
    assert said in line and "absent" not in line
    assert sorted(tmp_path.rglob("*")) == before


def test_the_file_of_every_candidate_must_be_writable(tmp_path: Path) -> None:
    (tmp_path / "whole-2.ply").mkdir()
    arguments = (tmp_path / "absent.ply", "-o", tmp_path / "whole.ply", "--candidates", "2", *QUICK)
    assert "whole-2.ply: it is a folder" in refused(invoke("complete", *arguments))


def test_what_is_no_file_is_called_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ply")
    (tmp_path / "folder.ply").mkdir()
    for name, said in {
        tmp_path / "pipe.ply": "is a pipe, a socket or a device",
        "/dev/zero": "is a pipe, a socket or a device",
        tmp_path / "folder.ply": "is a folder",
        tmp_path / "absent.ply": "does not exist",
    }.items():
        assert f"{name} {said}" in refused(invoke("complete", name, "-o", tmp_path / "whole.ply", *QUICK))


def test_a_damaged_model_file_is_one_line(cloud: Path, tmp_path: Path, models_folder: Path) -> None:
    content = (models_folder / "spheres.safetensors").read_bytes()
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "spheres.safetensors").write_bytes(content[: len(content) // 2])
    line = refused(invoke("complete", cloud, "-o", tmp_path / "whole.ply", *QUICK, "--models", folder))
    assert "spheres.safetensors is damaged" in line
    listed = invoke("models", "--models", folder)
    assert (listed.exit_code, listed.stderr.count("\n")) == (0, 1)
    assert "airplanes" in listed.stdout and "spheres left out" in listed.stderr and "is damaged" in listed.stderr


@pytest.mark.parametrize(("count", "steps"), [(1, 3), (2, 1), (2, 0), (3, 2), (2, 100_000)])
def test_an_invalid_number_of_steps_is_one_line(cloud: Path, tmp_path: Path, count: int, steps: int) -> None:
    arguments = [*[cloud] * count, "-o", tmp_path / "walk", "--steps", str(steps), *QUICK]
    refused(invoke("interpolate", *arguments))
    assert not (tmp_path / "walk").exists()


@pytest.mark.parametrize("count", [0, -3, 100_000])
def test_a_count_out_of_range_is_one_line(tmp_path: Path, count: int) -> None:
    refused(invoke("sample", "-o", tmp_path / "new", "--model", "spheres", "--count", str(count)))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("complete", "cloud.ply", "-o", "whole.ply", *QUICK, "--pose", "sideways"),
        ("complete", "cloud.ply", "-o", "whole.ply", *QUICK, "--quality", "best"),
        ("complete", "cloud.ply", "-o", "whole.ply", *QUICK, "--resolution", "many"),
        ("complete", "cloud.ply", "-o", "whole.ply", *QUICK, "--colour"),
        ("complete", "cloud.ply", "--model", "spheres"),
        ("sample", "-o", "new"),
        ("complete", "-o", "whole.ply", "--model", "spheres"),
        ("interpolate", "-o", "walk", "--model", "spheres"),
        ("sample", "-o", "new", "--model", "spheres", "--format", "dae"),
        ("paint",),
    ],
    ids=lambda arguments: " ".join(arguments)[-40:],
)
def test_a_usage_error_exits_with_two_and_shows_the_usage(arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage" in result.stderr
    assert "Traceback" not in result.stderr


# Real processes.


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sdf_backend", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_process_completes_a_cloud_and_prints_json_alone(cloud: Path, tmp_path: Path) -> None:
    finished = run("complete", cloud, "-o", tmp_path / "whole.glb", *QUICK, "--json")
    assert (finished.returncode, finished.stderr) == (0, "")
    [row] = json.loads(finished.stdout)
    assert row["path"] == str(tmp_path / "whole.glb")
    check_sphere(tmp_path / "whole.glb", RADIUS, 0.04)


def test_a_process_with_a_bad_input_prints_one_line_and_exits_with_one(tmp_path: Path) -> None:
    garbage(tmp_path / "input.obj")
    finished = run("complete", tmp_path / "input.obj", "-o", tmp_path / "whole.ply", *QUICK)
    assert (finished.returncode, finished.stdout) == (1, "")
    [line] = finished.stderr.splitlines()
    # Whether nonsense passes for text without vertices depends on how its bytes are decoded.
    assert line.startswith(f"error: {tmp_path / 'input.obj'} ")
    assert "cannot be read" in line or "has no vertices" in line
    assert not (tmp_path / "whole.ply").exists()


def test_a_process_with_a_usage_error_exits_with_two(tmp_path: Path) -> None:
    finished = run("complete", tmp_path / "a.ply", "-o", tmp_path / "b.ply", *QUICK, "--pose", "sideways")
    assert finished.returncode == 2
    assert "Traceback" not in finished.stderr
