"""From a signed distance field to a closed triangle mesh: coarse-to-fine evaluation, then Marching Cubes.

    mesh = extract_surface(lambda points: points.norm(dim=1) - 0.5, ExtractSettings(resolution=128))

The field lives in canonical space, negative inside. A grid of `resolution` cells per axis covers [-1, 1]^3. Large cells
whose middle is far from the surface are dropped, the others split in eight; only the nodes of what is left are
evaluated, and scikit-image's Marching Cubes (Lewiner et al. 2003) sees only the cells that the surface crosses. Where
the surface leaves those cells it is followed, so the mesh is closed even where the field is steeper than promised.

Where a quick estimate of the field is at hand, it is asked at the nodes, and the field itself only once a vertex.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from skimage.measure import marching_cubes

from sdf_backend.errors import InputError
from sdf_backend.geometry.nonmanifold import split_nonmanifold_edges

Nodes = TypeVar("Nodes", np.ndarray, torch.Tensor)
Field = Callable[[torch.Tensor], torch.Tensor]
"""(n, 3) float32 canonical points -> (n,) float32 signed distances."""

DOMAIN_RADIUS = 0.995  # models are trained in the unit ball; what a field says outside is cut away
COARSEST_CELL = 2 / 32  # edge of the largest cells that are tested; larger ones almost never drop out
SOME_WILL_DO = 4  # edge, in steps, of the cells of which those whose middle is near to the surface are enough
STEEP = 4.0  # upper bound of the gradient norm where places are named, see `extract_surface`
CLAMP_SHARE = 0.8  # a trained field is imprecise next to its clamp, so no test relies on values beyond this share of it
SMALLEST = 2e-6  # values are kept this far from zero: a vertex on a node would give triangles without area
LARGEST = 1.0  # and below this, so that SMALLEST / LARGEST stays above float32's resolution inside a block
NEXT_TO_NODE = 1e-3  # and vertices that are moved this share of their edge from its ends, for the same reason
EVALUATED, MESHED = 0.7, 0.8  # the progress after evaluation and after meshing; the rest is for the vertices
BLOCK = 32  # cells per axis of one Marching Cubes call, nodes per axis of one page
SHIFT = 5  # log2 of BLOCK: on torch integers shifts are several times faster than divisions
WIDE = 11  # bits that hold a node's coordinate, at most 1024
CHUNK = 1 << 19  # cells handled at once, to bound temporary memory
CORNERS = ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1))


_EMPTY = "There is no surface at {} cells per axis: the field is positive at every node that was evaluated."


class EmptySurfaceError(InputError):
    """The field has no zero level set on the grid."""


@dataclass(frozen=True)
class ExtractSettings:
    """How finely, and on which promises about the field, a surface is extracted."""

    resolution: int = 256
    """Cells per axis of the cube [-1, 1]^3, 16 to 1024."""
    lipschitz: float = 1.4
    """Upper bound of the field's gradient norm; larger is slower, too small may lose pieces, but opens no holes.
    A ball that is three cells across is never lost, and where the field is an exact distance none of one and a half
    that holds a node at all."""
    clamp: float = 0.1
    """Distance at which the field saturates (training clamps it there); math.inf for an exact distance."""
    batch: int = 65536
    """Points in one call of the field."""

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= 1024:
            raise InputError(f"The resolution is {self.resolution}; choose one from 16 to 1024 cells per axis.")
        if not (self.lipschitz > 0 and self.clamp > 0 and self.batch > 0):
            raise InputError(f"lipschitz, clamp and batch must all be positive, but the settings are {self}.")

    @property
    def step(self) -> float:
        """Edge of a cell, canonical units."""
        return 2 / self.resolution


@dataclass
class Extraction:
    """A closed triangle mesh in canonical space, and what it cost."""

    vertices: np.ndarray
    """(v, 3) float64, canonical units."""
    faces: np.ndarray
    """(f, 3) int64, counter-clockwise seen from outside."""
    evaluations: int
    """Points at which the field was evaluated."""

    def keep_components(self, wanted: np.ndarray) -> Extraction:
        """Only the connected pieces of which some vertex, of (v,) bool, is wanted; the same mesh where none is."""
        kept = np.bincount(self.pieces, wanted)[self.pieces] > 0
        if kept.all() or not kept.any():
            return self
        number = np.cumsum(kept) - 1
        return Extraction(self.vertices[kept], number[self.faces[kept[self.faces[:, 0]]]], self.evaluations)

    def remove_cavities(self) -> Extraction:
        """Less the connected pieces that bound hollows in what is solid, where nobody sees them."""
        volumes = np.bincount(self.pieces[self.faces[:, 0]], np.linalg.det(self.vertices[self.faces]))
        return self.keep_components(volumes[self.pieces] > 0)

    @cached_property
    def pieces(self) -> np.ndarray:
        """Of which connected piece each vertex is, (v,)."""
        ends = self.faces[:, [0, 1, 2]].ravel(), self.faces[:, [1, 2, 0]].ravel()
        edges = sparse.coo_array((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(len(self.vertices),) * 2)
        return connected_components(edges, directed=False)[1]


@torch.inference_mode()
def extract_surface(
    field: Field,
    settings: ExtractSettings = ExtractSettings(),
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] | None = None,
    places: np.ndarray | None = None,
    exact: Field | None = None,
) -> Extraction:
    """Mesh the zero level set of `field`, evaluating it only near the surface.

    field: (n, 3) float32 points on `device` -> (n,) signed distances, n at most settings.batch.
    places: (m, 3) points near which the field may be steeper than the Lipschitz bound says, up to STEEP.
    exact: where `field` is a quick estimate, the field itself, to whose zero every vertex is moved along its edge.
    progress: called with the share done, 0 to 1, after every batch and block; what it raises ends the work.

    Raises EmptySurfaceError without a surface, ValueError where the field's answer has a wrong shape or is not finite.
    """
    sampler = _Sampler(field, settings, torch.device(device), progress)
    cells = _refine(sampler, np.zeros((0, 3)) if places is None else places)
    cells, values = _follow_surface(sampler, cells)
    if len(cells) == 0:
        raise EmptySurfaceError(_EMPTY.format(settings.resolution))
    vertices, faces, ends = _march(cells.cpu().numpy(), values.cpu().numpy(), sampler.report)
    if exact is not None:
        vertices = _at_zero(sampler, exact, vertices, ends)
    sampler.report(1.0)
    vertices, faces = split_nonmanifold_edges(vertices * settings.step - 1, faces)
    return Extraction(vertices, faces, sampler.evaluations)


@torch.inference_mode()
def extract_dense(
    field: Field, settings: ExtractSettings = ExtractSettings(), device: str | torch.device = "cpu"
) -> Extraction:
    """The reference for `extract_surface`: every node evaluated, one Marching Cubes call. Same errors, same surface.

    Only nodes that are more than a cell outside of the domain are not asked: no surface can be next to them.
    """
    sampler = _Sampler(field, settings, torch.device(device), None)
    count = settings.resolution + 1
    volume = np.full((count, count, count), LARGEST, np.float32)
    plane = torch.cartesian_prod(torch.arange(1), torch.arange(count), torch.arange(count)).to(device)
    for i in range(count):
        near = sampler.axis[plane].norm(dim=1) <= DOMAIN_RADIUS + 2 * settings.step
        if near.any():
            volume[i].reshape(-1)[near.cpu().numpy()] = sampler.distances(plane[near]).cpu().numpy()
        plane[:, 0] += 1
    if volume.min() > 0:
        raise EmptySurfaceError(_EMPTY.format(settings.resolution))
    vertices, faces, _, _ = marching_cubes(volume, 0.0)
    return Extraction(vertices.astype(np.float64) * settings.step - 1, faces.astype(np.int64), sampler.evaluations)


class _Sampler:
    """The field on grid nodes: clipped to the domain, batched, counted."""

    def __init__(
        self, field: Field, settings: ExtractSettings, device: torch.device, progress: Callable[[float], None] | None
    ) -> None:
        self.field, self.settings, self.device = field, settings, device
        self.report = progress or (lambda fraction: None)
        self.evaluations = 0
        # One table for all levels and both extractions: a node has the same float32 coordinates everywhere. It reaches
        # beyond the cube, as the last coarse cells do at resolutions that are no powers of two.
        axis = np.arange(2 * settings.resolution) * settings.step - 1
        self.axis = torch.from_numpy(axis.astype(np.float32)).to(device)

    def distances(self, nodes: torch.Tensor, done: float = 0.0, share: float = 0.0) -> torch.Tensor:
        """(n, 3) int64 nodes -> (n,) float32 distances, never zero; progress runs from `done` to `done + share`."""
        distances = torch.empty(len(nodes), device=self.device)
        for start in range(0, len(nodes), self.settings.batch):
            part = slice(start, min(start + self.settings.batch, len(nodes)))
            distances[part] = self.ask(self.field, self.axis[nodes[part]])
            self.report(done + share * part.stop / len(nodes))
        return distances

    def ask(self, field: Field, points: torch.Tensor) -> torch.Tensor:
        """(n, 3) float32 points, at most a batch -> (n,) float32 distances, never zero."""
        answer = field(points)
        if answer.shape != points.shape[:1]:
            shape = tuple(answer.shape)
            raise ValueError(f"The field must answer {len(points)} points with as many values, not with {shape}.")
        distances = torch.maximum(answer.float(), points.norm(dim=1) - DOMAIN_RADIUS)
        if not torch.isfinite(distances).all():
            raise ValueError("The field answered with values that are not finite; check the decoder and its code.")
        self.evaluations += len(points)
        magnitude = distances.abs().clamp(SMALLEST, LARGEST)
        return torch.where(distances < 0, -magnitude, magnitude)

    def cells_of(self, places: np.ndarray) -> torch.Tensor:
        """Lower corners (k, 3) int64 of the single cells of the cube in which the (m, 3) places lie, each once."""
        cells = torch.from_numpy(np.floor((places + 1) / self.settings.step).astype(np.int64)).to(self.device)
        return _once(cells[((cells >= 0) & (cells < self.settings.resolution)).all(dim=1)])

    def inside_domain(self, cells: torch.Tensor, size: int) -> torch.Tensor:
        """The cells of the (n, 3) that lie in the cube and reach into the domain's ball. Costs no evaluation."""
        cells = cells[(cells < self.settings.resolution).all(dim=1)]
        centre = self.axis[cells] + size * self.settings.step / 2
        return cells[centre.norm(dim=1) - DOMAIN_RADIUS <= size * self.settings.step * math.sqrt(3) / 2]


