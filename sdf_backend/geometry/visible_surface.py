"""The surface of a mesh that is visible from outside: its faces without the walls inside a body.

Real meshes are put together from parts that stand in each other. Walls inside are no part of the surface of the whole;
distances to them would dent the field. Faces are tested in small cells, and a face with hidden cells is replaced by its
visible ones. Cells lie in the plane of their face, so that distances stay exact.
"""

import numpy as np
from scipy.spatial import KDTree

from sdf_backend.geometry.signed_distance import (
    BATCH,
    MERGE_TOLERANCE,
    SignClassifier,
    connected_signs,
    sample_surface_points,
    unit_normals,
)


def visible_surface(vertices: np.ndarray, faces: np.ndarray, signs: SignClassifier) -> tuple[np.ndarray, np.ndarray]:
    """Triangles visible from outside, (n, 3, 3), and their unit normals towards the outside, (n, 3).

    Parameters
    ----------
    vertices : (n, 3), canonical scale; faces : (m, 3); signs : classifier of the same mesh
    """
    triangles = vertices[faces]
    normals = unit_normals(triangles)
    cells, source = cut_faces(triangles, signs.settings.cell_size)
    hidden, flipped, partial = _probe_sides(cells, normals[source], signs)
    # Cells at the rim of the visible surface are cut once more, so that little of a hidden wall stays.
    rim, rim_cell = _split(cells[partial])
    parts, part_of = cut_faces(rim, signs.settings.cell_size / 2)
    part_source = source[partial][rim_cell[part_of]]
    part_hidden, part_flipped, _ = _probe_sides(parts, normals[part_source], signs)
    cells, source = np.concatenate([cells[~partial], parts]), np.concatenate([source[~partial], part_source])
    hidden, flipped = np.concatenate([hidden[~partial], part_hidden]), np.concatenate([flipped[~partial], part_flipped])
    total, lost, turned = (np.bincount(source, which, minlength=len(faces)) for which in (None, hidden, flipped))
    # A face of which every cell is visible, all with the same side outside, is kept whole.
    whole = (lost == 0) & ((turned == 0) | (turned == total))
    normals[whole & (turned > 0)] *= -1
    loose = ~hidden & ~whole[source]
    pieces, cell = _split(cells[loose])
    outward = np.where(flipped[loose, None], -1, 1) * normals[source[loose]]
    return np.concatenate([triangles[whole], pieces]), np.concatenate([normals[whole], outward[cell]])


def count_cells(triangles: np.ndarray, size: float) -> int:
    """About how many cells `cut_faces` makes of triangles, (n, 3, 3), or a few more."""
    edges = np.linalg.norm(triangles[:, [1, 2, 0]] - triangles, axis=2)
    longest, cut = edges.max(axis=1), edges.max(axis=1) > size * 2**0.5
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1) / 2
    return len(triangles) + round(float((area[cut] / size + longest[cut]).sum() / size))


def estimate_rays(triangles: np.ndarray, signs: SignClassifier, sample: int) -> float:
    """At most about how many rays tell the visible surface of triangles, (n, 3, 3), by a sample of points on them.

    A sample cannot tell how many cells take their sign from another.
    """
    cells, rays = count_cells(triangles, signs.settings.cell_size), signs.rays
    points, which = sample_surface_points(triangles, sample, np.random.default_rng(0))
    normals = unit_normals(triangles[which])
    front = signs.classify(points + signs.settings.probe_offset * normals, normals)
    covered = front < 0
    signs.classify(points[covered] - signs.settings.probe_offset * normals[covered], -normals[covered])
    return cells * (signs.rays - rays) / sample


