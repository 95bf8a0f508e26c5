"""Isosurface extraction: a signed distance field to a closed triangle mesh.

    mesh = extract_surface(lambda points: points.norm(dim=1) - 0.5, ExtractSettings(resolution=128))

The field lives in canonical space, negative inside. A grid of `resolution` cells per axis covers [-1, 1]^3. Coarse
cells whose centre is too far from the level set for the field's Lipschitz bound are dropped, the others split in eight;
the field is evaluated only at the nodes of the active cells in the narrow band that is left, and Marching Cubes sees
only the cells that the level set crosses. Where it leaves these cells it is followed, so the mesh is closed even where
the field is steeper than the bound.

Where a fast estimate of the field is at hand, it is evaluated at the nodes, and the exact field once a vertex.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import trimesh
from skimage.measure import marching_cubes

from sdf_backend.errors import InputError
from sdf_backend.geometry.block_marching_cubes import (
    BLOCK_CELLS,
    BLOCK_SHIFT,
    COORDINATE_BITS,
    CORNERS,
    flat_index,
    march_cells,
)
from sdf_backend.geometry.nonmanifold import split_nonmanifold_edges

Field = Callable[[torch.Tensor], torch.Tensor]
"""(n, 3) float32 canonical points -> (n,) float32 signed distances."""

EVALUATED, MARCHED = 0.7, 0.8  # progress after evaluation and after Marching Cubes; the rest is for the vertices
CELL_CHUNK = 1 << 19  # cells handled at once, to bound temporary memory

_EMPTY = "There is no surface at {} cells per axis: the field is positive at every node that was evaluated."


class EmptySurfaceError(InputError):
    """The field has no zero level set on the grid."""


@dataclass(frozen=True)
class ExtractSettings:
    """How finely a surface is extracted, and what the field promises. Raises `InputError` for values out of range."""

    resolution: int = 256
    """cells per axis of the cube [-1, 1]^3, 16 to 1024"""
    lipschitz: float = 1.4
    """upper bound of the field's gradient norm; larger is slower, too small may lose components but opens no holes. A
    ball three cells across is never lost, and where the field is an exact distance none of one and a half cells that
    contains a node"""
    clamp: float = 0.1
    """distance at which the field saturates (training clamps it there); math.inf for an exact distance"""
    batch: int = 65536
    """points in one call of the field; decides no result but for rounding"""
    steep_lipschitz: float = 4.0
    """upper bound near the points that are named as steep; at most 2.3 occurred in corrected shapes"""
    domain_radius: float = 0.995
    """models are trained in the unit ball; the field is cut off at this radius"""
    coarsest_cell: float = 2 / 32
    """edge of the largest cells that are tested, canonical units; larger ones are almost never dropped"""
    clamp_share: float = 0.8
    """a trained field is imprecise next to its clamp, so no test relies on values beyond this share of it"""
    half_edge_size: int = 4
    """cells of at most this edge, in steps, are kept if the level set may be within half an edge of their centre
    instead of half a diagonal; on 32 training shapes of all models, 256 cells, 26 % fewer evaluations give the same
    meshes"""
    smallest_value: float = 2e-6
    """node values are kept this far from zero: a vertex on a node would give triangles without area"""
    largest_value: float = 1.0
    """and at most this large, so that their ratio to the smallest stays above float32's resolution within a block"""
    edge_margin: float = 1e-3
    """refined vertices are kept this share of their grid edge away from its ends, for the same reason"""

    def __post_init__(self) -> None:
        if not 16 <= self.resolution <= 1024:
            raise InputError(f"The resolution is {self.resolution}; choose one from 16 to 1024 cells per axis.")
        if not (self.lipschitz > 0 and self.clamp > 0 and self.batch > 0):
            raise InputError(f"lipschitz, clamp and batch must all be positive, but the settings are {self}.")

    @property
    def step(self) -> float:
        """Edge of a grid cell, canonical units."""
        return 2 / self.resolution

    @property
    def tested_sizes(self) -> list[int]:
        """Edges, in steps, of the cells that are tested, coarse to fine.

        The last is 2: testing single cells too costs more evaluations than the nodes it saves. Empty at low
        resolutions, where even such cells are too large for the clamp.
        """
        largest = min(self.coarsest_cell, self.clamp_share * self.clamp / (self.lipschitz * math.sqrt(3) / 2))
        return [2**k for k in range(9, 0, -1) if 2**k * self.step <= largest * (1 + 1e-9)]


