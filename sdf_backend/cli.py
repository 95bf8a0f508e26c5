"""`python -m sdf_backend`: complete, reconstruct, interpolate and sample shapes; list the models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sdf_backend.console import report_errors, print_json, stderr, stdout
from sdf_backend.errors import InputError
from sdf_backend.files import check_folder
from sdf_backend.geometry.mesh_files import OUTPUT_FORMATS, check_output, read_geometry, write_mesh
from sdf_backend.serving import cli as serve_cli
from sdf_backend.settings import Axis, Pose, Quality, TaskSettings

if TYPE_CHECKING:  # torch takes a second to load; `--help` and wrong usage should not wait for it
    from sdf_backend.engine import Engine, Shape, Source
    from sdf_backend.serving.remote_engine import RemoteEngine

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


class Suffix(StrEnum):
    """Formats in which a folder of meshes is written."""

    PLY = "ply"
    OBJ = "obj"
    GLB = "glb"
    STL = "stl"


LOCAL_DEVICE = "auto"
InputFile = Annotated[Path, typer.Argument(help="mesh or point file; a file without faces is a point cloud")]
OutputFile = Annotated[Path, typer.Option("-o", help=f"mesh to write: {', '.join(OUTPUT_FORMATS)}")]
OutputFolder = Annotated[Path, typer.Option("-o", help="folder for the meshes")]
ModelName = Annotated[str, typer.Option("--model", help="a model's name (see `models`), or its file")]
Resolution = Annotated[int, typer.Option(help="cells per axis, 16 to 1024")]
PoseOption = Annotated[Pose, typer.Option(help="known: canonical already; aligned: up and front given; free: nothing")]
Up = Annotated[str, typer.Option(help="the input's axis that points up")]
Front = Annotated[str, typer.Option(help="the input's axis that points ahead (pose aligned)")]
QualityOption = Annotated[Quality, typer.Option(help="how long the fit may take")]
Refine = Annotated[
    float, typer.Option(min=0, max=1, help="how far what was seen is followed: 0, the category alone, to 1, its detail")
]
Candidates = Annotated[
    int, typer.Option(help="results: the best, and others that explain it about as well, as OUT-2, OUT-3 and so on")
]
Seed = Annotated[int, typer.Option(min=0, help="decides what is drawn: samples, and candidates about a fit")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; of this computer")]
Models = Annotated[Path | None, typer.Option(help="folder with more models; also SDF_BACKEND_MODELS")]
Address = Annotated[str | None, typer.Option(help="a backend that does the work, such as tcp://127.0.0.1:5577")]
Key = Annotated[Path | None, typer.Option(help="your key file, where the backend asks for one")]
AsJson = Annotated[bool, typer.Option("--json", help="print for a script to read")]
Format = Annotated[Suffix, typer.Option("--format", help="format of the meshes")]

# Below this confidence a user is told that there is another answer.
UNSURE = 0.15


@app.command()
def complete(
    source: InputFile,
    output: OutputFile,
    model: ModelName,
    resolution: Resolution = 256,
    pose: PoseOption = Pose.UPRIGHT,
    up: Up = "+z",
    front: Front = "-y",
    sensor: Annotated[str | None, typer.Option(help="from where the input was seen: X,Y,Z in its own frame")] = None,
    quality: QualityOption = Quality.STANDARD,
    refine: Refine = 1.0,
    candidates: Candidates = 1,
    seed: Seed = 0,
    device: Device = LOCAL_DEVICE,
    models: Models = None,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Complete part of a surface: a whole, closed mesh in the input's own place and scale."""
    with report_errors():
        settings = _settings(resolution, pose, up, front, quality, seed, refine, candidates)
        check_output(output)
        observed = _source(source, sensor)
        with _engine(device, models, address, key) as engine, _watched() as watch:
            shapes = engine.complete(model, [observed], settings, watch)
        _report(_written(shapes, _candidate_files(output, candidates)), as_json)


