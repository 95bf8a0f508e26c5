"""Completes a partial scan with the shipped airplane decoder, in this process: `make demo`.

`scan.ply` is a simulated depth scan of an airplane that the decoder was not trained on, `truth.ply` the ground truth;
both were made with make_input.py.
"""

import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from sdf_backend.console import report_errors
from sdf_backend.engine import Engine, Source
from sdf_backend.geometry.attribute_colors import observed_colors
from sdf_backend.geometry.mesh_files import read_geometry, write_mesh
from sdf_backend.settings import Pose, TaskSettings
from training.contact_sheet import side_by_side, write_png
from training.evaluation.metrics import METRICS, chamfer_distance, sample_surface
from training.rendering import render_mesh, render_points, shared_bounds

HERE = Path(__file__).parent


def main(output: Path = Path("out/demo")) -> None:
    """Write the completed mesh and a picture of it; print their paths, the timings and the Chamfer distances."""
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
    colors = None if shape.observed is None else observed_colors(shape.observed)
    write_mesh(mesh, shape.vertices, shape.faces, shape.observed, colors=colors)
    seconds["writing"] = time.perf_counter() - start
    bounds = shared_bounds(truth.vertices, shape.vertices)
    images = [
        (f"scan: {len(scan.vertices):,} points", render_points(scan.vertices, bounds=bounds)),
        (
            "completed: observed in blue, the rest in orange",
            render_mesh(shape.vertices, shape.faces, bounds=bounds, vertex_colors=shape.observed),
        ),
        ("ground truth", render_mesh(truth.vertices, truth.faces, bounds=bounds)),
    ]
    write_png(side_by_side(images), picture)

    table = Table("step", "seconds", title="completion of one scan")
    for phase, value in seconds.items():
        table.add_row(str(phase), f"{value:.2f}")
    console.print(table)
    rng = np.random.default_rng(0)
    true_points, _ = sample_surface(truth.vertices, truth.faces, METRICS.chamfer_points, rng)
    points, _ = sample_surface(shape.vertices, shape.faces, METRICS.chamfer_points, rng)
    console.print(
        f"Chamfer distance to the ground truth, unit sphere, x 1000: "
        f"completed {1e3 * chamfer_distance(points, true_points):.2f}, "
        f"bare scan {1e3 * chamfer_distance(scan.vertices, true_points):.2f}"
    )
    console.print(f"mesh: {mesh.resolve()}\npicture: {picture.resolve()}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    with report_errors():
        main()
