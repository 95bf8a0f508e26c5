"""Benchmark of what becomes of meshes at the end: a triangle budget, quads, and colours that are carried over.

    python -m benchmarks.meshes

The shapes are drawn from the models that ship, so that nothing but the models is needed. Quads are made in a process of
its own, so that a crash is counted and ends nothing else. Distances are relative to the longest side of a shape.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Annotated

import igl
import numpy as np
import trimesh
import typer
from rich.table import Table

from benchmarks.shared import console, show
from sdf_backend.engine import Engine
from sdf_backend.geometry.closure import is_closed
from sdf_backend.geometry.mesh_files import read_geometry, write_mesh
from sdf_backend.geometry.source_geometry import Geometry
from sdf_backend.settings import TaskSettings
from sdf_backend.shapes.coloring import color_shape
from sdf_backend.shapes.remeshing import remesh_shape
from sdf_backend.shapes.shape import Shape

# Of the wanted number of quads: the numbers that are tried.
MULTIPLES = (0.5, 0.75, 1.0, 1.5, 2.0)


def main(
    shapes: Annotated[int, typer.Option(help="shapes of each model")] = 5,
    resolution: Annotated[int, typer.Option(help="cells per axis of the shapes")] = 48,
    quads: Annotated[int, typer.Option(help="wanted quads, as the middle of five numbers")] = 500,
    triangles: Annotated[int, typer.Option(help="wanted triangles")] = 1_000,
) -> None:
    """Print the table, a row a model."""
    engine, rows = Engine(device="cpu"), []
    models = [card.name for card in engine.models()]
    with Crashes() as crashes:
        for model in models:
            drawn = engine.sample(model, shapes, TaskSettings(resolution=resolution))
            runs = [_Run(shape, round(quads * multiple)) for shape in drawn for multiple in MULTIPLES]
            for run in runs:
                run.made, run.seconds = crashes.remesh(run.shape, TaskSettings(quads=run.quads))
            rows.append({"model": model} | _measure_triangles(drawn, triangles) | _measure_quads(runs))
            console.print(rows[-1])
    table = Table(
        *rows[0], title=f"{triangles} triangles and {quads} quads of drawn shapes, {resolution} cells per axis"
    )
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    show(table, rows, "meshes")


class Crashes:
    """A process that remeshes, and is started again when it has crashed."""

    def __enter__(self) -> "Crashes":
        self._pool = ProcessPoolExecutor(1, get_context("spawn"))
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def remesh(self, shape: Shape, settings: TaskSettings) -> tuple[Shape | None, float]:
        """A remeshed shape and the seconds of a core that it took; None after a crash."""
        try:
            return self._pool.submit(_timed, shape, settings).result()
        except BrokenProcessPool:
            self.__enter__()
            return None, 0.0


def _timed(shape: Shape, settings: TaskSettings) -> tuple[Shape, float]:
    start = process_time()
    return remesh_shape(shape, settings), process_time() - start


@dataclass
class _Run:
    """A shape of which so many quads were made; None after a crash."""

    shape: Shape
    quads: int
    made: Shape | None = None
    seconds: float = 0.0


def _measure_triangles(shapes: list[Shape], triangles: int) -> dict[str, object]:
    reduced = [
        remesh_shape(shape, TaskSettings(triangles=triangles)) for shape in shapes if len(shape.faces) > triangles
    ]
    return {
        "shapes": len(shapes),
        "closed": sum(is_closed(shape.faces) for shape in shapes),
        "reduced": len(reduced),
        "within 2 %": sum(abs(len(one.faces) / triangles - 1) <= 0.02 for one in reduced),
        "still closed": sum(is_closed(one.faces) for one in reduced),
    }


def _measure_quads(runs: list[_Run]) -> dict[str, object]:
    done = [(run, run.shape, run.made) for run in runs if run.made is not None]
    return {
        "runs": len(runs),
        "crashes": len(runs) - len(done),
        "quads closed": sum(is_closed(one.faces) and _euler(one) == _euler(shape) for _, shape, one in done),
        "least share": min(one.quad_share for _, _, one in done),
        "number off by": max(abs(one.quads / run.quads - 1) for run, _, one in done if not one.note),
        "notes": sum(bool(one.note) for _, _, one in done),
        "distance": float(np.mean([_distance(shape, one) for _, shape, one in done])),
        "volume": float(np.mean([_volume(one) / _volume(shape) for _, shape, one in done])),
        "seconds": float(np.mean([run.seconds for run, _, _ in done])),
        "levels": max(_color_levels(shape, one) for _, shape, one in done[:: len(MULTIPLES)]),
    }


def _mesh(shape: Shape) -> trimesh.Trimesh:
    return trimesh.Trimesh(shape.vertices, shape.faces, process=False)


def _euler(shape: Shape) -> int:
    return _mesh(shape).euler_number


def _volume(shape: Shape) -> float:
    return float(_mesh(shape).volume)


def _distance(shape: Shape, remeshed: Shape) -> float:
    """The mean distance between two surfaces, both ways, relative to the longest side."""
    both = [_squares(_mesh(one).sample(500, seed=0), other) for one, other in _both_ways(shape, remeshed)]
    return float(np.sqrt(np.concatenate(both)).mean() / np.ptp(shape.vertices, axis=0).max())


def _both_ways(shape: Shape, remeshed: Shape) -> Iterator[tuple[Shape, Shape]]:
    yield shape, remeshed
    yield remeshed, shape


def _squares(points: object, shape: Shape) -> np.ndarray:
    return np.asarray(igl.point_mesh_squared_distance(np.asarray(points), shape.vertices, shape.faces)[0])


def _color_levels(shape: Shape, remeshed: Shape) -> float:
    """How many of 255 levels the colours in a written file are from those of the coloured input beside them."""
    low, size = shape.vertices.min(axis=0), np.ptp(shape.vertices, axis=0).max()

    def gradient(points: np.ndarray) -> np.ndarray:
        return np.clip((points - low) / size, 0, 1)

    given = Geometry(shape.vertices, shape.faces, colors=gradient(shape.vertices))
    observed = (remeshed.vertices[:, 1] > np.median(remeshed.vertices[:, 1])).astype(np.float32)
    colored = color_shape(replace(remeshed, observed=observed), given)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "colored.ply"
        write_mesh(path, colored.vertices, colored.faces, observed, colors=colored.colors, quads=colored.quads)
        read = read_geometry(path)
    assert read.colors is not None
    # A gradient is linear on each triangle of the input, so that its value beside a vertex is known.
    _, _, beside = igl.point_mesh_squared_distance(colored.vertices, shape.vertices, shape.faces)
    return float(255 * np.abs(read.colors - gradient(np.asarray(beside)))[observed > 0].max())


if __name__ == "__main__":
    typer.run(main)