@app.command()
def reconstruct(
    source: InputFile,
    output: OutputFile,
    model: ModelName,
    resolution: Resolution = 256,
    pose: PoseOption = Pose.UPRIGHT,
    up: Up = "+z",
    front: Front = "-y",
    quality: QualityOption = Quality.STANDARD,
    refine: Refine = 1.0,
    candidates: Candidates = 1,
    seed: Seed = 0,
    device: Device = LOCAL_DEVICE,
    models: Models = None,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Explain a whole mesh, inside and outside, by the model."""
    with report_errors():
        settings = _settings(resolution, pose, up, front, quality, seed, refine, candidates)
        check_output(output)
        observed = _source(source, None)
        with _engine(device, models, address, key) as engine, _watched() as watch:
            shapes = engine.reconstruct(model, [observed], settings, watch)
        _report(_written(shapes, _candidate_files(output, candidates)), as_json)


@app.command()
def interpolate(
    sources: Annotated[list[Path], typer.Argument(help="two or more mesh or point files")],
    output: OutputFolder,
    model: ModelName,
    steps: Annotated[int, typer.Option(help="shapes in all, the ends included")] = 8,
    resolution: Resolution = 256,
    pose: PoseOption = Pose.UPRIGHT,
    up: Up = "+z",
    front: Front = "-y",
    quality: QualityOption = Quality.STANDARD,
    suffix: Format = Suffix.PLY,
    device: Device = LOCAL_DEVICE,
    models: Models = None,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Shapes on the way between two or more, in steps that go about equally far."""
    with report_errors():
        settings = _settings(resolution, pose, up, front, quality)
        check_folder(output)
        inputs = [_source(path, None) for path in sources]
        with _engine(device, models, address, key) as engine, _watched() as watch:
            shapes = engine.interpolate(model, inputs, steps, settings, watch)
        _report(_written(shapes, _numbered(output, "step", suffix, len(shapes))), as_json)


@app.command()
def sample(
    output: OutputFolder,
    model: ModelName,
    count: Annotated[int, typer.Option(help="how many")] = 4,
    resolution: Resolution = 256,
    seed: Seed = 0,
    suffix: Format = Suffix.PLY,
    device: Device = LOCAL_DEVICE,
    models: Models = None,
    address: Address = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Draw new shapes from the distribution of a model's training codes, in the canonical frame."""
    with report_errors():
        settings = _settings(resolution, Pose.KNOWN, "+y", "-z", Quality.STANDARD, seed)
        check_folder(output)
        with _engine(device, models, address, key) as engine, _watched() as watch:
            shapes = engine.sample(model, count, settings, watch)
        _report(_written(shapes, _numbered(output, "sample", suffix, len(shapes))), as_json)


@app.command(name="models")
def list_models(models: Models = None, as_json: AsJson = False) -> None:
    """List the models that can be named, and what they say of themselves."""
    from dataclasses import asdict

    from sdf_backend.model.store import ModelStore, read_card

    with report_errors():
        cards = {name: (path, read_card(path)) for name, path in sorted(ModelStore(models).paths().items())}
        if as_json:
            print_json([{**asdict(card), "path": str(path)} for path, card in cards.values()])
            return
        table = Table("model", "shapes", "code", "front", "licences", "file")
        for name, (path, card) in cards.items():
            originals = sum(source["shapes"] for source in card.sources)
            licences = ", ".join(sorted({source["licence"] for source in card.sources}))
            table.add_row(name, str(originals), str(card.decoder["code_length"]), card.front, licences, str(path))
        stdout.print(table)


serve_cli.register(app)


def _settings(
    resolution: int,
    pose: Pose,
    up: str,
    front: str,
    quality: Quality,
    seed: int = 0,
    refine: float = 1.0,
    candidates: int = 1,
) -> TaskSettings:
    return TaskSettings(resolution, pose, Axis(up), Axis(front), quality, seed, refine, candidates)


def _candidate_files(output: Path, count: int) -> list[Path]:
    return [output, *(output.with_stem(f"{output.stem}-{number}") for number in range(2, count + 1))]


@contextmanager
def _engine(
    device: str, models: Path | None, address: str | None, key: Path | None
) -> "Iterator[Engine | RemoteEngine]":
    """Who does the task: this process, or the backend at `address`."""
    if address is None:
        if key:
            raise InputError(f"the key file {key} is for a backend; name its --address too")
        from sdf_backend.engine import Engine
        from sdf_backend.model.store import ModelStore

        yield Engine(ModelStore(models), device)
        return
    if device != LOCAL_DEVICE or models:
        raise InputError("--device and --models are the backend's to choose; leave them out with --address")
    from sdf_backend.serving.remote_engine import RemoteEngine

    with RemoteEngine(address, key) as engine:
        yield engine


def _source(path: Path, sensor: str | None) -> "Source":
    import numpy as np

    from sdf_backend.engine import Source

    if sensor is None:
        return Source(read_geometry(path))
    try:
        position = np.array([float(part) for part in sensor.split(",")])
    except ValueError as error:
        raise InputError(f"the sensor {sensor!r} is not X,Y,Z") from error
    return Source(read_geometry(path), position)


@contextmanager
def _watched() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr that hears of every step of a task."""
    columns = (TextColumn("{task.description:<10}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda phase, fraction: bar.update(task, description=str(phase), completed=fraction)


def _numbered(folder: Path, stem: str, suffix: Suffix, count: int) -> list[Path]:
    return [folder / f"{stem}_{index:03d}.{suffix.value}" for index in range(count)]


def _written(shapes: "list[Shape]", paths: list[Path]) -> "list[tuple[Path, Shape]]":
    for path, shape in zip(paths, shapes, strict=True):
        write_mesh(path, shape.vertices, shape.faces, shape.observed, shape.deviation)
    return list(zip(paths, shapes, strict=True))


def _report(written: "list[tuple[Path, Shape]]", as_json: bool) -> None:
    rows = [
        {
            "path": str(path),
            "model": shape.model,
            "vertices": len(shape.vertices),
            "faces": len(shape.faces),
            "residual": shape.residual,
            "explained": shape.explained,
            "confidence": shape.confidence,
            "scale": shape.pose.scale,
            "rotation": shape.pose.rotation.tolist(),
            "translation": shape.pose.translation.tolist(),
            "seconds": {str(phase): round(value, 4) for phase, value in shape.seconds.items()},
        }
        for path, shape in written
    ]
    if as_json:
        print_json(rows)
        return
    for row, (_, shape) in zip(rows, written, strict=True):
        seconds = ", ".join(f"{phase} {value:.2f} s" for phase, value in row["seconds"].items())
        seen = f"; {shape.explained:.0%} of the input within 0.02 of it" if shape.observed is not None else ""
        stdout.print(
            f"{row['path']}: {row['vertices']} vertices, {row['faces']} faces{seen}; {seconds}", soft_wrap=True
        )
        if shape.confidence < UNSURE:
            stdout.print(
                f"{row['path']}: the input can as well be understood otherwise (confidence {shape.confidence:.2f}); "
                "--candidates 2 or more gives the other answers too",
                soft_wrap=True,
            )