def _cell_sizes(settings: ExtractSettings) -> list[int]:
    """Edges, in steps, of the cells that are tested, coarse to fine.

    The last is 2: testing single cells too costs more evaluations than the nodes it saves. Empty at low resolutions,
    where even such cells are too large for the clamp.
    """
    largest = min(COARSEST_CELL, CLAMP_SHARE * settings.clamp / (settings.lipschitz * math.sqrt(3) / 2))
    return [2**k for k in range(9, 0, -1) if 2**k * settings.step <= largest * (1 + 1e-9)]


def _refine(sampler: _Sampler, places: np.ndarray) -> torch.Tensor:
    """Lower corners (n, 3) int64 of the single cells that may hold the surface; `places` as of `extract_surface`."""
    settings, steep = sampler.settings, sampler.cells_of(places)
    sizes = _cell_sizes(settings)
    size = sizes[0] if sizes else 1
    line = torch.arange(0, settings.resolution, size, device=sampler.device)
    cells = sampler.inside_domain(torch.cartesian_prod(line, line, line), size)
    corners = torch.tensor(CORNERS, device=sampler.device)
    for level, size in enumerate(sizes):
        # Each level needs about four times the points of the one before it, and the final nodes as many again.
        done = EVALUATED * (4**level - 1) / (4 ** (len(sizes) + 1) - 1)
        share = EVALUATED * 3 * 4**level / (4 ** (len(sizes) + 1) - 1)
        distances = sampler.distances(cells + size // 2, done, share)
        # A cell reaches from its centre to its corners. But of the last ones it is enough to have some of each piece,
        # since the surface is followed from there; wherever a wall stands, a layer of centres is within half an edge.
        reach = size * settings.step / 2 * (1.0 if size <= SOME_WILL_DO else math.sqrt(3))
        # The cut at the domain's border has slope 1, so the clipped field's bound is no smaller.
        bound = torch.full_like(distances, max(settings.lipschitz, 1.0))
        bound[torch.isin(_flat(cells), _flat(steep - steep % size))] = max(settings.lipschitz, STEEP)
        cells = cells[distances.abs() <= bound * reach]
        cells = (cells[:, None] + corners * (size // 2)).reshape(-1, 3)
        cells = sampler.inside_domain(cells, size // 2)
    return cells


class _Pages:
    """Values on some nodes of the grid, in pages of BLOCK^3 nodes that exist only where asked for: NaN is unknown."""

    def __init__(self, sampler: _Sampler) -> None:
        self.sampler, device = sampler, sampler.device
        blocks = sampler.settings.resolution // BLOCK + 1
        self.table = torch.full((blocks, blocks, blocks), -1, device=device)
        self.origins = torch.empty((0, 3), dtype=torch.int64, device=device)
        self.values = torch.empty(0, device=device)
        self.seen = torch.empty(0, dtype=torch.bool, device=device)

    def slots(self, nodes: torch.Tensor) -> torch.Tensor:
        """Where the (n, 3) nodes' values are: (n,) int64. Their pages must exist."""
        x, y, z = nodes.unbind(dim=1)
        page = self.table[x >> SHIFT, y >> SHIFT, z >> SHIFT]
        low = BLOCK - 1
        return (page << 3 * SHIFT) + ((x & low) << 2 * SHIFT) + ((y & low) << SHIFT) + (z & low)

    def corner_slots(self, cells: torch.Tensor) -> torch.Tensor:
        """Slots (n, 8) of the corners of (n, 3) cells, in the order of CORNERS."""
        return torch.stack([self.slots(cells + torch.tensor(c, device=cells.device)) for c in CORNERS], dim=1)

    def allocate(self, cells: torch.Tensor) -> None:
        """Make the pages of all corners of the (n, 3) cells."""
        needed = torch.zeros_like(self.table, dtype=torch.bool)
        needed[tuple((cells >> SHIFT).unbind(dim=1))] = True
        border = cells[((cells & (BLOCK - 1)) == BLOCK - 1).any(dim=1)]
        for corner in CORNERS[1:]:
            needed[tuple(((border + torch.tensor(corner, device=cells.device)) >> SHIFT).unbind(dim=1))] = True
        new = torch.nonzero(needed & (self.table < 0))
        self.table[tuple(new.unbind(dim=1))] = torch.arange(len(new), device=new.device) + len(self.origins)
        self.origins = torch.cat([self.origins, new * BLOCK])
        self.values = torch.cat([self.values, self.values.new_full((len(new) * BLOCK**3,), math.nan)])
        self.seen = torch.cat([self.seen, self.seen.new_zeros(len(new) * BLOCK**3)])

    def evaluate(self, cells: torch.Tensor, done: float, share: float) -> None:
        """Evaluate the corners of the (n, 3) cells that are not known yet, each once."""
        self.allocate(cells)
        for part in cells.split(CHUNK):
            slots = self.corner_slots(part)
            self.seen[slots[:, 0]] = True
            # Infinity marks what is to be evaluated: a set of nodes without a sort.
            self.values[slots] = torch.where(self.values[slots].isnan(), math.inf, self.values[slots])
        wanted = torch.nonzero(self.values.isinf())[:, 0]
        local = torch.stack([wanted >> 2 * SHIFT, wanted >> SHIFT, wanted], dim=1) & (BLOCK - 1)
        nodes = self.origins[wanted >> 3 * SHIFT] + local
        self.values[wanted] = self.sampler.distances(nodes, done, share)

    def crossed(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Those of the (n, 3) cells that the surface crosses, (m, 3), and their corner values, (m, 8)."""
        found, values = [], []
        for part in cells.split(CHUNK):
            corners = self.values[self.corner_slots(part)]
            mixed = (corners.amin(dim=1) < 0) & (corners.amax(dim=1) > 0)
            found.append(part[mixed])
            values.append(corners[mixed])
        return torch.cat(found), torch.cat(values)

    def unseen_neighbours(self, cells: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Cells (k, 3) never looked at into which the surface runs from the crossed `cells` through a common face."""
        corners = torch.tensor(CORNERS, device=cells.device)
        leaving = []
        for axis in range(3):
            for side in (0, 1):
                face = values[:, corners[:, axis] == side]
                through = cells[(face.amin(dim=1) < 0) & (face.amax(dim=1) > 0)]
                through[:, axis] += 2 * side - 1
                leaving.append(through)
        neighbours = torch.cat(leaving)
        known = self.table[tuple((neighbours >> SHIFT).unbind(dim=1))] >= 0
        unseen = ~known
        unseen[known] = ~self.seen[self.slots(neighbours[known])]
        return _once(neighbours[unseen])


def _once(cells: torch.Tensor) -> torch.Tensor:
    """Each of the (n, 3) cells once, sorted; by one number a cell, which sorts ten times as fast as rows do."""
    numbers = torch.unique(_flat(cells))
    low = (1 << WIDE) - 1
    return torch.stack([numbers >> 2 * WIDE, numbers >> WIDE & low, numbers & low], dim=1)


def _follow_surface(sampler: _Sampler, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All cells that the surface crosses, (n, 3), found from candidates (m, 3), and their corner values, (n, 8).

    Where the field is steeper than promised, a cell was dropped wrongly; its neighbour's face shows that.
    """
    pages = _Pages(sampler)
    share = EVALUATED * 3 / 4 if _cell_sizes(sampler.settings) else EVALUATED
    found = [(cells[:0], torch.empty((0, 8), device=sampler.device))]
    while len(cells):
        pages.evaluate(cells, EVALUATED - share, share)
        found.append(pages.crossed(cells))
        cells = pages.unseen_neighbours(*found[-1])
        share = 0.0
    return torch.cat([part for part, _ in found]), torch.cat([values for _, values in found])


def _march(
    cells: np.ndarray, values: np.ndarray, report: Callable[[float], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Marching Cubes on the crossed cells (n, 3) with corner values (n, 8).

    (v, 3) vertices in steps, (f, 3) faces, and (v, 2) values at the lower and upper end of each vertex's edge.
    """
    blocks, index = np.unique(_flat(cells // BLOCK), return_inverse=True)
    order = np.argsort(index, kind="stable")
    vertices, origins, faces, ends, first = [], [], [], [], 0
    volume = np.empty((BLOCK + 1,) * 3, np.float32)
    mask = np.empty(volume.shape, bool)
    for done, members in enumerate(np.split(order, np.cumsum(np.bincount(index))[:-1])):
        local = cells[members] % BLOCK
        volume.fill(LARGEST)
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
        report(EVALUATED + (MESHED - EVALUATED) * (done + 1) / len(blocks))
    local, first_nodes = np.concatenate(vertices), np.concatenate(origins)
    own, welded = _weld(local, first_nodes, np.concatenate(faces).astype(np.int64))
    return (local.astype(np.float64) + first_nodes)[own], welded, np.concatenate(ends)[own]


def _weld(local: np.ndarray, origins: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Join the blocks: `local` (v, 3) float32 in steps from `origins` (v, 3), one mesh after another, (f, 3) faces.

    Which vertices stay, (v,), and the faces that name only these. A vertex occurs twice only on the border of its
    block, and there it lies on a grid edge: the edge's lower node and its direction name it exactly, with no tolerance.
    """
    border = np.flatnonzero(((local == 0) | (local == BLOCK)).any(axis=1))
    lower = np.floor(local[border]).astype(np.int64)
    direction = np.argmax(local[border] - lower, axis=1)
    edges = _flat(lower + origins[border]) * 3 + direction
    _, first, inverse = np.unique(edges, return_index=True, return_inverse=True)
    kept = np.arange(len(local))
    kept[border] = border[first[inverse]]
    own = kept == np.arange(len(local))
    number = np.cumsum(own) - 1
    return own, number[kept[faces]]


def _at_zero(sampler: _Sampler, exact: Field, vertices: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Vertices (v, 3) in steps, moved along their grid edges to where `exact` is zero; ends (v, 2), see `_march`.

    One step of regula falsi, between the vertex and the end of its edge on the other side of the surface. It cannot
    leave the edge, so the mesh stays closed; and it asks once a vertex, where the crossed cells have twice the nodes.
    """
    points = torch.from_numpy(vertices * sampler.settings.step - 1).float().to(sampler.device)
    answers, batch = [], sampler.settings.batch
    for start in range(0, len(points), batch):
        answers.append(sampler.ask(exact, points[start : start + batch]))
        sampler.report(MESHED + (1 - MESHED) * start / len(points))
    found = torch.cat(answers).cpu().numpy()
    lower = np.floor(vertices)
    axis = np.argmax(vertices - lower, axis=1)[:, None]
    share = np.take_along_axis(vertices - lower, axis, axis=1)[:, 0]
    before, after = ends.T.astype(np.float64)
    below = np.sign(before) != np.sign(found)
    # A vertex and the end on the same side would have no zero between them, so the denominators are never zero.
    down = share * before / np.where(below, before - found, 1)
    up = share + (1 - share) * found / np.where(below, 1, found - after)
    moved = np.where(below, down, up).clip(NEXT_TO_NODE, 1 - NEXT_TO_NODE)
    placed = lower.copy()
    np.put_along_axis(placed, axis, np.take_along_axis(lower, axis, axis=1) + moved[:, None], axis=1)
    return placed


def _flat(nodes: Nodes) -> Nodes:
    """One int64 for each of (n, 3) grid nodes."""
    return (((nodes[:, 0] << WIDE) + nodes[:, 1]) << WIDE) + nodes[:, 2]
