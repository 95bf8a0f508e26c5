"""The driver and the worker's protocol, with real processes of a stand-in for the Infinigen environment."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_infinigen import recipe, write_python
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from training.catalog import Layout, list_meshes, read_mesh
from training.cli import app
from training.generators import generate as module
from training.generators.finish import Reason
from training.generators.generate import LEFT_OUT_FILE, GenerateSettings, Piece, generate
from training.generators.infinigen_process import InfinigenProcess, ProcessLimits
from training.generators.recipe import ParametricShape, choice, uniform
from training.generators.solids import box

ROOT = Path(__file__).parents[3]


def run(environment: Path, output: Path, count: int = 4, **more: int) -> list[Piece]:
    return generate("things", output, GenerateSettings(count=count, environment=environment, **more))


def written(output: Path) -> list[Path]:
    """Finished files; a hidden one is a temporary that a killed writer left."""
    return [path for path in output.glob("*.ply") if not path.name.startswith(".")]


def meshes(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in written(output)}


def test_pieces_are_canonical_and_have_a_credit_each(environment: Path, things, tmp_path: Path) -> None:
    things("Good")
    pieces = run(environment, tmp_path / "out")
    assert [piece.reason for piece in pieces] == [None] * 4
    entries = list_meshes(tmp_path / "out", Layout.FOLDER)
    assert [entry.name for entry in entries] == [f"things-good-0-{number:05d}" for number in range(4)]
    assert {(entry.split, entry.licence, entry.family, entry.procedural) for entry in entries} == {
        ("train", "BSD-3-Clause", "procedural-good", True)
    }
    vertices, faces = read_mesh(entries[0].path)
    assert len(faces) == 6 * 36 * 2
    # Infinigen's x, y and z are front, left and up: its 1 x 2 x 3 m are 2 m wide, 3 m high and 1 m deep.
    np.testing.assert_allclose(vertices.min(0), [-1, 0, -0.5], atol=1e-6)
    np.testing.assert_allclose(vertices.max(0), [1, 3, 0.5], atol=1e-6)


def test_children_count_in_world_coordinates_and_what_is_no_mesh_does_not(
    environment: Path, things, tmp_path: Path
) -> None:
    things("Family")
    run(environment, tmp_path / "out", 1)
    vertices, faces = read_mesh(tmp_path / "out" / "things-family-0-00000.ply")
    assert len(faces) == 2 * 6 * 36 * 2
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [1, 1, 4], atol=1e-6)
    assert not ((vertices[:, 2] > -0.9) & (vertices[:, 2] < 0.9)).any()


def test_the_front_of_a_recipe_is_turned_to_the_canonical_one(environment: Path, things, tmp_path: Path) -> None:
    things(recipe("Good", front="+y"))
    run(environment, tmp_path / "out", 1)
    vertices, _ = read_mesh(tmp_path / "out" / "things-good-0-00000.ply")
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [1, 3, 2], atol=1e-6)


def test_variations_reach_the_factory(environment: Path, things, tmp_path: Path) -> None:
    things(
        recipe("Good", assign={"stretch": choice(0.5)}, scale={"params/lengths/1": uniform(3, 3)}),
    )
    run(environment, tmp_path / "out", 1)
    vertices, _ = read_mesh(tmp_path / "out" / "things-good-0-00000.ply")
    np.testing.assert_allclose(np.ptp(vertices, axis=0), [3, 1.5, 0.5], atol=1e-6)


def test_options_and_placeholder_are_handed_over(environment: Path, things, tmp_path: Path) -> None:
    things(recipe("Placed", placeholder=True, options={"face_size": 0.02}))
    assert run(environment, tmp_path / "out", 1)[0].reason is None


def test_a_piece_depends_on_category_seed_and_number_alone(environment: Path, things, tmp_path: Path) -> None:
    things("Random", ParametricShape("own", lambda rng: box((0, 0, 0), rng.uniform(0.5, 1, size=3))))
    for folder, count, seed, workers in (("a", 4, 0, 1), ("b", 12, 0, 3), ("c", 4, 1, 1)):
        run(environment, tmp_path / folder, count, seed=seed, workers=workers)
    a, b, c = (meshes(tmp_path / folder) for folder in "abc")
    assert len(a) == len(c) == 4 and len(b) == 12
    assert {"things-random-0", "things-own-0"} == {name.rsplit("-", 1)[0] for name in b}
    assert a.items() <= b.items()
    assert len({*a.values(), *c.values()}) == 8


@pytest.mark.parametrize(
    ("factory", "reason", "detail"),
    [
        ("Raises", Reason.FACTORY, "raises raised ValueError: no legs"),
        ("Dies", Reason.CRASH, "ended with 11 while making a piece (about to die)"),
        ("Huge", Reason.EXTENT, "4.45e+03 m, plausible is 0.1 to 5 m"),
        ("Flat", Reason.PROPORTIONS, "0.001 m by 2 m"),
        ("Plain", Reason.FACES, "12, at least 60 are needed"),
        ("Nan", Reason.DEGENERATE, "coordinates that are not finite"),
    ],
)
def test_what_fails_or_is_absurd_is_left_out_by_reason(
    environment: Path, things, tmp_path: Path, factory: str, reason: Reason, detail: str
) -> None:
    things("Good", factory)
    pieces = run(environment, tmp_path / "out", 8)
    counts = Counter(piece.reason for piece in pieces)
    assert set(counts) == {None, reason}
    assert all(detail in piece.detail for piece in pieces if piece.reason)
    assert len(meshes(tmp_path / "out")) == counts[None]
    assert not list((tmp_path / "out").glob(".*"))


def test_a_piece_that_hangs_is_given_up(
    environment: Path, things, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things("Good", "Hangs")
    limits = ProcessLimits(piece=1.0)
    monkeypatch.setattr(module, "InfinigenProcess", lambda folder: InfinigenProcess(folder, limits))
    pieces = run(environment, tmp_path / "out", 5)
    assert {piece.reason for piece in pieces} == {None, Reason.CRASH}
    assert any("took longer than 1 s while making a piece" in piece.detail for piece in pieces)


def test_a_process_is_replaced_after_its_batch(environment: Path, things, tmp_path: Path) -> None:
    things("Good")
    log = tmp_path / "starts"
    python = (environment / "bin" / "python").read_text()
    write_python(environment, f'echo start >> "{log}"\n' + python.split("\n", 1)[1])
    with InfinigenProcess(environment, ProcessLimits(batch=2)) as process:
        draw = recipe("Good").draw(np.random.default_rng(0))
        for _ in range(5):
            process.make(draw)
    assert log.read_text().count("start") == 3


def test_what_was_left_out_is_not_tried_again_unless_its_process_died(
    environment: Path, things, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FLAG", str(tmp_path / "flag"))
    things("Raises", "DiesOnce")
    first = run(environment, tmp_path / "out", 6)
    counts = Counter(piece.reason for piece in first)
    assert counts[Reason.CRASH] == 1 and counts[Reason.FACTORY] >= 1
    rows = json.loads((tmp_path / "out" / LEFT_OUT_FILE).read_text())
    assert len(rows) == counts[Reason.FACTORY]
    second = run(environment, tmp_path / "out", 6)
    assert Counter(piece.reason for piece in second) == {
        None: counts[None] + 1,
        Reason.FACTORY: counts[Reason.FACTORY],
    }
    assert [piece.name for piece in second if not piece.resumed] == [
        piece.name for piece in first if piece.reason is Reason.CRASH
    ]


def test_a_killed_run_goes_on_and_ends_the_same(environment: Path, things, tmp_path: Path) -> None:
    things("Random")
    run(environment, tmp_path / "whole", 12)
    program = (
        "import sys; sys.path.insert(0, 'tests/training/generators')\n"
        "from pathlib import Path; from fake_infinigen import recipe\n"
        "from training.generators import infinigen_factories as table\n"
        "from training.generators.recipe import CategoryRecipes\n"
        "from training.generators.generate import GenerateSettings, generate\n"
        "table.CATEGORIES['things'] = CategoryRecipes((recipe('Random'),), (0.1, 5.0))\n"
        f"settings = GenerateSettings(12, 0, 2, Path({str(environment)!r}))\n"
        f"generate('things', Path({str(tmp_path / 'killed')!r}), settings)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not meshes(tmp_path / "killed") and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = meshes(tmp_path / "killed")
    assert there
    # Credits are written before the first mesh.
    assert len(json.loads((tmp_path / "killed" / "sources.json").read_text())) == 12
    stamps = {path.name: path.stat().st_mtime_ns for path in written(tmp_path / "killed")}
    pieces = run(environment, tmp_path / "killed", 12)
    assert sum(piece.resumed for piece in pieces) == len(stamps)
    assert {name: (tmp_path / "killed" / name).stat().st_mtime_ns for name in stamps} == stamps
    assert meshes(tmp_path / "killed") == meshes(tmp_path / "whole")


def test_credits_of_other_meshes_in_the_folder_stay(environment: Path, things, tmp_path: Path) -> None:
    things("Good")
    (tmp_path / "out").mkdir()
    real = {"name": "throne", "split": "test", "licence": "CC0-1.0", "creator": "somebody"}
    (tmp_path / "out" / "sources.json").write_text(json.dumps([real]))
    run(environment, tmp_path / "out", 2)
    rows = json.loads((tmp_path / "out" / "sources.json").read_text())
    assert rows[0] == real and len(rows) == 3


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        (recipe("Missing"), "no factory infinigen.assets.objects.things.Missing"),
        (recipe("Changed"), r"Changed.create_asset does not take \(i\): missing a required argument: 'colour'"),
        (recipe("ChangedConstructor"), "ChangedConstructor does not take"),
        (recipe("Good", assign={"legs": choice(3)}), "Good has no attribute legs"),
        (recipe("Good", assign={"params/legs": choice(3)}), "Good.params/legs does not exist"),
        (recipe("Good", scale={"params/lengths/2": choice(3)}), "Good.params/lengths/2 does not exist"),
    ],
)
def test_a_factory_that_changed_ends_the_run(environment: Path, things, tmp_path: Path, recipes, message: str) -> None:
    things(recipes)
    with pytest.raises(InputError, match=f"{message}.*make generator"):
        run(environment, tmp_path / "out", 6, workers=2)
    assert not meshes(tmp_path / "out")


def test_a_missing_or_broken_environment_is_named_before_anything_is_written(
    environment: Path, things, tmp_path: Path
) -> None:
    things("Good")
    with pytest.raises(InputError, match="no Infinigen environment at .*nowhere; run `make generator`"):
        run(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (environment / "lib" / "bpy.py").unlink()
    with pytest.raises(InputError, match="cannot import bpy.*run `make generator` again"):
        run(environment, tmp_path / "out")
    write_python(environment, "echo 'libX11 is missing' >&2; exit 3")
    with pytest.raises(InputError, match=r"ended with 3 while starting \(libX11 is missing\); run `make generator`"):
        run(environment, tmp_path / "out")
    (environment / "bin" / "python").chmod(0o644)
    with pytest.raises(InputError, match="cannot run .*Permission denied; run `make generator`"):
        run(environment, tmp_path / "out")
    assert not meshes(tmp_path / "out")


def test_shapes_of_our_own_need_no_environment(things, tmp_path: Path) -> None:
    things(ParametricShape("own", lambda rng: box((0, 0, 0), rng.uniform(0.5, 1, size=3), 0.02)))
    assert [piece.reason for piece in run(tmp_path / "nowhere", tmp_path / "out", 3)] == [None] * 3


def test_a_damaged_record_of_what_was_left_out_is_named(things, tmp_path: Path) -> None:
    things(ParametricShape("own", lambda rng: box((0, 0, 0), (1, 1, 1))))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LEFT_OUT_FILE).write_text('[{"name": "x"}]')
    with pytest.raises(InputError, match="left_out.json is damaged.*delete it"):
        run(tmp_path, tmp_path / "out", 1)


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["generate", *arguments])


def test_the_command_line_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    unknown = command("chirs", "-o", out)
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert unknown.stderr.startswith("error: there is no generator for 'chirs'; use one of bathroom, beds, ")
    assert unknown.stderr.count("\n") == 1
    missing = command("chairs", "-o", out, "--environment", str(tmp_path / "nowhere"))
    assert missing.exit_code == 1 and missing.stderr.count("\n") == 1 and "make generator" in missing.stderr
    for option, value, bounds in (
        ("count", "0", "1 to 100000"),
        ("count", "100001", "1 to 100000"),
        ("seed", "-1", "0 to 4294967295"),
        ("workers", "0", "1 to 64"),
    ):
        for category in ("chairs", "humans"):
            wrong = command(category, "-o", out, f"--{option}", value)
            assert (wrong.exit_code, wrong.stderr) == (1, f"error: {option} is {value}; use {bounds}\n")
    bodies = CliRunner().invoke(app, ["humans", "-o", out, "--count", "0"])
    assert (bodies.exit_code, bodies.stderr) == (1, "error: count is 0; use 1 to 100000\n")
    assert command("chairs", "-o", out, "--count", "many").exit_code == 2
    file = tmp_path / "file"
    file.touch()
    blocked = command("beds", "-o", str(file))
    assert blocked.exit_code == 1 and "is a file; choose another folder" in blocked.stderr
    assert not (tmp_path / "out").exists()


def test_the_command_line_generates_and_counts(environment: Path, things, tmp_path: Path) -> None:
    things("Good", "Raises")
    out = tmp_path / "out"
    options = ("things", "-o", str(out), "--environment", str(environment))
    first = command(*options, "--count", "5")
    assert first.exit_code == 0, first.stderr
    there = len(meshes(out))
    assert first.stdout.startswith(f"{there} meshes in {out}, 0 pieces from an earlier run")
    assert f"left out {5 - there}: the factory failed; the first was things-raises-0-0000" in first.stdout
    again = command(*options, "--count", "6", "--json")
    assert [piece["resumed"] for piece in json.loads(again.stdout)] == [True] * 5 + [False]