def cut_faces(triangles: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Cut triangles, (n, 3, 3), into cells of about `size` at most in length and width.

    A triangle whose edges are shorter than the diagonal of such a cell is one cell. Others are cut along the altitude
    on their longest edge, and the two right triangles across their longer leg and then along it: a needle yields cells
    in proportion to its length, where halving its edges would yield their square.

    Returns
    -------
    cells : (m, 4, 3), corners in order; the last two are the same where the cell is a triangle
    source : (m,), the triangle that each is part of
    """
    edges = np.linalg.norm(triangles[:, [1, 2, 0]] - triangles, axis=2)
    fits = edges.max(axis=1) <= size * 2**0.5
    small, large = np.flatnonzero(fits), np.flatnonzero(~fits)
    start = edges[large].argmax(axis=1)
    a, b, apex = (triangles[large, (start + step) % 3] for step in range(3))
    base = b - a
    share = np.einsum("ij,ij->i", apex - a, base) / np.einsum("ij,ij->i", base, base)
    foot = np.tile(a + share[:, None] * base, (2, 1))
    legs = np.stack([np.concatenate([a, b]) - foot, np.tile(apex, (2, 1)) - foot], axis=1)
    lengths = np.linalg.norm(legs, axis=2)
    right = lengths.min(axis=1) > MERGE_TOLERANCE  # a right triangle is its own half
    cells, half = _cut_right_triangles(foot[right], legs[right], lengths[right], size)
    return (
        np.concatenate([triangles[small][:, [0, 1, 2, 2]], cells]),
        np.concatenate([small, np.tile(large, 2)[right][half]]),
    )


def _cut_right_triangles(
    corners: np.ndarray, legs: np.ndarray, lengths: np.ndarray, size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cut right triangles, given by the corners of their right angles, (n, 3), and their legs, (n, 2, 3)."""
    order = np.argsort(-lengths, axis=1)
    longer, shorter = np.moveaxis(np.take_along_axis(legs, order[:, :, None], axis=1), 1, 0)
    length, width = np.take_along_axis(lengths, order, axis=1).T
    half, strip = _enumerate(np.ceil(length / size))
    begin, end = strip / np.ceil(length / size)[half], (strip + 1) / np.ceil(length / size)[half]
    columns = np.ceil((1 - begin) * width[half] / size)
    row, column = _enumerate(columns)
    half, begin, end = half[row], begin[row], end[row]

    def corner(along: np.ndarray, across: np.ndarray) -> np.ndarray:
        return corners[half] + along[:, None] * longer[half] + ((1 - along) * across)[:, None] * shorter[half]

    left, right = column / columns[row], (column + 1) / columns[row]
    cells = [corner(begin, left), corner(begin, right), corner(end, right), corner(end, left)]
    return np.stack(cells, axis=1), half


def _enumerate(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For counts (2, 3): the indices (0, 0, 1, 1, 1) and the numbers (0, 1, 0, 1, 2)."""
    counts = counts.astype(np.int64)
    return np.repeat(np.arange(len(counts)), counts), np.arange(counts.sum()) - np.repeat(
        np.cumsum(counts) - counts, counts
    )


def _split(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The triangles of cells, (n, 3, 3), and the cell that each is half of; that of a triangular cell is all of it."""
    square = np.flatnonzero(_is_square(cells))
    return (
        np.concatenate([cells[:, [0, 1, 2]], cells[square][:, [0, 2, 3]]]),
        np.concatenate([np.arange(len(cells)), square]),
    )


def _is_square(cells: np.ndarray) -> np.ndarray:
    return (cells[:, 2] != cells[:, 3]).any(axis=1)


def _probe_sides(
    cells: np.ndarray, normals: np.ndarray, signs: SignClassifier
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tell which cells are hidden from outside, of which the normal points inside, and which show a corner alone.

    Returns three masks, (n,) bool.
    """
    offset = signs.settings.probe_offset
    centres = np.where(_is_square(cells)[:, None], cells.mean(axis=1), cells[:, :3].mean(axis=1))
    clear, flipped, hidden = np.ones((2, len(cells)), dtype=bool), *np.zeros((2, len(cells)), dtype=bool)
    front, clear[0] = connected_signs(centres + offset * normals, normals, signs)
    covered = np.flatnonzero(front < 0)
    back, clear[1, covered] = connected_signs(centres[covered] - offset * normals[covered], -normals[covered], signs)
    flipped[covered], hidden[covered] = back > 0, back < 0
    rim = _hidden_at_the_rim(centres, hidden, signs.settings.cell_size * 2**0.5)
    partial = np.zeros_like(hidden)
    for corner in range(4):
        for side in (0, 1):
            outward = (1, -1)[side] * normals[rim]
            probe = 0.9 * cells[rim, corner] + 0.1 * centres[rim] + offset * outward
            # What a centre that is clearly hidden sees is hidden too.
            apart = np.flatnonzero(~(clear[side, rim] & signs.connected(centres[rim] + offset * outward, probe)))
            shown = apart[signs.classify(probe[apart], outward[apart]) >= 0]
            partial[rim[shown]], flipped[rim[shown]] = True, side == 1
            rim = np.delete(rim, shown)
    return hidden & ~partial, flipped, partial


def _hidden_at_the_rim(centres: np.ndarray, hidden: np.ndarray, diagonal: float) -> np.ndarray:
    """Indices of hidden cells, by (n, 3) centres and (n,) bool, that may show a corner although their centre is hidden.

    The wall that cuts such a cell is visible where it cuts, so a visible centre lies within a diagonal.
    """
    tested = np.flatnonzero(hidden)
    if len(tested) in (0, len(hidden)):
        return tested[:0]
    visible, distance = KDTree(centres[~hidden]), np.zeros(len(tested))
    for start in range(0, len(tested), BATCH):
        batch = slice(start, start + BATCH)
        distance[batch], _ = visible.query(centres[tested[batch]], distance_upper_bound=diagonal)
    return tested[np.isfinite(distance)]
