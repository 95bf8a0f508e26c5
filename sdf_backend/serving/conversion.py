"""Converts inputs and shapes between the engine and the wire, for workers and remote engines."""

import numpy as np

from sdf_backend.engine import Shape, Source
from sdf_backend.errors import InputError
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.geometry.source_geometry import LARGEST_COORDINATE, Geometry, check_geometry
from sdf_backend.wire import messages as wire


def source_to_wire(source: Source) -> wire.Source:
    """Convert an input, keeping its precision. Raises `ValueError` for arrays whose lengths do not match."""
    geometry = source.geometry
    faces = geometry.faces.astype(np.int32) if len(geometry.faces) else None
    sensor = None
    if source.sensor is not None:
        x, y, z = map(float, source.sensor)
        sensor = (x, y, z)
    return wire.Source(geometry.vertices, faces, geometry.normals, sensor, geometry.colors)


def source_from_wire(source: wire.Source, name: str) -> Source:
    """The inverse of `source_to_wire`, with copied arrays: aligned, writable and of the dtypes of the engine.

    Raises `InputError`, which calls the input `name`, for geometry that cannot be used; see `check_geometry`.
    """
    vertices = np.array(source.vertices, dtype=np.float64)
    faces = np.zeros((0, 3), dtype=np.int64) if source.faces is None else np.array(source.faces, dtype=np.int64)
    normals = None if source.normals is None else np.array(source.normals, dtype=np.float64)
    sensor = None if source.sensor is None else np.array(source.sensor)
    colors = None if source.colors is None else np.array(source.colors, dtype=np.float64)
    return Source(check_geometry(Geometry(vertices, faces, normals, colors), name), sensor)


def shape_to_wire(shape: Shape, dtype: np.dtype, is_chosen: bool = False) -> wire.Shape:
    """Convert a finished shape.

    dtype : that of the vertices
    is_chosen : whether its model was chosen by the input, so that the client has to be told which
    """
    return wire.Shape(
        shape.vertices.astype(dtype),
        shape.faces.astype(np.int32),
        np.atleast_2d(shape.code),
        matrix_of(shape.pose)[None],
        shape.observed,
        shape.refinement,
        shape.deviation,
        float(shape.residual),
        float(shape.explained),
        float(shape.confidence),
        shape.steps,
        {str(phase): seconds for phase, seconds in shape.seconds.items()},
        shape.kept_vertices,
        shape.kept_faces,
        shape.note,
        shape.colors,
        shape.model if is_chosen else "",
        float(shape.model_confidence),
        shape.quads,
    )


def shape_from_wire(shape: wire.Shape, model: str) -> Shape:
    """The inverse of `shape_to_wire`, without the number of evaluations; `model` is what was asked for."""
    return Shape(
        shape.model or model,
        shape.vertices.astype(np.float64),
        shape.faces.astype(np.int64),
        shape.code[0].astype(np.float32),
        similarity_of(shape.pose[0], "the pose"),
        shape.observed,
        shape.refinement,
        shape.deviation,
        shape.residual,
        shape.explained,
        shape.confidence,
        shape.steps,
        seconds=shape.seconds,
        kept_vertices=shape.kept_vertices,
        kept_faces=shape.kept_faces,
        note=shape.note,
        colors=shape.colors,
        model_confidence=shape.model_confidence,
        quads=shape.quads,
    )


def matrix_of(pose: Similarity) -> np.ndarray:
    """A similarity as a (4, 4) float64 matrix for column vectors."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = pose.scale * pose.rotation, pose.translation
    return matrix


def similarity_of(matrix: np.ndarray, name: str) -> Similarity:
    """The inverse of `matrix_of`; raises `InputError` if it is huge, or has shear, reflection or uneven scale."""
    if not np.abs(matrix).max() <= LARGEST_COORDINATE:  # NaN is not
        raise InputError(f"{name} has numbers that are not finite or above {LARGEST_COORDINATE:g}; scale it down")
    linear = matrix[:3, :3].astype(np.float64)
    determinant = float(np.linalg.det(linear))
    scale = abs(determinant) ** (1 / 3)
    uniform = np.abs(linear.T @ linear - scale**2 * np.eye(3)).max() <= 1e-4 * scale**2
    if determinant <= 0 or not uniform or np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6:
        raise InputError(
            f"{name} is not a rotation, translation and uniform scale; apply other transforms to the result"
        )
    return Similarity(scale, linear / scale, matrix[:3, 3].astype(np.float64))
