"""Keep Input: a completed shape as its input, unchanged, and the part that the input lacks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.geometry.source_geometry import Geometry
from sdf_backend.progress import Clock, Phase, Progress, parts
from sdf_backend.settings import Keep, TaskSettings
from sdf_backend.shapes.joining import MissingPart, find_missing_part
from sdf_backend.shapes.shape import Shape

JOINED_QUADS = "The part that completes a kept input has triangles; quads are made of whole new surfaces, without it."


def settings_of_faces(settings: TaskSettings, geometry: Geometry) -> TaskSettings:
    """The settings with what the faces of a new surface can be: it is cut along the open edges of a kept mesh, where
    quads would not stay whole."""
    return replace(settings, quads=0) if settings.keep is Keep.INPUT and len(geometry.faces) else settings


def keep_inputs(
    shapes: Sequence[Shape], geometries: Sequence[Geometry], settings: TaskSettings, progress: Progress
) -> list[Shape]:
    """Completed shapes, each with its input kept (see `keep_input`), and the time that this took."""
    kept = []
    for shape, geometry, share in zip(shapes, geometries, parts(progress, len(shapes)), strict=True):
        clock = Clock()
        share(Phase.JOINING, 0.0)
        joined = keep_input(shape, geometry)
        if settings_of_faces(settings, geometry) != settings:
            joined = joined.with_notes(JOINED_QUADS)
        clock.lap(Phase.JOINING)
        kept.append(replace(joined, seconds=joined.seconds | clock.seconds))
    return kept


def keep_input(shape: Shape, geometry: Geometry) -> Shape:
    """The input, every vertex and face as it is, joined with the part of a completed shape that it lacks.

    A point cloud has no faces to keep; then the shape as it is, with a note that says so.

    Parameters
    ----------
    shape : completed from `geometry`, in its frame
    """
    if len(geometry.faces) == 0:
        told = "The input is a point cloud, which has no faces to keep; the whole surface is new."
        return replace(shape, note=_joined(shape.note, told))
    canonical = shape.pose.inverse()
    part = find_missing_part(
        canonical.apply(geometry.vertices), geometry.faces, canonical.apply(shape.vertices), shape.faces
    )
    added = shape.pose.apply(part.vertices)
    return replace(
        shape,
        vertices=np.concatenate([geometry.vertices, added]),
        faces=np.concatenate([geometry.faces, part.faces]),
        observed=_with_kept(1.0, shape.observed, shape, geometry, added),
        deviation=_with_kept(0.0, shape.deviation, shape, geometry, added),
        colors=_with_kept(geometry.colors, shape.colors, shape, geometry, added),
        kept_vertices=len(geometry.vertices),
        kept_faces=len(geometry.faces),
        note=_joined(shape.note, _note(part)),
    )


def _with_kept(
    kept: float | np.ndarray | None, values: np.ndarray | None, shape: Shape, geometry: Geometry, added: np.ndarray
) -> np.ndarray | None:
    """Values of the joined mesh's vertices: `kept` for the input's, the nearest of the shape's for those added."""
    if values is None or kept is None:
        return None
    _, nearest = KDTree(shape.vertices).query(added.reshape(-1, 3))
    known = np.broadcast_to(kept, (len(geometry.vertices), *values.shape[1:]))
    return np.concatenate([known, values[nearest]]).astype(np.float32)


def _joined(*notes: str) -> str:
    """Notes one after another, the empty ones left out."""
    return " ".join(filter(None, notes))


def _note(part: MissingPart) -> str:
    """What a user should know of a join."""
    sentences = [] if len(part.faces) else ["Nothing is missing of the input."]
    if part.overlaps:
        ends = (
            "One end of the new part overlaps"
            if part.overlaps == 1
            else f"{part.overlaps} ends of the new part overlap"
        )
        sentences.append(f"{ends} the input, which has no single open edge there to join.")
    if part.open_loops:
        number = "One opening" if part.open_loops == 1 else f"{part.open_loops} openings"
        sentences.append(f"{number} of the input, where the result has nothing to add, stayed as found.")
    return " ".join(sentences)
