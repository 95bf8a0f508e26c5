"""Benchmark of sparse against dense isosurface extraction, on test shapes fitted at standard quality.

    python -m benchmarks.extract

The dense reference evaluates every node of the grid inside the domain with the same decoder. A mesh counts as the same
if vertices, faces and Euler number agree and no vertex is farther than 1e-5 from its counterpart. A dense grid of 512
cells takes minutes, so each comparison is kept in out/benchmarks/dense, and an interrupted run continues from there.
Peak memory is that of a separate process which extracts one shape sparsely and does nothing else.

All of that is in float32, as the reference is. What the product does, bfloat16 at the nodes and float32 at the
vertices, is measured in the same run: its time, and the distance of its vertices from the float32 level set.
"""

import json
import multiprocessing
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import trimesh
import typer
from rich.table import Table
from scipy.spatial import KDTree

from benchmarks.shared import DatasetOption, ModelOption, console, load, show, test_observations
from sdf_backend.content_cache import content_key
from sdf_backend.files import atomic_write
from sdf_backend.fitting.fit import FitRequest, fit_codes
from sdf_backend.fitting.fit_settings import solid_settings
from sdf_backend.geometry.isosurface import Extraction, ExtractSettings, Field, extract_dense, extract_surface
from sdf_backend.model.devices import EXTRACTION_BATCH
from sdf_backend.model.store import Model, ModelStore, load_model
from sdf_backend.settings import Quality

TOLERANCE = 1e-5


def main(
    model: Annotated[str, ModelOption] = "airplanes",
    dataset: Annotated[Path, DatasetOption] = Path("data/airplanes"),
    device: Annotated[str, typer.Option()] = "cpu",
    resolution: Annotated[list[int], typer.Option(help="cells per axis")] = [128, 256, 512],  # noqa: B006
    dense: Annotated[list[int], typer.Option(help="shapes compared with the dense grid, one number per resolution")] = [  # noqa: B006
        16,
        16,
        2,
    ],
) -> None:
    """Print the table."""
    loaded, data, names = load(model, dataset, device)
    observed = test_observations(data, names)
    requests = [FitRequest(one) for one in observed]
    codes = torch.stack([fit.code for fit in fit_codes(loaded, requests, solid_settings(Quality.STANDARD))])
    rows = []
    for cells, compared in zip(resolution, dense, strict=True):
        settings = ExtractSettings(cells, clamp=loaded.card.clamp, batch=EXTRACTION_BATCH[loaded.device.type])
        rows.append(_measure(loaded, codes, settings, min(compared, len(codes))))
        rows[-1]["memory"] = _peak_memory(model, codes[0], settings, device)
    table = Table("cells", "shapes", "evaluations", "of dense", "s a shape", "of dense", "compared", "same", "farthest")
    for title in ("peak memory", "s in bfloat16", "of float32", "off zero", "in float32"):
        table.add_column(title)
    for row in rows:
        table.add_row(
            str(row["resolution"]),
            str(len(codes)),
            f"{row['evaluations']:,.0f}",
            f"{row['share']:.2%} (most {row['most']:.2%})",
            f"{row['seconds']:.2f}",
            f"1/{row['dense_seconds'] / row['seconds_compared']:.0f}" if row["compared"] else "-",
            str(row["compared"]),
            str(row["same"]),
            f"{row['farthest']:.1e}",
            f"{row['memory'] / 2**20:.0f} MiB",
            f"{row['quick_seconds']:.2f}",
            f"{row['quick_seconds'] / row['seconds']:.2f}",
            f"{row['quick_off']:.1e}",
            f"{row['off']:.1e}",
        )
    show(table, rows, "extract")


