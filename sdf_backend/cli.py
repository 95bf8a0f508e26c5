"""Complete, reconstruct, interpolate and sample shapes; list the models; run a backend."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from sdf_backend.console import print_json, printable, report_errors, stderr, stdout
from sdf_backend.errors import InputError
from sdf_backend.files import check_folder
from sdf_backend.geometry.attribute_colors import deviation_colors, observed_colors
from sdf_backend.geometry.camera import AZIMUTH, ELEVATION
from sdf_backend.geometry.closure import enclosed_volume
from sdf_backend.geometry.mesh_files import (
    OUTPUT_FORMATS,
    PRINT_FORMATS,
    WriteSettings,
    check_output,
    is_y_up,
    read_geometry,
    write_mesh,
)
from sdf_backend.progress import Progress
from sdf_backend.serving import cli as serving_cli
from sdf_backend.settings import Axis, TaskSettings
from sdf_backend.settings_options import settings_options
from sdf_backend.wire.messages import AMBIGUOUS_CONFIDENCE, AUTO_MODEL

if TYPE_CHECKING:  # torch takes a second to load, for which `--help` and usage errors should not wait
    import numpy as np

    from sdf_backend.engine import Engine, Shape, Source
    from sdf_backend.model.card import ModelCard
    from sdf_backend.serving.remote_engine import RemoteEngine

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


class Suffix(StrEnum):
    """Formats of the meshes in a folder."""

    PLY = "ply"
    OBJ = "obj"
    GLB = "glb"
    STL = "stl"
    THREE_MF = "3mf"


class VertexColors(StrEnum):
    """What the colours of the vertices show."""

    INPUT = "input"
    OBSERVED = "observed"
    DEVIATION = "deviation"


LOCAL_DEVICE = "auto"
InputFile = Annotated[Path, typer.Argument(help="mesh or point file; a file without faces is a point cloud")]
OutputFile = Annotated[Path, typer.Option("-o", help=f"mesh to write: {', '.join(OUTPUT_FORMATS)}")]
OutputFolder = Annotated[Path, typer.Option("-o", help="folder for the meshes")]
ModelName = Annotated[str, typer.Option("--model", help="name of a model (see `models`), or its file")]
FittedModelName = Annotated[
    str, typer.Option("--model", help=f"name of a model (see `models`), or its file; {AUTO_MODEL}: by the input")
]
Device = Annotated[str, typer.Option(help="device of this computer: auto, cpu, cuda or cuda:N")]
Models = Annotated[Path | None, typer.Option(help="folder of further models; also SDF_BACKEND_MODELS")]
Address = Annotated[str | None, typer.Option(help="backend that runs the task, such as tcp://127.0.0.1:5577")]
Key = Annotated[Path | None, typer.Option(help="your key file, for a backend with keys")]
Colors = Annotated[VertexColors, typer.Option(help="what the colours of the vertices show, in PLY, OBJ and GLB")]
Normals = Annotated[bool, typer.Option("--normals", help="write normals of the vertices, in PLY, OBJ and GLB")]
Unwrap = Annotated[bool, typer.Option("--uv", help="make texture coordinates, in OBJ and GLB")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]
Format = Annotated[Suffix, typer.Option("--format", help="format of the meshes")]


@app.command()
@settings_options(TaskSettings)
def complete(
    context: typer.Context,
    source: InputFile,
    output: OutputFile,
    settings: TaskSettings,
    model: FittedModelName = AUTO_MODEL,
    sensor: Annotated[str | None, typer.Option(help="position of the sensor: X,Y,Z in the frame of the input")] = None,
    device: Device = LOCAL_DEVICE,
    models: Models = None,
    address: Address = None,
    key: Key = None,
    colors: Colors = VertexColors.INPUT,
    normals: Normals = False,
    uv: Unwrap = False,
    as_json: AsJson = False,
) -> None:
    """Complete a partial surface: a whole, closed mesh in the frame and scale of the input.

    Up and front of OBJ and glTF files are +y and +z unless --up says otherwise.
    """
    settings = _with_axes_of(context, settings, [source])
    outputs, writing = _candidate_files(output, settings.candidates), WriteSettings(normals, uv)
    observed = _source(source, sensor)
    with _engine(device, models, address, key) as engine, _progress_bar() as progress:
        shapes = engine.complete(model, [observed], settings, progress)
    _report(_write(shapes, outputs, writing, colors), as_json)


@app.command()
@settings_options(
    TaskSettings, "resolution", "pose", "up", "front", "quality", "seed", "refine", "candidates", "triangles", "quads"
)
def reconstruct(
    context: typer.Context,
    source: InputFile,
    output: OutputFile,
    settings: TaskSettings,
    model: FittedModelName = AUTO_MODEL,
    device: Device = LOCAL_DEVICE,
    models: Models = None,
    address: Address = None,
    key: Key = None,
    colors: Colors = VertexColors.INPUT,
    normals: Normals = False,
    uv: Unwrap = False,
    as_json: AsJson = False,
) -> None:
    """Reconstruct a whole mesh with the model, from its inside and outside.

    Up and front of OBJ and glTF files are +y and +z unless --up says otherwise.
    """
    settings = _with_axes_of(context, settings, [source])
    outputs, writing = _candidate_files(output, settings.candidates), WriteSettings(normals, uv)
    observed = _source(source, None)
    with _engine(device, models, address, key) as engine, _progress_bar() as progress:
        shapes = engine.reconstruct(model, [observed], settings, progress)
    _report(_write(shapes, outputs, writing, colors), as_json)


@app.command()
@settings_options(TaskSettings, "resolution", "pose", "up", "front", "quality", "triangles", "quads")
def interpolate(
    context: typer.Context,
    sources: Annotated[list[Path], typer.Argument(help="two or more mesh or point files")],
    output: OutputFolder,
    settings: TaskSettings,
    model: FittedModelName = AUTO_MODEL,
    steps: Annotated[int, typer.Option(help="number of shapes, both ends included")] = 8,
    suffix: Format = Suffix.PLY,
    device: Device = LOCAL_DEVICE,
    models: Models = None,
    address: Address = None,
    key: Key = None,
    normals: Normals = False,
    uv: Unwrap = False,
    as_json: AsJson = False,
) -> None:
    """Interpolate between two or more shapes, in steps of about equal length.

    Up and front of OBJ and glTF files are +y and +z unless --up says otherwise.
    """
    settings = _with_axes_of(context, settings, sources)
    check_folder(output)
    writing = WriteSettings(normals, uv)
    inputs = [_source(path, None) for path in sources]
    with _engine(device, models, address, key) as engine, _progress_bar() as progress:
        shapes = engine.interpolate(model, inputs, steps, settings, progress)
    _report(_write(shapes, _numbered_files(output, "step", suffix, len(shapes)), writing), as_json)


@app.command()
@settings_options(TaskSettings, "resolution", "seed", "triangles", "quads")
def sample(
    output: OutputFolder,
    model: ModelName,
    settings: TaskSettings,
    count: Annotated[int, typer.Option(help="number of shapes")] = 4,
    suffix: Format = Suffix.PLY,
    device: Device = LOCAL_DEVICE,
    models: Models = None,
    address: Address = None,
    key: Key = None,
    normals: Normals = False,
    uv: Unwrap = False,
    as_json: AsJson = False,
) -> None:
    """Sample new shapes from the distribution of the training codes, in the canonical frame."""
    check_folder(output)
    writing = WriteSettings(normals, uv)
    with _engine(device, models, address, key) as engine, _progress_bar() as progress:
        shapes = engine.sample(model, count, settings, progress)
    _report(_write(shapes, _numbered_files(output, "sample", suffix, len(shapes)), writing), as_json)


@app.command()
@settings_options(TaskSettings, "pose", "up", "front", "quality")
def render(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", help="PNG file; several frames make an animation")],
    model: ModelName,
    settings: TaskSettings,
    sources: Annotated[
        list[Path] | None, typer.Argument(help="a mesh or point file, or several to interpolate between")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="in place of files: a shape that the model was trained on")] = None,
    code: Annotated[Path | None, typer.Option(help="in place of files: a code, as a JSON list of numbers")] = None,
    frames: Annotated[int, typer.Option(min=1, help="views around one shape, or steps between several")] = 1,
    size: Annotated[int, typer.Option(min=16, max=4096, help="width and height in pixels")] = 480,
    azimuth: Annotated[float, typer.Option(help="of the view: degrees to the right of the front")] = AZIMUTH,
    elevation: Annotated[float, typer.Option(help="of the view: degrees above the horizontal")] = ELEVATION,
    device: Device = LOCAL_DEVICE,
    models: Models = None,
) -> None:
    """Render the signed distance field itself, without a mesh, by sphere tracing, in the canonical frame."""
    if output.suffix.lower() != ".png":
        raise InputError(f"{output} is no PNG file; name it picture.png")
    if (bool(sources), shape is not None, code is not None).count(True) != 1:
        raise InputError("nothing or too much is named to render; give files, or --shape, or --code")
    from sdf_backend.engine import Engine
    from sdf_backend.geometry.png import write_png
    from sdf_backend.geometry.ray_casting import View
    from sdf_backend.model.codes import checked_codes, read_code, training_code
    from sdf_backend.model.store import ModelStore
    from sdf_backend.shapes.interpolation import ImplicitShape
    from sdf_backend.shapes.pictures import render_shapes

    engine = Engine(ModelStore(models), device)
    settings = _with_axes_of(context, settings, sources or [])
    with _progress_bar() as progress:
        if sources:
            found = engine.encode(model, [_source(path, None) for path in sources], settings, progress)
            implicit = [ImplicitShape(one.code, one.refinement) for one in found]
        else:
            loaded = engine.model(model, progress)
            latent = read_code(code) if code else training_code(loaded, shape or "")
            implicit = [ImplicitShape(checked_codes(loaded, latent[None])[0].cpu().numpy(), None)]
        view = View((size, size), azimuth, elevation)
        images = list(render_shapes(engine.model(model), implicit, view, frames, progress))
    write_png(output, images)
    stdout.print(f"{output}: {len(images)} frames" if len(images) > 1 else str(output), soft_wrap=True)


@app.command(name="models")
def list_models(models: Models = None, as_json: AsJson = False) -> None:
    """List the models, with the shapes, codes and licences of each; on stderr those that cannot be used, and why."""
    from dataclasses import asdict

    from sdf_backend.model.card import ModelCard
    from sdf_backend.model.store import ModelStore

    with report_errors():
        cards = ModelStore(models).cards()
        usable = {path: card for path, card in cards.items() if isinstance(card, ModelCard)}
        if as_json:
            print_json([{**asdict(card), "path": str(path)} for path, card in usable.items()])
        else:
            stdout.print(_models_table(usable))
        for path, reason in cards.items():
            if path not in usable:
                stderr.print(f"{path.stem} left out: {reason}", soft_wrap=True)


def _models_table(cards: "Mapping[Path, ModelCard]") -> Table:
    table = Table("model", "shapes", "code", "front", "licences of its data", "share-alike", "file")
    for path, card in cards.items():
        originals = sum(source["shapes"] for source in card.sources)
        licences = ", ".join(sorted({source["licence"] for source in card.sources}))
        code = str(card.decoder["code_length"])
        table.add_row(path.stem, str(originals), code, card.front, licences, card.licence, str(path))
    return table


serving_cli.register(app)


def _with_axes_of(context: typer.Context, settings: TaskSettings, files: Sequence[Path]) -> TaskSettings:
    """The settings with the axes of the files' formats, where the user has not named the up axis."""

    def is_named(option: str) -> bool:
        source = context.get_parameter_source(option)
        return source is not None and source.name != "DEFAULT"

    if is_named("up") or not files or not all(map(is_y_up, files)):
        return settings
    return replace(settings, up=Axis.POSITIVE_Y, front=settings.front if is_named("front") else Axis.POSITIVE_Z)


