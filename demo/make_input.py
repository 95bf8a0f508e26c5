"""Makes the input of the demonstration: `python -m demo.make_input DATASET NAME`, NAME a shape of its test split."""

import sys
import zlib
from pathlib import Path

import numpy as np
import trimesh

from sdf_backend.errors import InputError
from training.dataset import Dataset
from training.evaluation.scanning import CameraSettings, sample_view_directions, simulate_scan


def main(folder: Path, name: str) -> None:
    """Write scan.ply and truth.ply next to this file."""
    dataset = Dataset.open(folder)
    records = {record.name: record for record in dataset.split("test")}
    if name not in records:
        raise InputError(f"{name} is not in the test split; use one of {', '.join(records)}")
    vertices, faces = dataset.read_mesh(records[name], dataset.load(name))
    rng = np.random.default_rng([0, zlib.crc32(name.encode())])
    scan = simulate_scan(vertices, faces, sample_view_directions(1, rng)[0], CameraSettings(pixels=180), rng)
    here = Path(__file__).parent
    trimesh.PointCloud(scan.points.astype(np.float32)).export(here / "scan.ply")
    truth = trimesh.Trimesh(vertices, faces, process=False)
    truth.merge_vertices()
    truth.export(here / "truth.ply")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
