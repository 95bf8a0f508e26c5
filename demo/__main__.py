"""Complete a real partial scan with the shipped aeroplane decoder, in this process: `make demo`.

`scan.ply` is what a virtual depth camera sees of an aeroplane that the decoder was not trained on, `truth.ply` its true
surface; make_input.py made both.
"""

import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from sdf_backend.console import report_errors
from sdf_backend.engine import Engine, Source
from sdf_backend.geometry.mesh_files import read_geometry, write_mesh
from sdf_backend.settings import Pose, TaskSettings
from training.evaluation.metrics import chamfer, sample_surface
from training.pictures import render_mesh, render_points, shared_bounds, side_by_side, write_png

HERE = Path(__file__).parent
POINTS = 30_000


def main(output: Path = Path("out/demo")) -> None:
    """Write the mesh and the picture; print where they are, how long each step took, and how near the truth is."""
    console = Console()
    start = time.perf_counter()
    scan, truth = read_geometry(HERE / "scan.ply"), read_geometry(HERE / "truth.ply")
    engine = Engine()
    engine.model("airplanes")
    seconds = {"loading": time.perf_counter() - start}
    [shape] = engine.complete("airplanes", [Source(scan)], TaskSettings(pose=Pose.KNOWN))
    seconds |= shape.seconds

    mesh, picture = output / "completed.ply", output / "before_after.png"
    start = time.perf_counter()
    write_mesh(mesh, shape.vertices, shape.faces, shape.observed)
    seconds["writing"] = time.perf_counter() - start
    bounds = shared_bounds(truth.vertices, shape.vertices)
    row = [
        (f"the scan: {len(scan.vertices):,} points", render_points(scan.vertices, bounds=bounds)),
        (
            "completed: blue was seen, orange filled in",
            render_mesh(shape.vertices, shape.faces, bounds=bounds, vertex_colors=shape.observed),
        ),
        ("the truth", render_mesh(truth.vertices, truth.faces, bounds=bounds)),
    ]
    write_png(side_by_side(row), picture)

    table = Table("step", "seconds", title="completing one scan")
    for phase, value in seconds.items():
        table.add_row(str(phase), f"{value:.2f}")
    console.print(table)
    rng = np.random.default_rng(0)
    true_points, _ = sample_surface(truth.vertices, truth.faces, POINTS, rng)
    made_points, _ = sample_surface(shape.vertices, shape.faces, POINTS, rng)
    console.print(
        f"Chamfer distance to the truth, unit sphere, x 1000: completed {1e3 * chamfer(made_points, true_points):.2f}, "
        f"bare scan {1e3 * chamfer(scan.vertices, true_points):.2f}"
    )
    console.print(f"mesh: {mesh.resolve()}\npicture: {picture.resolve()}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    with report_errors():
        main()
