"""Times the sampling of signed distances on one core, against the signed distance of libigl on the same clean mesh.

    python -m benchmarks.prepare

libigl takes the sign from the fast winding number: it is correct on clean meshes, but positive everywhere once faces
are doubled, as they are in raw ShapeNet meshes.
"""

import os
import time

# Read by libigl on its first use: one core, as for each worker of prepare.
os.environ["IGL_NUM_THREADS"] = "1"

import igl
import numpy as np
import trimesh
import typer
from rich.table import Table

from benchmarks.shared import show
from training.sampling import SampleSettings, sample_mesh


def main(samples: int = 500_000) -> None:
    """Print the table."""
    rows = []
    for subdivisions in (3, 4, 5):
        mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
        rows.append(_measure("sphere", mesh.vertices, mesh.faces, samples))
    # About 10,000 faces, the size of the target.
    mesh = trimesh.creation.torus(0.7, 0.25, major_sections=100, minor_sections=50)
    rows.append(_measure("torus", mesh.vertices, mesh.faces, samples))
    doubled = np.concatenate([mesh.faces, mesh.faces[:, ::-1]])
    rows.append(_measure("torus, faces doubled", mesh.vertices, doubled, samples))
    table = Table("mesh", "faces", "ours, s", "libigl, s", "ratio", "wrong signs, ours", "wrong signs, libigl")
    for row in rows:
        table.add_row(
            row["mesh"],
            f"{row['faces']:,}",
            f"{row['seconds']:.2f}",
            f"{row['libigl_seconds']:.2f}",
            f"{row['seconds'] / row['libigl_seconds']:.2f}",
            f"{row['wrong']:.3%}",
            f"{row['libigl_wrong']:.3%}",
        )
    table.title = f"{samples:,} samples, one core; signs compared beyond 0.01 from the surface"
    show(table, rows, "prepare")


def _measure(name: str, vertices: np.ndarray, faces: np.ndarray, samples: int) -> dict:
    start = time.perf_counter()
    made = sample_mesh(vertices, faces, SampleSettings(count=samples), np.random.default_rng(0))
    seconds = time.perf_counter() - start
    canonical = (np.asarray(vertices) + made.offset) * made.scale
    start = time.perf_counter()
    kind = igl.SignedDistanceType.SIGNED_DISTANCE_TYPE_FAST_WINDING_NUMBER
    theirs = igl.signed_distance(made.points.astype(np.float64), canonical, np.asarray(faces, np.int64), kind)[0]
    libigl_seconds = time.perf_counter() - start
    truth = _truth(name, made.points / made.scale - made.offset) * made.scale
    far = np.abs(truth) > 0.01
    return {
        "mesh": name,
        "faces": len(faces),
        "seconds": seconds,
        "libigl_seconds": libigl_seconds,
        "wrong": float((np.sign(made.distances) != np.sign(truth))[far].mean()),
        "libigl_wrong": float((np.sign(theirs) != np.sign(truth))[far].mean()),
    }


def _truth(name: str, points: np.ndarray) -> np.ndarray:
    if name == "sphere":
        return np.linalg.norm(points, axis=1) - 1.0
    ring = np.linalg.norm(points[:, :2], axis=1) - 0.7
    return np.hypot(ring, points[:, 2]) - 0.25


if __name__ == "__main__":
    typer.run(main)
