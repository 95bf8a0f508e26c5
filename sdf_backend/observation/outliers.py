"""Input points that do not belong to the object: strays far from it, the ground plane below it, outliers beside it."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree


@dataclass(frozen=True)
class GroundPlaneSettings:
    """When the lowest points of a cloud are a ground plane.

    All chosen so that ground planes under scans of the training shapes are found: all but one of 240 are. Of the same
    scans without a ground plane five seem to have one.
    """

    thickness: float = 0.012
    """thickness of the plane's slab, as a share of the object's height or width, whichever is larger"""
    minimum_share: float = 0.03
    """least share of all points that lies in the slab"""
    maximum_share: float = 0.5
    """largest share; an object as flat as a ground plane, a table top seen from above, has more in its lowest slab"""
    cells: int = 16
    """cells per axis of the grid over the footprint"""
    filled: float = 0.3
    """least share of the grid's cells that the slab fills"""
    excess: float = 2.0
    """how many times the cells of the slab above it the slab fills at least"""
    walled: float = 0.5
    """from this share of the slab's outline with points above it on, the slab is the object's own underside"""
    plan_percentile: float = 0.1
    """left out at either end of the footprint, percent, so that outliers do not stretch it"""


@dataclass(frozen=True)
class OutlierSettings:
    """When points far from the model are outliers and not a part that the category lacks; canonical units.

    No record says what the numbers were chosen on; they are several times a scan's noise and spacing. Since a review, a
    large component counts as a part.
    """

    distance: float = 0.04
    """points nearer to the model than this are inliers"""
    cell: float = 0.03
    """edge of the cells; cells with points that touch are connected"""
    cells: int = 80
    """cells per axis of the grid, about the origin"""
    component_share: float = 0.05
    """a connected component with a larger share of all points is a part of the object"""


@dataclass(frozen=True)
class StraySettings:
    """When points are strays, before anything is known of the object.

    Chosen on simulated scans of drawn beds, chairs, lamps and tables and of demo/truth.ply, a TEST aircraft, of
    which a scan also decided that `cluster` and `near` are no stricter; of 500, 2,500 and 20,000 points, clean and
    with 5 % strays within 1.2, 2, 5 and 50 radii: 0.8 to 0.85, 0.96, all and all of them are found, none of the
    others lies farther out than 1.25 radii, and a clean scan loses 0.1 to 0.3 % in the mean.
    """

    neighbours: int = 4
    """the distance to this neighbour measures the density of the points"""
    link: float = 2.5
    """points are linked where they are nearer than this, in medians of that distance"""
    cluster: int = 3
    """fewer linked points are no part of an object by themselves"""
    near: float = 0.1
    """unless they are so near to the rest, as a share of the diagonal of its bounding box"""
    gap: float = 0.5
    """from such a share of that diagonal on, a cluster is something else, seen beside the object ..."""
    large: float = 0.1
    """... unless it has a larger share of all points"""
    clusters: int = 50
    """clusters that are looked at, the largest"""
    most: float = 0.15
    """a larger share of strays than this is no such thing: the density of the points differs from place to place"""
    sampled_points: int = 2_000
    """points at which the density is measured"""