@dataclass
class Extraction:
    """A closed triangle mesh in canonical space, and what it cost."""

    vertices: np.ndarray
    """(v, 3) float64, canonical units"""
    faces: np.ndarray
    """(f, 3) int64, counter-clockwise seen from outside"""
    evaluations: int
    """points at which the field was evaluated"""

    def keep_components(self, wanted: np.ndarray) -> Extraction:
        """Only the connected components with a wanted vertex, of (v,) bool; the same mesh if there is no such one."""
        kept = np.bincount(self.components, wanted)[self.components] > 0
        if kept.all() or not kept.any():
            return self
        number = np.cumsum(kept) - 1
        return Extraction(self.vertices[kept], number[self.faces[kept[self.faces[:, 0]]]], self.evaluations)

    def remove_cavities(self) -> Extraction:
        """Without the components that bound cavities in the solid, which are invisible from outside."""
        # Six times the signed volume of each component; that of a cavity is negative.
        volumes = np.bincount(self.components[self.faces[:, 0]], np.linalg.det(self.vertices[self.faces]))
        return self.keep_components(volumes[self.components] > 0)

    @cached_property
    def component_sizes(self) -> np.ndarray:
        """Longest side of the bounding box of each connected component, (c,)."""
        low, high = np.full((2, self.components.max() + 1, 3), np.inf)
        np.minimum.at(low, self.components, self.vertices)
        np.minimum.at(high, self.components, -self.vertices)
        return (-high - low).max(axis=1)

    @cached_property
    def components(self) -> np.ndarray:
        """Number of the connected component of each vertex, (v,)."""
        edges = self.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
        return trimesh.graph.connected_component_labels(edges, len(self.vertices))


@torch.inference_mode()
def extract_surface(
    field: Field,
    settings: ExtractSettings = ExtractSettings(),
    device: str | torch.device = "cpu",
    progress: Callable[[float], None] | None = None,
    steep_points: np.ndarray | None = None,
    exact: Field | None = None,
) -> Extraction:
    """Extract the zero level set of a field, evaluating it only near the surface.

    Parameters
    ----------
    field : takes at most settings.batch points on `device`
    progress : called with the share done, 0 to 1, after every batch and block; an exception it raises ends the work
    steep_points : (m, 3), points near which the field may be as steep as settings.steep_lipschitz
    exact : if `field` is a fast estimate, the exact field, to whose zero every vertex is moved along its grid edge

    Raises `EmptySurfaceError` if there is no surface, `ValueError` if the field's answer has a wrong shape or is not
    finite.
    """
    sampler = _Sampler(field, settings, torch.device(device), progress)
    cells = _find_active_cells(sampler, np.zeros((0, 3)) if steep_points is None else steep_points)
    cells, values = _track_surface(sampler, cells)
    if len(cells) == 0:
        raise EmptySurfaceError(_EMPTY.format(settings.resolution))
    vertices, faces, ends = march_cells(
        cells.cpu().numpy(),
        values.cpu().numpy(),
        settings.largest_value,
        lambda share: sampler.report(EVALUATED + (MARCHED - EVALUATED) * share),
    )
    if exact is not None:
        vertices = _refine_vertices(sampler, exact, vertices, ends)
    sampler.report(1.0)
    vertices, faces = split_nonmanifold_edges(vertices * settings.step - 1, faces)
    return Extraction(vertices, faces, sampler.evaluations)


@torch.inference_mode()
def extract_dense(
    field: Field, settings: ExtractSettings = ExtractSettings(), device: str | torch.device = "cpu"
) -> Extraction:
    """The reference for `extract_surface`: every node evaluated, one Marching Cubes call. Same errors, same surface.

    Only nodes more than a cell outside of the domain are skipped: no surface can be next to them.
    """
    sampler = _Sampler(field, settings, torch.device(device), None)
    count = settings.resolution + 1
    volume = np.full((count, count, count), settings.largest_value, np.float32)
    plane = torch.cartesian_prod(torch.arange(1), torch.arange(count), torch.arange(count)).to(device)
    for i in range(count):
        near = sampler.axis[plane].norm(dim=1) <= settings.domain_radius + 2 * settings.step
        if near.any():
            volume[i].reshape(-1)[near.cpu().numpy()] = sampler.evaluate_nodes(plane[near]).cpu().numpy()
        plane[:, 0] += 1
    if volume.min() > 0:
        raise EmptySurfaceError(_EMPTY.format(settings.resolution))
    vertices, faces, _, _ = marching_cubes(volume, 0.0)
    return Extraction(vertices.astype(np.float64) * settings.step - 1, faces.astype(np.int64), sampler.evaluations)


