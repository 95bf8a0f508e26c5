"""What the benchmarks share: where the test shapes are, and tables that say on which machine they were made."""

import json
import platform
from pathlib import Path

import torch
import typer
from rich.console import Console
from rich.table import Table

from sdf_backend.files import atomic_write
from sdf_backend.model.store import Model, ModelStore, load_model
from sdf_backend.observation.observations import Observations, observe_samples
from training.dataset import Dataset

console = Console(width=150)
ModelOption = typer.Option(help="a model's name or file")
DatasetOption = typer.Option(help="the category's prepared dataset; docs/results.md says how to make it")


def load(model: str, dataset: Path, device: str) -> tuple[Model, Dataset, list[str]]:
    """The model, the dataset, and the names of its test shapes."""
    data = Dataset.open(dataset)
    return load_model(ModelStore().find(model), device), data, [record.name for record in data.split("test")]


def test_observations(dataset: Dataset, names: list[str]) -> list[Observations]:
    """All signed samples of each test shape."""
    shapes = [dataset.load(name) for name in names]
    return [observe_samples(shape.points, shape.distances, shape.surface) for shape in shapes]


def show(table: Table, rows: list[dict], name: str) -> None:
    """Print the table and keep its rows as JSON in out/benchmarks."""
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    console.print(table, f"measured on: {machine}", sep="\n")
    with atomic_write(Path("out/benchmarks") / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


def peak_memory() -> int:
    """The largest resident memory that this process has had, in bytes."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) << 10
