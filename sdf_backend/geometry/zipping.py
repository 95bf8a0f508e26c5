"""A strip of triangles between two closed loops: every edge of either loop belongs to one triangle."""

import numpy as np


def zip_loops(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the strip whose edges between the loops are shortest in sum, from the nearest pair of vertices on.

    Dynamic programming over the pairs of vertices (Fuchs, Kedem and Uselton, "Optimal Surface Reconstruction from
    Planar Contours", 1977), in the order of the sums of their indices, all pairs of a sum at once.

    Parameters
    ----------
    first : (n, 3), second : (m, 3), vertices of the loops, which run in the SAME direction

    Returns
    -------
    steps : (n + m, 2), for each triangle the indices of the vertices, one a loop, that it begins at; the last step
        ends at the first pair
    on_first : (n + m,) bool, whether the triangle has an edge of the first loop, rather than of the second
    """
    count, other = len(first), len(second)
    distances = np.linalg.norm(first[:, None] - second, axis=2)  # (n, m)
    start, start_other = np.unravel_index(np.argmin(distances), distances.shape)
    rows, columns = (np.arange(count + 1) + start) % count, (np.arange(other + 1) + start_other) % other
    weights = distances[np.ix_(rows, columns)]  # (n + 1, m + 1)
    cost, from_first = np.full(weights.shape, np.inf), np.zeros(weights.shape, dtype=bool)
    cost[0, 0] = 0.0
    for total in range(1, count + other + 1):
        row = np.arange(max(0, total - other), min(count, total) + 1)
        column = total - row
        above = np.where(row > 0, cost[row - 1, column], np.inf)
        beside = np.where(column > 0, cost[row, column - 1], np.inf)
        from_first[row, column] = above <= beside
        cost[row, column] = np.minimum(above, beside) + weights[row, column]
    path = []
    row, column = count, other
    while row or column:
        advanced = bool(from_first[row, column])
        row, column = (row - 1, column) if advanced else (row, column - 1)
        path.append((rows[row], columns[column], advanced))
    steps = np.array(path[::-1])
    return steps[:, :2], steps[:, 2].astype(bool)