class _Sampler:
    """The field at grid nodes: clipped to the domain, batched, counted."""

    def __init__(
        self, field: Field, settings: ExtractSettings, device: torch.device, progress: Callable[[float], None] | None
    ) -> None:
        self.field, self.settings, self.device = field, settings, device
        self.report = progress or (lambda fraction: None)
        self.evaluations = 0
        # One table for all levels and both extractions, so that a node has the same float32 coordinates everywhere. It
        # extends beyond the cube, as the last coarse cells do at resolutions that are no powers of two.
        axis = np.arange(2 * settings.resolution) * settings.step - 1
        self.axis = torch.from_numpy(axis.astype(np.float32)).to(device)

    def evaluate_nodes(self, nodes: torch.Tensor, done: float = 0.0, share: float = 0.0) -> torch.Tensor:
        """(n, 3) int64 nodes -> (n,) float32 distances, never zero; progress runs from `done` to `done + share`."""
        distances = torch.empty(len(nodes), device=self.device)
        for start in range(0, len(nodes), self.settings.batch):
            part = slice(start, min(start + self.settings.batch, len(nodes)))
            distances[part] = self.evaluate_points(self.field, self.axis[nodes[part]])
            self.report(done + share * part.stop / len(nodes))
        return distances

    def evaluate_points(self, field: Field, points: torch.Tensor) -> torch.Tensor:
        """(n, 3) float32 points, at most a batch -> (n,) float32 distances, never zero."""
        answer, settings = field(points), self.settings
        if answer.shape != points.shape[:1]:
            shape = tuple(answer.shape)
            raise ValueError(f"The field must return {len(points)} values for {len(points)} points, not shape {shape}.")
        distances = torch.maximum(answer.float(), points.norm(dim=1) - settings.domain_radius)
        if not torch.isfinite(distances).all():
            raise ValueError("The field returned values that are not finite; check the decoder and its code.")
        self.evaluations += len(points)
        magnitude = distances.abs().clamp(settings.smallest_value, settings.largest_value)
        return torch.where(distances < 0, -magnitude, magnitude)

    def cells_containing(self, points: np.ndarray) -> torch.Tensor:
        """Lower corners (k, 3) int64 of the grid cells that contain some of (m, 3) points, each once."""
        cells = torch.from_numpy(np.floor((points + 1) / self.settings.step).astype(np.int64)).to(self.device)
        return _unique_cells(cells[((cells >= 0) & (cells < self.settings.resolution)).all(dim=1)])

    def cells_in_domain(self, cells: torch.Tensor, size: int) -> torch.Tensor:
        """The cells of the (n, 3) that lie in the cube and intersect the domain's ball. Costs no evaluation."""
        cells = cells[(cells < self.settings.resolution).all(dim=1)]
        centre = self.axis[cells] + size * self.settings.step / 2
        return cells[centre.norm(dim=1) - self.settings.domain_radius <= size * self.settings.step * math.sqrt(3) / 2]


