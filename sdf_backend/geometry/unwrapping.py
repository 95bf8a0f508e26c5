"""Texture coordinates of a mesh: charts that are cut out, flattened and packed into the unit square, by xatlas."""

from importlib import import_module
from typing import Any

import numpy as np

from sdf_backend.errors import InputError


def load_xatlas() -> Any:
    """The module xatlas. Raises `InputError` where it is not installed; it is no part of the backend's own software."""
    try:
        return import_module("xatlas")
    except ImportError as error:
        needs = "texture coordinates need more software; install it with: pip install 'sdf-shapes[formats]'"
        raise InputError(needs) from error


def unwrap_mesh(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture coordinates of a mesh without any.

    Parameters
    ----------
    vertices : (n, 3); faces : (m, 3)

    Returns
    -------
    places : (k, 2) float64, in 0..1
    corners : (m, 3) int64, the place of each face's corners: a vertex on a seam has several
    owners : (k,) int64, the vertex of each place

    Raises `InputError` without xatlas.
    """
    xatlas = load_xatlas()
    # In the unit box, because single precision does not reach far from the origin.
    low, size = vertices.min(axis=0), float(np.ptp(vertices, axis=0).max()) or 1.0
    owners, corners, places = xatlas.parametrize(((vertices - low) / size).astype(np.float32), faces.astype(np.uint32))
    return places.astype(np.float64), corners.astype(np.int64), owners.astype(np.int64)