def _measure(model: Model, codes: torch.Tensor, settings: ExtractSettings, compared: int) -> dict:
    decoder, quick_decoder = model.folded(torch.float32), model.folded(torch.bfloat16)
    nodes = (settings.resolution + 1) ** 3
    weights = content_key(*(tensor.numpy(force=True) for tensor in model.decoder.state_dict().values()))
    sparse_seconds, quick_seconds, off, quick_off, comparisons, shares = [], [], [], [], [], []
    for index, code in enumerate(codes):

        def field(points: torch.Tensor, code: torch.Tensor = code) -> torch.Tensor:
            return decoder.distances(code[None], points[None])[0]

        def estimate(points: torch.Tensor, code: torch.Tensor = code) -> torch.Tensor:
            return quick_decoder.distances(code[None], points[None])[0]

        start = time.perf_counter()
        sparse = extract_surface(field, settings, model.device)
        sparse_seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        quick = extract_surface(estimate, settings, model.device, exact=field)
        quick_seconds.append(time.perf_counter() - start)
        off.append(_off_zero(field, sparse))
        quick_off.append(_off_zero(field, quick))
        shares.append(sparse.evaluations / nodes)
        if index >= compared:
            continue
        key = content_key(weights, code.numpy(force=True), settings.resolution, str(model.device))
        comparisons.append(_compared(key, field, settings, model.device, sparse, sparse_seconds[-1]))
        one = comparisons[-1]
        console.print(f"{settings.resolution}: shape {index}: {'same' if one['same'] else 'DIFFERS'}", end=", ")
        console.print(f"{one['distance']:.1e}, {one['dense_seconds']:.0f} s")
    return {
        "resolution": settings.resolution,
        "evaluations": float(np.mean(shares)) * nodes,
        "share": float(np.mean(shares)),
        "most": float(np.max(shares)),
        "seconds": float(np.mean(sparse_seconds)),
        "quick_seconds": float(np.mean(quick_seconds)),
        "off": float(np.mean(off)),
        "quick_off": float(np.mean(quick_off)),
        "seconds_compared": sum(one["sparse_seconds"] for one in comparisons),
        "dense_seconds": sum(one["dense_seconds"] for one in comparisons),
        "compared": compared,
        "same": sum(one["same"] for one in comparisons),
        "farthest": max((one["distance"] for one in comparisons), default=0.0),
    }


@torch.inference_mode()
def _off_zero(field: Field, extraction: Extraction) -> float:
    """Mean magnitude of the field at the vertices, canonical units."""
    points = torch.from_numpy(extraction.vertices).float()
    return float(torch.cat([field(part).abs() for part in points.split(4096)]).mean())


def _compared(
    key: str, field: Field, settings: ExtractSettings, device: torch.device, sparse: Extraction, sparse_seconds: float
) -> dict:
    """Comparison of a mesh with that of the dense grid, both timed in one run; kept under `key`."""
    path = Path("out/benchmarks/dense") / f"{key}.json"
    if path.is_file():
        return json.loads(path.read_text())
    start = time.perf_counter()
    reference = extract_dense(field, settings, device)
    seconds = time.perf_counter() - start
    same, distance = _compare(sparse, reference)
    result = {"same": same, "distance": distance, "sparse_seconds": sparse_seconds, "dense_seconds": seconds}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result))
    return result


def _compare(sparse: Extraction, dense: Extraction) -> tuple[bool, float]:
    """Whether the meshes are the same, and the largest distance between counterparts."""
    distance = float(KDTree(dense.vertices).query(sparse.vertices)[0].max())
    euler = [trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).euler_number for mesh in (sparse, dense)]
    counts = len(sparse.vertices) == len(dense.vertices) and len(sparse.faces) == len(dense.faces)
    return counts and euler[0] == euler[1] and distance <= TOLERANCE, distance


def _peak_memory(model: str, code: torch.Tensor, settings: ExtractSettings, device: str) -> int:
    """Peak memory of a fresh process that loads the model and extracts one shape, bytes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_extract_alone, (model, code.tolist(), settings, device))


def _extract_alone(name: str, code: list[float], settings: ExtractSettings, device: str) -> int:
    model = load_model(ModelStore().find(name), device)
    decoder, latent = model.folded(torch.float32), torch.tensor([code], device=device)
    extract_surface(lambda points: decoder.distances(latent, points[None])[0], settings, device)
    return _own_peak()


def _own_peak() -> int:
    """Peak memory of this process, bytes; on Linux `getrusage` includes that of the process that forked it."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    typer.run(main)