def _find_active_cells(sampler: _Sampler, steep_points: np.ndarray) -> torch.Tensor:
    """Lower corners (n, 3) int64 of the grid cells that may hold the surface, coarse to fine."""
    settings, steep = sampler.settings, sampler.cells_containing(steep_points)
    sizes = settings.tested_sizes
    size = sizes[0] if sizes else 1
    line = torch.arange(0, settings.resolution, size, device=sampler.device)
    cells = sampler.cells_in_domain(torch.cartesian_prod(line, line, line), size)
    corners = torch.tensor(CORNERS, device=sampler.device)
    for level, size in enumerate(sizes):
        # Each level needs about four times the points of the previous one, and the final nodes as many again.
        done = EVALUATED * (4**level - 1) / (4 ** (len(sizes) + 1) - 1)
        share = EVALUATED * 3 * 4**level / (4 ** (len(sizes) + 1) - 1)
        distances = sampler.evaluate_nodes(cells + size // 2, done, share)
        # A cell reaches from its centre to its corners. But of the last ones some of each component are enough, since
        # the surface is followed from there; at any wall a layer of centres is within half an edge.
        reach = size * settings.step / 2 * (1.0 if size <= settings.half_edge_size else math.sqrt(3))
        # The cut at the domain's border has slope 1, so the clipped field's bound is no smaller.
        bound = torch.full_like(distances, max(settings.lipschitz, 1.0))
        bound[torch.isin(flat_index(cells), flat_index(steep - steep % size))] = max(
            settings.lipschitz, settings.steep_lipschitz
        )
        cells = cells[distances.abs() <= bound * reach]
        cells = (cells[:, None] + corners * (size // 2)).reshape(-1, 3)  # (n, 8, 3) -> (8 n, 3)
        cells = sampler.cells_in_domain(cells, size // 2)
    return cells


class _NodeCache:
    """Values at grid nodes, in pages of BLOCK_CELLS^3 nodes that are allocated on demand; NaN is unknown."""

    def __init__(self, sampler: _Sampler) -> None:
        self.sampler, device = sampler, sampler.device
        blocks = sampler.settings.resolution // BLOCK_CELLS + 1
        self.table = torch.full((blocks, blocks, blocks), -1, device=device)
        self.origins = torch.empty((0, 3), dtype=torch.int64, device=device)
        self.values = torch.empty(0, device=device)
        self.visited = torch.empty(0, dtype=torch.bool, device=device)

    def slots(self, nodes: torch.Tensor) -> torch.Tensor:
        """Indices into `values` of the (n, 3) nodes, (n,) int64. Their pages must exist."""
        x, y, z = nodes.unbind(dim=1)
        page = self.table[x >> BLOCK_SHIFT, y >> BLOCK_SHIFT, z >> BLOCK_SHIFT]
        low = BLOCK_CELLS - 1
        return (page << 3 * BLOCK_SHIFT) + ((x & low) << 2 * BLOCK_SHIFT) + ((y & low) << BLOCK_SHIFT) + (z & low)

    def corner_slots(self, cells: torch.Tensor) -> torch.Tensor:
        """Slots (n, 8) of the corners of (n, 3) cells, in the order of CORNERS."""
        return torch.stack([self.slots(cells + torch.tensor(c, device=cells.device)) for c in CORNERS], dim=1)

    def allocate(self, cells: torch.Tensor) -> None:
        """Allocate the pages of all corners of the (n, 3) cells."""
        needed = torch.zeros_like(self.table, dtype=torch.bool)
        needed[tuple((cells >> BLOCK_SHIFT).unbind(dim=1))] = True
        border = cells[((cells & (BLOCK_CELLS - 1)) == BLOCK_CELLS - 1).any(dim=1)]
        for corner in CORNERS[1:]:
            needed[tuple(((border + torch.tensor(corner, device=cells.device)) >> BLOCK_SHIFT).unbind(dim=1))] = True
        new = torch.nonzero(needed & (self.table < 0))
        self.table[tuple(new.unbind(dim=1))] = torch.arange(len(new), device=new.device) + len(self.origins)
        self.origins = torch.cat([self.origins, new * BLOCK_CELLS])
        self.values = torch.cat([self.values, self.values.new_full((len(new) * BLOCK_CELLS**3,), math.nan)])
        self.visited = torch.cat([self.visited, self.visited.new_zeros(len(new) * BLOCK_CELLS**3)])

    def evaluate_corners(self, cells: torch.Tensor, done: float, share: float) -> None:
        """Evaluate the unknown corners of the (n, 3) cells, each once."""
        self.allocate(cells)
        for part in cells.split(CELL_CHUNK):
            slots = self.corner_slots(part)
            self.visited[slots[:, 0]] = True
            # Infinity marks nodes to be evaluated: a set of nodes without a sort.
            self.values[slots] = torch.where(self.values[slots].isnan(), math.inf, self.values[slots])
        wanted = torch.nonzero(self.values.isinf())[:, 0]
        local = torch.stack([wanted >> 2 * BLOCK_SHIFT, wanted >> BLOCK_SHIFT, wanted], dim=1) & (BLOCK_CELLS - 1)
        nodes = self.origins[wanted >> 3 * BLOCK_SHIFT] + local
        self.values[wanted] = self.sampler.evaluate_nodes(nodes, done, share)

    def crossed_cells(self, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The cells of the (n, 3) that the surface crosses, (m, 3), and their corner values, (m, 8)."""
        found, values = [], []
        for part in cells.split(CELL_CHUNK):
            corners = self.values[self.corner_slots(part)]
            mixed = (corners.amin(dim=1) < 0) & (corners.amax(dim=1) > 0)
            found.append(part[mixed])
            values.append(corners[mixed])
        return torch.cat(found), torch.cat(values)

    def unvisited_neighbours(self, cells: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Unvisited cells (k, 3) into which the surface runs from the crossed `cells` through a common face."""
        corners = torch.tensor(CORNERS, device=cells.device)
        leaving = []
        for axis in range(3):
            for side in (0, 1):
                face = values[:, corners[:, axis] == side]  # (n, 4)
                through = cells[(face.amin(dim=1) < 0) & (face.amax(dim=1) > 0)]
                through[:, axis] += 2 * side - 1
                leaving.append(through)
        neighbours = torch.cat(leaving)
        known = self.table[tuple((neighbours >> BLOCK_SHIFT).unbind(dim=1))] >= 0
        unvisited = ~known
        unvisited[known] = ~self.visited[self.slots(neighbours[known])]
        return _unique_cells(neighbours[unvisited])


def _unique_cells(cells: torch.Tensor) -> torch.Tensor:
    """Each of the (n, 3) cells once, sorted; by one number a cell, which sorts ten times as fast as rows do."""
    numbers = torch.unique(flat_index(cells))
    low = (1 << COORDINATE_BITS) - 1
    return torch.stack([numbers >> 2 * COORDINATE_BITS, numbers >> COORDINATE_BITS & low, numbers & low], dim=1)


def _track_surface(sampler: _Sampler, cells: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """All cells that the surface crosses, (n, 3), found from active cells (m, 3), and their corner values, (n, 8).

    Where the field is steeper than its bound, a cell was dropped wrongly; its neighbour's face shows that.
    """
    cache = _NodeCache(sampler)
    share = EVALUATED * 3 / 4 if sampler.settings.tested_sizes else EVALUATED
    found = [(cells[:0], torch.empty((0, 8), device=sampler.device))]
    while len(cells):
        cache.evaluate_corners(cells, EVALUATED - share, share)
        found.append(cache.crossed_cells(cells))
        cells = cache.unvisited_neighbours(*found[-1])
        share = 0.0
    return torch.cat([part for part, _ in found]), torch.cat([values for _, values in found])


def _refine_vertices(sampler: _Sampler, exact: Field, vertices: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Move vertices along their grid edges to the zero of the exact field.

    One step of regula falsi, between the vertex and the end of its edge on the other side of the surface. A vertex
    cannot leave its edge, so the mesh stays closed; and the exact field is evaluated once a vertex, where the crossed
    cells have twice as many nodes.

    Parameters
    ----------
    vertices : (v, 3), in grid steps; ends : (v, 2), the estimated field at the ends of their edges
    """
    points = torch.from_numpy(vertices * sampler.settings.step - 1).float().to(sampler.device)
    answers, batch = [], sampler.settings.batch
    for start in range(0, len(points), batch):
        answers.append(sampler.evaluate_points(exact, points[start : start + batch]))
        sampler.report(MARCHED + (1 - MARCHED) * start / len(points))
    value = torch.cat(answers).cpu().numpy()
    lower = np.floor(vertices)
    axis = np.argmax(vertices - lower, axis=1)[:, None]
    share = np.take_along_axis(vertices - lower, axis, axis=1)[:, 0]
    before, after = ends.T.astype(np.float64)
    below = np.sign(before) != np.sign(value)
    # A vertex and an end on the same side have no zero between them, so the denominators are never zero.
    down = share * before / np.where(below, before - value, 1)
    up = share + (1 - share) * value / np.where(below, 1, value - after)
    margin = sampler.settings.edge_margin
    moved = np.where(below, down, up).clip(margin, 1 - margin)
    placed = lower.copy()
    np.put_along_axis(placed, axis, np.take_along_axis(lower, axis, axis=1) + moved[:, None], axis=1)
    return placed
