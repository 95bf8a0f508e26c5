"""Contact sheets: input, result and ground truth of every shape; sampled shapes and their nearest training shapes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sdf_backend.geometry.camera import BACKGROUND
from training.contact_sheet import write_contact_sheet
from training.evaluation.outcomes import ShapeOutcome, ShapeResult
from training.evaluation.sampled_shapes import SampledShape
from training.evaluation.tasks import Task
from training.rendering import Pixels, render_mesh, render_points, shared_bounds
from training.triangle_mesh import Mesh

# Width and height before empty margins are cropped.
IMAGE_SIZE = (480, 360)
# Chamfer distances are printed times this, as in the papers.
CHAMFER_FACTOR = 1e3
# Images per row: two or three shapes.
COLUMNS = 6


@dataclass
class ResultSheet:
    """Collects the images of all results; each result is rendered when it is added, so that no mesh is kept."""

    task: Task
    images: list[Pixels] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, result: ShapeResult) -> None:
        """Render one result; parts that it lacks are blank."""
        for label, image in render_result(result, self.task):
            self.labels.append(label)
            self.images.append(image)

    def save(self, path: Path) -> None:
        """Write the contact sheet as PNG."""
        write_contact_sheet(self.images, self.labels, COLUMNS, path)


def render_result(result: ShapeResult, task: Task) -> list[tuple[str, Pixels]]:
    """Render input (but for `known`), result and ground truth with a shared framing; returns (label, image) pairs."""
    outcome, truth, shape, points = result.outcome, result.truth, result.shape, result.points
    clouds = [mesh.vertices for mesh in (shape, truth) if mesh is not None] + ([] if points is None else [points])
    bounds = shared_bounds(*clouds) if clouds else None
    labelled = []
    if task is not Task.KNOWN:
        if result.broken is not None:
            image = _render(*_smooth_two_sided(result.broken), bounds, None)
        else:
            image = _blank() if points is None else render_points(points, IMAGE_SIZE, bounds=bounds)
        labelled.append((f"{outcome.title}\n{_input_label(outcome, task)}", image))
    image = _blank()
    if shape is not None:
        # Only scans and broken meshes leave part of the surface unobserved.
        image = _render(shape.vertices, shape.faces, bounds, shape.observed if task.scans or task.breaks else None)
    labelled.append((_score_label(outcome, with_title=task is Task.KNOWN), image))
    image = _blank() if truth is None else _render(*_smooth_two_sided(truth), bounds, None)
    labelled.append(("ground truth", image))
    labels, images = zip(*labelled, strict=True)
    return list(zip(labels, _cropped(images), strict=True))


@dataclass
class SampleSheet:
    """Collects pairs of images: a sampled shape and, beside it, the training shape nearest to it."""

    images: list[Pixels] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, sample: SampledShape, nearest: Mesh) -> None:
        """Render one pair with a shared framing."""
        shape = sample.shape
        bounds = shared_bounds(shape.vertices, nearest.vertices)
        images = [
            _render(shape.vertices, shape.faces, bounds, None),
            _render(*_smooth_two_sided(nearest), bounds, None),
        ]
        self.images += _cropped(images)
        distance = CHAMFER_FACTOR * sample.nearest.chamfer
        self.labels += [f"sample, seed {sample.seed}", f"nearest, Chamfer {distance:.2f}\n{sample.nearest.name}"]

    def save(self, path: Path) -> None:
        """Write the contact sheet as PNG."""
        write_contact_sheet(self.images, self.labels, COLUMNS, path)


def _input_label(outcome: ShapeOutcome, task: Task) -> str:
    if task is Task.UNKNOWN:
        return "samples inside"
    name = "broken" if task.breaks else "scan"
    return name if outcome.scan is None else f"{name}, Chamfer {CHAMFER_FACTOR * outcome.scan:.2f}"


def _score_label(outcome: ShapeOutcome, with_title: bool) -> str:
    title = f"{outcome.title}\n" if with_title else ""
    if outcome.scores is None:
        return f"{title}failed: {outcome.reason}"
    return f"{title}result, Chamfer {CHAMFER_FACTOR * outcome.scores.chamfer:.2f}"


def _render(vertices: np.ndarray, faces: np.ndarray, bounds: np.ndarray | None, observed: np.ndarray | None) -> Pixels:
    return render_mesh(vertices, faces, IMAGE_SIZE, bounds=bounds, vertex_colors=observed)


def _smooth_two_sided(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Merge vertices, for smooth shading, and add each face reversed, so that no back face is visible.

    Source meshes contain thin sheets, such as propeller discs, which are valid from both sides.
    """
    vertices, corners = np.unique(mesh.vertices.round(6), axis=0, return_inverse=True)
    faces = corners.reshape(-1)[mesh.faces]
    # The reversed faces have vertices of their own: normals of opposite faces at one vertex cancel.
    return np.concatenate([vertices, vertices]), np.concatenate([faces, faces[:, ::-1] + len(vertices)])


def _cropped(images: Sequence[Pixels]) -> list[Pixels]:
    """Crop the margins that are empty in all images."""
    drawn = np.any([(image != np.array(BACKGROUND)).any(axis=2) for image in images], axis=0)
    if not drawn.any():
        return list(images)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    return [image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for image in images]


def _blank() -> Pixels:
    width, height = IMAGE_SIZE
    return np.tile(np.array(BACKGROUND, dtype=np.uint8), (height, width, 1))
