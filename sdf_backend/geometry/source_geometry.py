"""What the tasks take: a mesh or a point cloud, checked in one place however it came, by file, by wire or by Python."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.errors import InputError

# A shape cannot be fitted to fewer points.
MINIMUM_POINTS = 100
# Squares of larger coordinates exceed the range of single precision.
LARGEST_COORDINATE = 1e15


@dataclass(frozen=True)
class Geometry:
    """A triangle mesh, or a point cloud where `faces` is empty.

    vertices : (n, 3) float64; faces : (m, 3) int64
    normals : (n, 3) float64, of a point file that has them
    colors : (n, 3) float64, sRGB from 0 to 1, of a file that has vertex colours
    notes : sentences that say what was left out or is doubted
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray | None = None
    colors: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def at(self, chosen: np.ndarray) -> "Geometry":
        """The vertices that are chosen, (n,) bool, with the faces of which all corners are."""
        number = np.cumsum(chosen) - 1
        return Geometry(
            self.vertices[chosen],
            number[self.faces[chosen[self.faces].all(axis=1)]].reshape(-1, 3),
            None if self.normals is None else self.normals[chosen],
            None if self.colors is None else self.colors[chosen],
            self.notes,
        )

    def with_note(self, note: str) -> "Geometry":
        """The same with one more sentence."""
        return replace(self, notes=(*self.notes, note))


@dataclass(frozen=True)
class InputCheckSettings:
    """What counts as a missing pixel and as meaningless faces.

    Checked on drawn pieces and on samples of demo/truth.ply, a TEST aircraft; these had 1 to 20 % missing pixels, or
    faces that join samples in order, at random and in strips.
    """

    repeated: int = 4
    """least number of missing pixels, which lie at one place, in multiples of what a place has in the median"""
    disjoint_faces: int = 10
    """from so many faces on of which no two share a vertex, a mesh is a cloud"""
    edge_spacings: float = 5.0
    """a mesh is a cloud if the shortest edge of its faces is, in the median, so many times as long as the distance
    between neighbouring vertices; of real meshes it is about 1"""
    edge_share: float = 0.05
    """these edges are at least as long as this share of the diagonal of the bounding box, and mostly far longer"""
    sampled_vertices: int = 2_000
    """vertices and faces that are measured"""


def check_geometry(geometry: Geometry, name: str, settings: InputCheckSettings = InputCheckSettings()) -> Geometry:
    """Drop what is no part of a surface: missing pixels of depth cameras, and faces that join samples without meaning.

    What is dropped is counted in the notes.
    Raises `InputError`, which calls the input `name`, for input without vertices, with coordinates too large for single
    precision, and for faces with indices of missing vertices.
    """
    count = len(geometry.vertices)
    if count == 0:
        raise InputError(f"{name} has no vertices; give a mesh or a point cloud")
    if geometry.faces.size and not 0 <= geometry.faces.min() <= geometry.faces.max() < count:
        raise InputError(f"{name} has faces with vertex indices out of range; it has {count} vertices")
    finite = np.asarray(np.isfinite(geometry.vertices).all(axis=1))
    if not finite.any():
        raise InputError(f"{name} has only vertices with NaN or infinite coordinates; give a mesh or a point cloud")
    if not finite.all():
        note = f"{count - int(finite.sum()):,} of {count:,} points have no finite coordinates and were left out."
        geometry = geometry.at(finite).with_note(note)
    largest = np.abs(geometry.vertices).max()
    if largest > LARGEST_COORDINATE:
        raise InputError(f"{name} has coordinates up to {largest:.2g}; scale it down to at most {LARGEST_COORDINATE:g}")
    if len(geometry.faces) and _joins_samples(geometry, settings):
        faces = np.zeros((0, 3), dtype=np.int64)
        note = f"Its {len(geometry.faces):,} faces join points at random; the points were taken as a cloud."
        geometry = replace(geometry, faces=faces).with_note(note)
    return geometry if len(geometry.faces) else _without_missing_pixels(geometry, settings)


def _without_missing_pixels(geometry: Geometry, settings: InputCheckSettings) -> Geometry:
    """Depth cameras write all pixels without an answer to one place, most often 0, 0, 0."""
    places, counts = _places(geometry.vertices)
    usual = float(np.median(counts))
    missing = (counts >= settings.repeated * max(1.0, usual))[places]
    dropped = int(missing.sum())
    if not dropped or dropped == len(missing):
        return geometry
    note = f"{dropped:,} of {len(missing):,} points lie at one place, as missing pixels do, and were left out."
    return geometry.at(~missing).with_note(note)


def _places(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of the place, (n,), of each point, and how many points each place has.

    One random mixture of the coordinates stands for all three: sorting rows takes ten times as long.
    """
    mixed = points @ np.array([0.7548776662466927, 0.5698402909980532, 0.3247179572447460])
    _, places, counts = np.unique(mixed, return_inverse=True, return_counts=True)
    return places.reshape(-1), counts


def _joins_samples(geometry: Geometry, settings: InputCheckSettings) -> bool:
    """Whether faces join samples of a surface that are not neighbours, as some programs do to store a cloud."""
    used = np.zeros(len(geometry.vertices), dtype=bool)
    used[geometry.faces] = True
    rng, points = np.random.default_rng(0), geometry.vertices[used]
    if len(points) == geometry.faces.size >= 3 * settings.disjoint_faces and len(_places(points)[1]) == len(points):
        return True
    if len(points) < MINIMUM_POINTS:
        return False
    faces = geometry.faces[rng.permutation(len(geometry.faces))[: settings.sampled_vertices]]
    triangles = geometry.vertices[faces]
    edge = float(np.median(np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).min(axis=1)))
    if edge < settings.edge_share * np.linalg.norm(np.ptp(points, axis=0)):
        return False
    sample = points[rng.permutation(len(points))[: settings.sampled_vertices]]
    # The nearest other place: a vertex may be stored once for each face.
    near = KDTree(points).query(sample, k=min(12, len(points)))[0]
    spacing = np.where(near > 0, near, np.inf).min(axis=1)
    return edge > settings.edge_spacings * float(np.median(spacing))
