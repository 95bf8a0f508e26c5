"""Points that do not belong to the object: the floor under it, and what lies about near it."""

import numpy as np
from scipy import ndimage

# The floor's points lie in a slab this thick, as a share of the object's height or width, whichever is larger,
FLOOR_THICKNESS = 0.012
# are at least this share of all points and not most of them,
FLOOR_SHARE, FLOOR_MOST = 0.03, 0.5
# fill at least this share of the cells of a grid over the ground plan, and so many times those that the next slab does;
FLOOR_CELLS, FLOOR_FILLED, FLOOR_ALONE = 16, 0.3, 2.0
# while a body's own underside has walls over at least this share of its outline. All that was chosen so that floors
# under scans of the training shapes are found; of 240 of them without a floor five seem to have one.
WALLS = 0.5
# Left out at either end of the ground plan, percent: a few points that lie far off.
FAR_OFF = 0.1
# A stray point is farther than this from the model, no chain of cells of that size that hold points leads from it to
# one that the model explains, and it is of a small piece: a larger share of all points is a part that the model does
# not know. Canonical units; the cells fill a cube of that many, about the origin.
STRAY_DISTANCE, STRAY_CELL, STRAY_CELLS, STRAY_SHARE = 0.04, 0.03, 80, 0.05


def floor_points(points: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Which of the points, (n, 3), may lie on a floor that the rest stands on: (n,) bool; `up`, (3,), is a unit vector.

    A flat underside that has walls along its outline is the object's own, and so are feet, which fill no plan. A
    stool's round base looks like a piece of floor; only a model that knows such stools can tell.
    """
    none = np.zeros(len(points), dtype=bool)
    height = points @ up
    flat = points - height[:, None] * up
    extent = max(np.ptp(np.percentile(height, [1, 99])), np.ptp(np.percentile(flat, [1, 99], axis=0), axis=0).max())
    thickness = FLOOR_THICKNESS * extent
    above = (height - np.percentile(height, 0.5)) / thickness
    lowest = above < 1.5
    # What is as flat as a floor, a table's top seen from above, is the object itself.
    if not FLOOR_SHARE <= lowest.mean() <= FLOOR_MOST:
        return none
    floor, following, walls = (
        _plan(flat, (above >= low) & (above < high), up) for low, high in ((-np.inf, 1.5), (1.5, 3), (1.5, 12))
    )
    if floor.mean() < max(FLOOR_FILLED, FLOOR_ALONE * following.mean()):
        return none
    inner = floor.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(np.pad(floor, 1), step, axis)[1:-1, 1:-1]
    return lowest if walls[floor & ~inner].mean() < WALLS else none


def _plan(flat: np.ndarray, chosen: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Which cells of a grid over the ground plan of (n, 3) points hold some of the chosen ones; square, bool."""
    axes = np.linalg.svd(up[None])[2][1:]
    place = flat @ axes.T
    low, high = np.percentile(place, [FAR_OFF, 100 - FAR_OFF], axis=0)
    cells = np.floor((place[chosen] - low) / np.maximum(high - low, 1e-12) * FLOOR_CELLS).astype(int)
    # What lies just beyond, as walls do, counts for the cell at the edge.
    cells = np.clip(cells[((cells >= -2) & (cells < FLOOR_CELLS + 2)).all(axis=1)], 0, FLOOR_CELLS - 1)
    plan = np.zeros((FLOOR_CELLS, FLOOR_CELLS), dtype=bool)
    plan[tuple(cells.T)] = True
    return plan


def stray_points(points: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Which of the canonical points, (n, 3), are neither near the model nor connected to what is: (n,) bool.

    distance : (n,), of the points from the model. A part that the category lacks hangs on parts that it has, and stays.
    """
    far = distance > STRAY_DISTANCE
    if not far.any() or far.all():
        return np.zeros(len(points), dtype=bool)
    # Of all that is beyond the cube, and so of no object in the unit sphere, the cells at its border hold the rest.
    cells = np.clip(np.floor(points / STRAY_CELL).astype(np.int64) + STRAY_CELLS // 2, 0, STRAY_CELLS - 1)
    held = np.zeros((STRAY_CELLS,) * 3, dtype=bool)
    held[tuple(cells.T)] = True
    label = np.zeros(held.shape, dtype=np.int32)
    ndimage.label(held, np.ones((3, 3, 3)), output=label)
    piece = label[tuple(cells.T)]
    large = np.flatnonzero(np.bincount(piece) > STRAY_SHARE * len(points))
    return far & ~np.isin(piece, np.union1d(piece[~far], large))
