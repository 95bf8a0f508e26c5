"""Prepares meshes on a Ray cluster of three nodes on this machine, of which one is killed, and then the head.

    python -m benchmarks.cluster FOLDER --meshes 400

Half of the meshes later the command is given again to a new head. The dataset must be that of a single process, to the
byte, and what was sampled before the head was lost must not be sampled again. Needs the extra `cluster`. FOLDER is made
and removed at the end.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import trimesh
import typer
from rich.table import Table

from benchmarks.shared import show
from training.dataset import Dataset

NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}
app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def main(
    folder: Annotated[Path, typer.Argument(help="a new folder for meshes and datasets")],
    meshes: int = 400,
    samples: int = 20_000,
) -> None:
    """Print what was done when, and whether the datasets are equal."""
    try:
        found = endure(folder, meshes, samples)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = Table("", "", title=f"{meshes} meshes, {samples:,} samples each")
    for name, value in found.items():
        table.add_row(name, str(value))
    show(table, [found], "cluster")


def endure(folder: Path, meshes: int, samples: int) -> dict[str, Any]:
    """Prepare alone, and on a cluster that loses a node and its head.

    Returns
    -------
    What happened, by name: counts of sample files at each event, `code` and `stderr` of the run that lost its head,
    `equal` and `sampled twice` of the dataset.
    """
    source, alone, shared = (folder / name for name in ("meshes", "alone", "shared"))
    source.mkdir(parents=True)
    for number in range(meshes):
        box = trimesh.creation.box((1, 1 + number / meshes, 1 + 2 * number / meshes))
        box.subdivide().subdivide().export(source / f"box{number:04d}.obj")
    # All processes, those of the nodes too, find the package where this one does; and folders are given as users do.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "training", "prepare", source.name, "--samples", str(samples), "-o"]
    began = time.monotonic()
    subprocess.run([*command, alone.name, "--jobs", "1"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = {"alone, s": round(time.monotonic() - began, 1)}
    cluster = _start()
    try:
        began = time.monotonic()
        lost = subprocess.Popen(
            [*command, shared.name, "--ray", cluster.address],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        found["samples when the node died"] = _wait(lost, lambda: len(_sampled(shared)), meshes // 8)
        cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
        found["samples when the head died"] = _wait(lost, lambda: len(_sampled(shared)), meshes // 2)
        cluster.head_node.kill_gcs_server()
        _, found["stderr"] = lost.communicate()
        found["code"], found["first run, s"] = lost.returncode, round(time.monotonic() - began, 1)
    finally:
        cluster.shutdown()
    before = _sampled(shared)
    found["samples before the second run"] = len(before)
    cluster = _start()
    try:
        began = time.monotonic()
        again = [*command, shared.name, "--ray", cluster.address]
        subprocess.run(again, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        found["second run, s"] = round(time.monotonic() - began, 1)
    finally:
        cluster.shutdown()
    stored = Dataset.open(shared).store.shapes
    found["sampled twice"] = sum(stored[name][1].prepared != when for name, when in before.items())
    found["equal"] = content(alone) == content(shared)
    return found


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset but its contact sheet, by name, without the times in them."""
    files = {path.name: path.read_bytes() for path in folder.glob("store/*/*.npy")}
    stored = {name: vars(shape) | {"prepared": 0} for name, (_, shape) in Dataset.open(folder).store.shapes.items()}
    report = [[row["name"], row["reason"]] for row in json.loads((folder / "report.json").read_text())]
    files |= {"index": json.dumps(stored).encode(), "report": json.dumps(report).encode()}
    return files | {"description": (folder / "dataset.json").read_bytes()}


def _start() -> Any:
    """A head and two more nodes, with a core each."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = import_module("ray.cluster_utils").Cluster(
        initialize_head=True, head_node_args={**NODE, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(**NODE)
    return cluster


def _sampled(folder: Path) -> dict[str, int]:
    """When each sample file that is there was written, in nanoseconds since 1970."""
    found = {}
    for path in (folder / "shapes").glob("[!.]*.npz"):
        found[path.stem] = path.stat().st_mtime_ns
    return found


def _wait(process: subprocess.Popen[str], value: Callable[[], int], least: int) -> int:
    """The value, once it is at least so much; fails where the process ends before."""
    while (now := value()) < least:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}: {process.communicate()}")
        time.sleep(0.05)
    return now


if __name__ == "__main__":
    app()