def find_strays(points: np.ndarray, settings: StraySettings = StraySettings()) -> np.ndarray:
    """Which points, (n, 3) in any unit, lie by themselves, far from the object, (n,) bool; at most 15 %."""
    count, none = len(points), np.zeros(len(points), dtype=bool)
    tree = KDTree(points)
    sample = points[:: max(1, count // settings.sampled_points)]
    length = settings.link * float(np.median(tree.query(sample, k=settings.neighbours + 1)[0][:, -1]))
    if length == 0:
        return none
    pairs = tree.query_pairs(length, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    label = connected_components(graph, directed=False)[1]
    sizes = np.bincount(label)
    ranked = np.argsort(-sizes, kind="stable")[: settings.clusters]
    kept = label == ranked[0]
    for cluster in ranked[1:][sizes[ranked[1:]] >= settings.cluster]:
        members = label == cluster
        gap = KDTree(points[kept]).query(points[members])[0].min()
        if gap <= settings.gap * _diagonal(points[kept]) or sizes[cluster] > settings.large * count:
            kept |= members
    alone = ~kept & (sizes[label] < settings.cluster)
    kept[alone] = KDTree(points[kept]).query(points[alone])[0] <= settings.near * _diagonal(points[kept])
    return ~kept if (~kept).mean() <= settings.most else none


def _diagonal(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def find_ground_plane(
    points: np.ndarray, up: np.ndarray, settings: GroundPlaneSettings = GroundPlaneSettings()
) -> np.ndarray:
    """Which points may belong to a ground plane that the rest stands on.

    A flat underside with walls along its outline is the object's own, and so are feet, which do not fill a footprint. A
    stool's round base looks like a ground plane; only a model that knows such stools can tell.

    Parameters
    ----------
    points : (n, 3), any unit; up : (3,), unit vector

    Returns
    -------
    (n,) bool.
    """
    none = np.zeros(len(points), dtype=bool)
    height = points @ up
    flat = points - height[:, None] * up
    extent = max(np.ptp(np.percentile(height, [1, 99])), np.ptp(np.percentile(flat, [1, 99], axis=0), axis=0).max())
    thickness = settings.thickness * extent
    above = (height - np.percentile(height, 0.5)) / thickness
    lowest = above < 1.5
    if not settings.minimum_share <= lowest.mean() <= settings.maximum_share:
        return none
    slab, next_slab, walls = (
        _footprint(flat, (above >= low) & (above < high), up, settings)
        for low, high in ((-np.inf, 1.5), (1.5, 3), (1.5, 12))
    )
    if slab.mean() < max(settings.filled, settings.excess * next_slab.mean()):
        return none
    inner = slab.copy()
    for axis in (0, 1):
        for step in (-1, 1):
            inner &= np.roll(np.pad(slab, 1), step, axis)[1:-1, 1:-1]
    return lowest if walls[slab & ~inner].mean() < settings.walled else none


def _footprint(flat: np.ndarray, chosen: np.ndarray, up: np.ndarray, settings: GroundPlaneSettings) -> np.ndarray:
    """Cells, (c, c) bool, of a square grid over the footprint of (n, 3) points that contain any chosen point, (n,)."""
    axes, count = np.linalg.svd(up[None])[2][1:], settings.cells
    plan_points = flat @ axes.T  # (n, 2)
    percentile = settings.plan_percentile
    low, high = np.percentile(plan_points, [percentile, 100 - percentile], axis=0)
    cells = np.floor((plan_points[chosen] - low) / np.maximum(high - low, 1e-12) * count).astype(int)
    # Points just beyond, as those of walls, count for the cell at the border.
    cells = np.clip(cells[((cells >= -2) & (cells < count + 2)).all(axis=1)], 0, count - 1)
    plan = np.zeros((count, count), dtype=bool)
    plan[tuple(cells.T)] = True
    return plan


def find_outliers(
    points: np.ndarray, distance: np.ndarray, settings: OutlierSettings = OutlierSettings()
) -> np.ndarray:
    """Which points are neither near the model nor connected to points that are.

    A part that the category lacks is connected to parts that it has, and stays.

    Parameters
    ----------
    points : (n, 3), canonical; distance : (n,), of the points from the model's surface, unsigned

    Returns
    -------
    (n,) bool.
    """
    far = distance > settings.distance
    if not far.any() or far.all():
        return np.zeros(len(points), dtype=bool)
    # Points beyond the grid, which belong to no object in the unit sphere, are kept in the cells at its border.
    count = settings.cells
    cells = np.clip(np.floor(points / settings.cell).astype(np.int64) + count // 2, 0, count - 1)
    occupied = np.zeros((count,) * 3, dtype=bool)
    occupied[tuple(cells.T)] = True
    label = np.zeros(occupied.shape, dtype=np.int32)
    ndimage.label(occupied, np.ones((3, 3, 3)), output=label)
    component = label[tuple(cells.T)]
    large = np.flatnonzero(np.bincount(component) > settings.component_share * len(points))
    return far & ~np.isin(component, np.union1d(component[~far], large))
