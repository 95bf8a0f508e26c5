"""From where a cloud was seen, which raw points do not say, and yet betray.

A depth camera has as many rays in each part of its image. So from where it stood, and from nowhere else, the points of
one view lie evenly over the image, and hardly any behind another. Of all places around a cloud that one is taken from
which the points look most like this; where none does, the cloud is no single view: a whole object, several scans in
one, or points that were spread anew over a surface.
"""

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.geometry.signed_distance import spiral

# Points that are looked at, and how many there must be to say anything.
LOOKED_AT, FEWEST = 2_000, 200
DIRECTIONS = 150
# Distances of the camera from the middle of the cloud, in radii of the cloud; the first is what most are like.
DISTANCES = (2.5, 1.6, 4.0, 8.0)
# A point lies behind another that is so much nearer, in radii, in the same cell, so many spacings wide.
BEHIND, CELL = 0.12, 2.0
# Places from where a larger share lies behind others are no candidates.
MOST_HIDDEN = 0.1
# Neighbours that say how densely points lie in the image.
NEIGHBOURS = 6
# The best few candidates are moved by these angles, radians, each way, towards where they look more evenly spread.
BEST, MOVES, WAYS = 3, (0.2, 0.1, 0.05), 8
# Unevenness and hidden share together of what is still one view. Points strewn at random over an image come to 0.21.
CONVINCING = 0.27
# A place is hidden by a seen point so many spacings beside it.
SHADOW = 3.0


def viewpoint(points: np.ndarray) -> np.ndarray | None:
    """Where the camera stood, (3,), of which points, (n, 3), are the one view; None where they are not one view."""
    some = np.unique(points[np.random.default_rng(0).permutation(len(points))[:LOOKED_AT]], axis=0)
    if len(some) < FEWEST:
        return None
    centre = np.percentile(some, [0.5, 99.5], axis=0).mean(axis=0)
    radius = float(np.percentile(np.linalg.norm(some - centre, axis=1), 99))
    cloud = (some - centre) / radius
    cell = CELL * float(np.median(KDTree(cloud).query(cloud, k=2)[0][:, 1]))

    def doubt(direction: np.ndarray, distance: float) -> float:
        return _unevenness(cloud, direction, distance) + _hidden_share(cloud, direction, distance, cell)

    likely = [way for way in _around(DIRECTIONS) if _hidden_share(cloud, way, DISTANCES[0], cell) < MOST_HIDDEN]
    ranked = sorted((doubt(way, DISTANCES[0]), tuple(way)) for way in likely)
    found = []
    for least, start in ranked[:BEST]:
        way = np.array(start)
        for angle in MOVES:
            moved = [_unit(way + angle * step) for step in _around(WAYS)]
            least, way = min([(least, tuple(way)), *((doubt(one, DISTANCES[0]), tuple(one)) for one in moved)])
            way = np.array(way)
        found += [(doubt(way, distance), distance, tuple(way)) for distance in DISTANCES]
    if not found or min(found)[0] > CONVINCING:
        return None
    _, distance, way = min(found)
    return centre + radius * distance * np.array(way)


def hidden(places: np.ndarray, seen: np.ndarray, sensor: np.ndarray) -> np.ndarray:
    """Which of the places, (n, 3), lie behind points, (m, 3), that were seen from `sensor`, (3,): (n,) bool."""
    # The same point twice would seem a spacing of nothing.
    sight, look = np.unique(seen, axis=0) - sensor, places - sensor
    # Nobody looks from within a point; but a sensor may be given as one.
    depth = np.linalg.norm(sight, axis=1).clip(1e-12)
    tree = KDTree(sight / depth[:, None])
    # They are in order, so that the first of them would be those of one side.
    some = tree.data[:: max(1, len(sight) // LOOKED_AT)]
    spacing = float(np.median(tree.query(some, k=2)[0][:, 1]))
    away = np.linalg.norm(look, axis=1).clip(1e-12)
    beside, before = tree.query(look / away[:, None], distance_upper_bound=SHADOW * spacing)
    return np.isfinite(beside) & (away > np.append(depth, np.inf)[before])


def _image(cloud: np.ndarray, direction: np.ndarray, distance: float) -> tuple[np.ndarray, np.ndarray]:
    """Places in the image, (n, 2), and depths, (n,), of a camera in that direction that looks at the middle."""
    across = np.linalg.svd(direction[None])[2][1:]
    depth = distance - cloud @ direction
    return cloud @ across.T * (distance / np.maximum(depth, 0.1))[:, None], depth


def _hidden_share(cloud: np.ndarray, direction: np.ndarray, distance: float, cell: float) -> float:
    """How many points lie behind others; the mean over two rasters, each half a cell from the other."""
    image, depth = _image(cloud, direction, distance)
    shares = []
    for offset in (0.0, 0.5):
        column, row = np.floor(image / cell + offset).astype(np.int64).T
        _, number = np.unique(column * (1 << 32) + row, return_inverse=True)
        nearest = np.full(len(cloud), np.inf)
        np.minimum.at(nearest, number, depth)
        shares.append(np.mean(depth - nearest[number] > BEHIND))
    return float(np.mean(shares))


def _unevenness(cloud: np.ndarray, direction: np.ndarray, distance: float) -> float:
    """How much the logarithm of the spacing in the image varies; by its median, since edges are thin everywhere."""
    image, _ = _image(cloud, direction, distance)
    reach = np.log(KDTree(image).query(image, k=NEIGHBOURS + 1)[0][:, -1] + 1e-9)
    # The factor makes it the standard deviation of what is normally distributed.
    return 1.4826 * float(np.median(np.abs(reach - np.median(reach))))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _around(count: int) -> np.ndarray:
    """Directions, (count, 3), all about the canonical up axis."""
    return spiral(count)[:, [0, 2, 1]]
