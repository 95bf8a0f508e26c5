"""Vertex colours of a completed shape: the input's where it was observed, spread smoothly from there to the rest."""

from dataclasses import dataclass, replace

import igl
import numpy as np
from scipy.sparse import coo_array
from scipy.spatial import KDTree

from sdf_backend.geometry.source_geometry import Geometry
from sdf_backend.shapes.shape import Shape


@dataclass(frozen=True)
class ColoringSettings:
    """How colours spread. Chosen by eye, on coloured balls."""

    smoothing_steps: int = 100
    """steps in which each vertex that was not observed takes the mean colour of its neighbours"""


def color_shape(shape: Shape, geometry: Geometry, settings: ColoringSettings = ColoringSettings()) -> Shape:
    """A described shape with the colours of its input, in whose frame it is; as it is where the input has none."""
    observed, vertices, faces = shape.observed, shape.vertices, shape.faces
    if geometry.colors is None or observed is None or len(vertices) == 0:
        return shape
    known = observed == observed.max()
    colors = np.empty((len(vertices), 3))
    colors[known] = _colors_at(vertices[known], geometry)
    if not known.all():
        colors[~known] = _spread(colors, known, vertices, faces, settings.smoothing_steps)
    return replace(shape, colors=colors.astype(np.float32))


def _spread(colors: np.ndarray, known: np.ndarray, vertices: np.ndarray, faces: np.ndarray, steps: int) -> np.ndarray:
    """Colours of the vertices that are not known, (k, 3): the nearest known ones, then smoothed along the surface.

    colors : (n, 3), of which those with known, (n,) bool, count
    """
    colors = colors.copy()
    _, nearest = KDTree(vertices[known]).query(vertices[~known])
    colors[~known] = colors[known][nearest]
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    ends = np.concatenate([ends, ends[:, ::-1]])
    neighbours = coo_array((np.ones(len(ends)), ends.T), shape=(len(vertices),) * 2).tocsr()[~known]
    counts = neighbours.sum(axis=1)[:, None].clip(1)
    for _ in range(steps):
        colors[~known] = neighbours @ colors / counts
    return colors[~known]


def _colors_at(points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Colours of the input's surface, or of its nearest points, beside points, (n, 3)."""
    assert geometry.colors is not None
    if len(geometry.faces) == 0:
        return geometry.colors[KDTree(geometry.vertices).query(points)[1]]
    _, face, beside = igl.point_mesh_squared_distance(points, geometry.vertices, geometry.faces)
    corners = geometry.faces[np.asarray(face)]  # (n, 3)
    weights = igl.barycentric_coordinates(beside, *(geometry.vertices[corners[:, corner]] for corner in range(3)))
    weights = np.nan_to_num(weights, nan=1 / 3)  # of a face without area
    return (weights[..., None] * geometry.colors[corners]).sum(axis=1)
