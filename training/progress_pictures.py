"""Pictures of a training run: loss curves, and some training shapes beside their reconstructions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from sdf_backend.files import atomic_write
from sdf_backend.geometry.isosurface import EmptySurfaceError, ExtractSettings, extract_surface
from sdf_backend.model.store import Model
from training.contact_sheet import write_contact_sheet
from training.dataset import Dataset
from training.history import EpochReport
from training.rendering import render_mesh, render_points

# Width and height of each image.
IMAGE_SIZE = (320, 240)


def plot_losses(history: Sequence[EpochReport], path: Path) -> None:
    """Plot the loss and the mean code norm over the epochs, as PNG."""
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
    """Draw training shapes beside the surfaces that are decoded from their latent codes, as a contact sheet.

    count : of shapes, evenly spaced; resolution : cells per axis
    """
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
            reconstruction = render_mesh(mesh.vertices, mesh.faces, size=IMAGE_SIZE)
        except EmptySurfaceError:  # early in training the level set may be empty
            reconstruction = np.full((IMAGE_SIZE[1], IMAGE_SIZE[0], 3), 255, dtype=np.uint8)
        images += [render_points(samples.surface, size=IMAGE_SIZE, normals=samples.normals), reconstruction]
        labels += [f"{model.card.shapes[index]}, training shape", "reconstruction"]
    write_contact_sheet(images, labels, columns=4, path=path)