def _candidate_files(output: Path, count: int) -> list[Path]:
    """The file of each candidate; raises `InputError` if one cannot be written."""
    files = [output, *(output.with_stem(f"{output.stem}-{number}") for number in range(2, count + 1))]
    for file in files:
        check_output(file)
    return files


@contextmanager
def _engine(
    device: str, models: Path | None, address: str | None, key: Path | None
) -> "Iterator[Engine | RemoteEngine]":
    """The engine of this process, or the backend at `address`."""
    if address is None:
        if key:
            raise InputError(f"the key file {key} needs a backend; add its --address")
        from sdf_backend.engine import Engine
        from sdf_backend.model.store import ModelStore

        yield Engine(ModelStore(models), device)
        return
    if device != LOCAL_DEVICE or models:
        raise InputError("--device and --models are settings of the backend; leave them out with --address")
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
        raise InputError(
            f"the sensor position {sensor!r} is not X,Y,Z; give three numbers, such as 0,-2,1.5"
        ) from error
    return Source(read_geometry(path), position)


@contextmanager
def _progress_bar() -> Iterator[Progress]:
    """Show a progress bar on stderr; yields the callback that updates it."""
    columns = (TextColumn("{task.description:<10}", markup=False), BarColumn(), TimeElapsedColumn())
    with ProgressBar(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda phase, fraction: bar.update(task, description=printable(phase), completed=fraction)


def _numbered_files(folder: Path, stem: str, suffix: Suffix, count: int) -> list[Path]:
    return [folder / f"{stem}_{index:03d}.{suffix.value}" for index in range(count)]


def _write(
    shapes: "list[Shape]", paths: list[Path], settings: WriteSettings, shown: VertexColors = VertexColors.INPUT
) -> "list[tuple[Path, Shape]]":
    written = []
    for path, shape in zip(paths, shapes, strict=True):
        colors, attributes = _vertex_colors(shape, shown), (shape.observed, shape.deviation)
        note = write_mesh(path, shape.vertices, shape.faces, *attributes, colors, shape.quads, settings)
        written.append((path, shape.with_notes(note)))
    return written


def _vertex_colors(shape: "Shape", shown: VertexColors) -> "np.ndarray | None":
    """The colours, (n, 3), that a user wants to see; None without any."""
    if shown is VertexColors.OBSERVED and shape.observed is not None:
        return observed_colors(shape.observed)
    if shown is VertexColors.DEVIATION and shape.deviation is not None:
        return deviation_colors(shape.deviation, shape.pose.scale)
    return shape.colors


def _report(written: "list[tuple[Path, Shape]]", as_json: bool) -> None:
    rows = [
        {
            "path": str(path),
            "model": shape.model,
            "vertices": len(shape.vertices),
            "faces": len(shape.faces),
            "quads": shape.quads,
            "quad_share": shape.quad_share,
            "volume": enclosed_volume(shape.vertices, shape.faces),
            "kept_vertices": shape.kept_vertices,
            "kept_faces": shape.kept_faces,
            "note": shape.note,
            "observed": shape.observed_share,
            "residual": shape.residual,
            "explained": shape.explained,
            "confidence": shape.confidence,
            "model_confidence": shape.model_confidence,
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
        covered = (
            ""
            if row["observed"] is None
            else f"; {row['observed']:.0%} of it observed, {shape.explained:.0%} of the input within 0.02 of it"
        )
        faces = f"{row['faces']} faces"
        if shape.quads:
            faces = f"{shape.quads} quads ({row['quad_share']:.0%} of the faces)"
        inside = "open" if row["volume"] is None else f"volume {row['volume']:.4g}"
        stdout.print(
            f"{row['path']}: {row['model']}, {row['vertices']} vertices, {faces}, {inside}{covered}; {seconds}",
            soft_wrap=True,
        )
        if row["volume"] is None and Path(row["path"]).suffix.lower() in PRINT_FORMATS:
            stdout.print(f"{row['path']}: the mesh is not closed, as a 3D printer requires", soft_wrap=True)
        if shape.note:
            stdout.print(f"{row['path']}: {shape.note}", soft_wrap=True)
        if shape.confidence < AMBIGUOUS_CONFIDENCE:
            stdout.print(
                f"{row['path']}: the pose is ambiguous (confidence {shape.confidence:.2f}); "
                "--candidates 2 shows both answers",
                soft_wrap=True,
            )
