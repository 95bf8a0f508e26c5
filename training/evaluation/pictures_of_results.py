"""Results of an evaluation as pictures: what a shape was made from, the shape, and the truth."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from training.evaluation.evaluate import Outcome, Result, Task
from training.evaluation.metrics import Mesh
from training.pictures import BACKGROUND, Pixels, contact_sheet, render_mesh, render_points, shared_bounds

# Before empty margins are cut off.
PICTURE_SIZE = (480, 360)
# Chamfer distances are printed times this, as the papers do.
CHAMFER_FACTOR = 1e3


@dataclass
class ContactSheet:
    """Input, result and truth of every shape, drawn as they come so that no mesh need be kept."""

    task: Task
    images: list[Pixels] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        """Draw one result; what it lacks is left blank."""
        for label, image in pictures_of(result, self.task):
            self.labels.append(label)
            self.images.append(image)

    def save(self, path: Path) -> None:
        """Write the sheet, six pictures wide: two or three shapes a row."""
        contact_sheet(self.images, self.labels, 6, path)


def pictures_of(result: Result, task: Task) -> list[tuple[str, Pixels]]:
    """Labelled pictures, all at one framing: what the shape was made from (but for `known`), the shape, the truth."""
    outcome, truth, shape, points = result.outcome, result.truth, result.shape, result.points
    clouds = [mesh.vertices for mesh in (shape, truth) if mesh is not None] + ([] if points is None else [points])
    bounds = shared_bounds(*clouds) if clouds else None
    pictures = []
    if task is not Task.KNOWN:
        picture = _blank() if points is None else render_points(points, PICTURE_SIZE, bounds=bounds)
        pictures.append((f"{outcome.title}\n{_input_label(outcome, task)}", picture))
    made = _blank() if shape is None else _render(shape.vertices, shape.faces, bounds, shape.observed)
    pictures.append((_score_label(outcome, alone=task is Task.KNOWN), made))
    pictures.append(("truth", _blank() if truth is None else _render(*_two_sided(truth), bounds, None)))
    labels, images = zip(*pictures, strict=True)
    return list(zip(labels, _cropped(images), strict=True))


def _input_label(outcome: Outcome, task: Task) -> str:
    if task is Task.UNKNOWN:
        return "samples inside"
    return "scan" if outcome.scan is None else f"scan, Chamfer {CHAMFER_FACTOR * outcome.scan:.2f}"


def _score_label(outcome: Outcome, alone: bool) -> str:
    title = f"{outcome.title}\n" if alone else ""
    if outcome.scores is None:
        return f"{title}failed: {outcome.reason}"
    return f"{title}result, Chamfer {CHAMFER_FACTOR * outcome.scores.chamfer:.2f}"


def _render(vertices: np.ndarray, faces: np.ndarray, bounds: np.ndarray | None, observed: np.ndarray | None) -> Pixels:
    return render_mesh(vertices, faces, PICTURE_SIZE, bounds=bounds, vertex_colors=observed)


def _two_sided(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """The mesh for a picture: smooth, since corners in one place are made one, and nowhere seen from behind.

    A source mesh holds sheets, as of a turning propeller, that are fine to look at from both sides.
    """
    vertices, corners = np.unique(mesh.vertices.round(6), axis=0, return_inverse=True)
    faces = corners.reshape(-1)[mesh.faces]
    # The second side has vertices of its own, or the normals of the two would cancel.
    return np.concatenate([vertices, vertices]), np.concatenate([faces, faces[:, ::-1] + len(vertices)])


def _cropped(images: Sequence[Pixels]) -> list[Pixels]:
    """All images without the margins that all of them leave empty: a box seen from its corner leaves wide ones."""
    drawn = np.any([(image != np.array(BACKGROUND)).any(axis=2) for image in images], axis=0)
    if not drawn.any():
        return list(images)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    return [image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] for image in images]


def _blank() -> Pixels:
    width, height = PICTURE_SIZE
    return np.tile(np.array(BACKGROUND, dtype=np.uint8), (height, width, 1))
