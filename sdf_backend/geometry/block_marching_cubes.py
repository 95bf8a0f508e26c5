"""Marching Cubes on scattered grid cells, block by block, welded into one closed mesh.

scikit-image's Marching Cubes (Lewiner et al. 2003) works on dense volumes. Cells that the surface crosses are few and
near each other, so they are marched in dense blocks of `BLOCK_CELLS` per axis, and equal vertices on the blocks'
borders are joined by the grid edge on which they lie, with no tolerance.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from skimage.measure import marching_cubes

GridIndices = TypeVar("GridIndices", np.ndarray, torch.Tensor)

BLOCK_CELLS = 32  # cells per axis of one Marching Cubes call
BLOCK_SHIFT = 5  # log2 of BLOCK_CELLS: on torch integers shifts are several times faster than divisions
COORDINATE_BITS = 11  # bits of a grid coordinate, which is at most 1024
CORNERS = ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1))


def flat_index(nodes: GridIndices) -> GridIndices:
    """One int64 for each of (n, 3) grid nodes; order as by rows."""
    return (((nodes[:, 0] << COORDINATE_BITS) + nodes[:, 1]) << COORDINATE_BITS) + nodes[:, 2]


def march_cells(
    cells: np.ndarray, values: np.ndarray, fill: float, report: Callable[[float], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangulate the zero level set in the given cells.

    Parameters
    ----------
    cells : (n, 3) int64, lower corners of the cells that the surface crosses, in grid steps
    values : (n, 8) float32, the field at their corners, in the order of `CORNERS`, none of them zero
    fill : positive value of the other nodes of a block
    report : called with the share done, 0 to 1, after every block

    Returns
    -------
    Vertices, (v, 3) float64 in grid steps; faces, (f, 3) int64; and the field at the lower and the upper end of each
    vertex's grid edge, (v, 2) float32.
    """
    blocks, index = np.unique(flat_index(cells // BLOCK_CELLS), return_inverse=True)
    order = np.argsort(index, kind="stable")
    vertices, origins, faces, ends, first = [], [], [], [], 0
    volume = np.empty((BLOCK_CELLS + 1,) * 3, np.float32)
    mask = np.empty(volume.shape, bool)
    for done, members in enumerate(np.split(order, np.cumsum(np.bincount(index))[:-1])):
        local = cells[members] % BLOCK_CELLS
        volume.fill(fill)
        for corner, value in zip(CORNERS, values[members].T, strict=True):
            volume[tuple((local + corner).T)] = value
        mask.fill(False)
        mask[tuple((local + 1).T)] = True  # scikit-image reads a cell's mask at the cell's upper corner
        block_vertices, block_faces, _, _ = marching_cubes(volume, 0.0, mask=mask)
        vertices.append(block_vertices)
        origins.append(np.broadcast_to(cells[members[0]] - local[0], block_vertices.shape))
        faces.append(block_faces + first)
        nodes = (np.floor(block_vertices), np.ceil(block_vertices))
        ends.append(np.stack([volume[tuple(node.astype(np.int64).T)] for node in nodes], axis=1))
        first += len(block_vertices)
        report((done + 1) / len(blocks))
    local, first_nodes = np.concatenate(vertices), np.concatenate(origins)
    kept, welded = _weld(local, first_nodes, np.concatenate(faces).astype(np.int64))
    return (local.astype(np.float64) + first_nodes)[kept], welded, np.concatenate(ends)[kept]


def _weld(local: np.ndarray, origins: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join the blocks' meshes along their borders.

    A vertex occurs twice only on the border of its block, and there it lies on a grid edge, which its lower node and
    direction identify exactly.

    Parameters
    ----------
    local : (v, 3) float32, vertices in steps from `origins`, (v, 3); faces : (f, 3)

    Returns
    -------
    Which vertices stay, (v,) bool, and the faces in terms of these.
    """
    border = np.flatnonzero(((local == 0) | (local == BLOCK_CELLS)).any(axis=1))
    lower = np.floor(local[border]).astype(np.int64)
    direction = np.argmax(local[border] - lower, axis=1)
    edges = flat_index(lower + origins[border]) * 3 + direction
    _, first, inverse = np.unique(edges, return_index=True, return_inverse=True)
    target = np.arange(len(local))
    target[border] = border[first[inverse]]
    kept = target == np.arange(len(local))
    number = np.cumsum(kept) - 1
    return kept, number[target[faces]]
