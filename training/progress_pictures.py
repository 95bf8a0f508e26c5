"""What training shows as it goes: the loss over the epochs, and a few shapes beside what the decoder makes of them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.figure import Figure

from sdf_backend.files import atomic_write
from sdf_backend.geometry.isosurface import EmptySurfaceError, ExtractSettings, extract_surface
from sdf_backend.model.store import Model
from training.dataset import Dataset
from training.pictures import contact_sheet, render_mesh, render_points

if TYPE_CHECKING:
    from training.trainer import EpochReport


def draw_losses(history: list["EpochReport"], path: Path) -> None:
    """Plot the loss and the mean code norm over the epochs."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [report.epoch for report in history]
    axes.semilogy(epochs, [report.loss for report in history], label="mean clamped distance error")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss, canonical units")
    norms = axes.twinx()
    norms.plot(epochs, [report.code_norm for report in history], color="tab:orange", label="mean code norm")
    norms.set_ylabel("code norm")
    figure.legend(loc="upper right")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100, format="png")


def draw_reconstructions(model: Model, dataset: Dataset, path: Path, count: int = 6, resolution: int = 128) -> None:
    """Picture some training shapes: the surface that was prepared, and the decoder's for the shape's own code."""
    decoder = model.folded(torch.float32)
    images, labels = [], []
    for index in np.linspace(0, len(model.codes) - 1, count).astype(int):
        samples = dataset.load(model.card.shapes[index])
        code = model.codes[index : index + 1]
        try:
            mesh = extract_surface(
                lambda points, code=code: decoder.distances(code, points[None])[0],
                ExtractSettings(resolution),
                model.device,
            )
            made = render_mesh(mesh.vertices, mesh.faces, size=(320, 240))
        except EmptySurfaceError:  # early in training there may be no surface yet
            made = np.full((240, 320, 3), 255, dtype=np.uint8)
        images += [render_points(samples.surface, size=(320, 240), normals=samples.normals), made]
        labels += [f"{model.card.shapes[index]}, prepared", "decoded"]
    contact_sheet(images, labels, columns=4, path=path)
