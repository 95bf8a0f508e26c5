"""Cabinets: wardrobes, cupboards, chests of drawers, sideboards, bookcases, open shelves; y up, doors at +z, metres."""

from functools import partial
from itertools import pairwise

import numpy as np

from training.generators.solids import PLAIN, Mesh, beam, box, lathe, merge, mirrored, rotated, translated

board = partial(box, samples=PLAIN)

# Kind -> width, depth and height from and to, metres.
SIZES = {
    "wardrobe": ((0.6, 2.4), (0.45, 0.7), (1.6, 2.4)),
    "chest": ((0.4, 1.3), (0.35, 0.6), (0.5, 1.3)),
    "sideboard": ((1.0, 2.2), (0.35, 0.55), (0.5, 1.0)),
    "bookcase": ((0.4, 2.0), (0.2, 0.4), (0.8, 2.3)),
    "nightstand": ((0.3, 0.6), (0.3, 0.5), (0.35, 0.7)),
    "wall": ((0.3, 1.2), (0.2, 0.4), (0.3, 0.9)),
}


def cabinet(rng: np.random.Generator) -> Mesh:
    """Draw a cabinet or a shelf: a carcass on plinth, legs or nothing, divided into bays that are open or closed."""
    kind = rng.choice(list(SIZES), p=(0.22, 0.2, 0.18, 0.2, 0.12, 0.08))
    width, depth, height = (rng.uniform(*SIZES[kind][axis]) for axis in range(3))
    thick = rng.uniform(0.012, 0.04)
    stand = rng.choice([0.0, rng.uniform(0.03, 0.1), rng.uniform(0.08, 0.3)]) if kind != "wall" else 0.0
    stand = min(stand, 0.4 * height)
    x, z = width / 2, depth / 2
    parts = _stand(rng, x, z, stand)
    over = rng.choice([0.0, rng.uniform(0.01, 0.04)])
    parts.append(board((-x - over, height - thick, -z), (x + over, height, z + over), 0.003))
    parts.append(board((-x, stand, -z), (x, stand + thick, z), 0.002))
    side = board((x - thick, stand, -z), (x, height - thick / 2, z), 0.002)
    parts += [side, mirrored(side)]
    if rng.random() < 0.85:
        parts.append(board((-x, stand, -z), (x, height - thick / 2, -z + 0.008), 0.001))
    bays = max(1, round(width / rng.uniform(0.35, 0.9)))
    edges = np.linspace(-x + thick / 2, x - thick / 2, bays + 1)
    for edge in edges[1:-1]:
        parts.append(board((edge - thick / 2, stand, -z), (edge + thick / 2, height - thick / 2, z - 0.002), 0.001))
    fronts = FRONTS[kind]
    alike = rng.choice(list(fronts), p=list(fronts.values())) if rng.random() < 0.6 else ""
    for left, right in pairwise(edges):
        front = alike or rng.choice(list(fronts), p=list(fronts.values()))
        bay = (left, right, stand + thick * 0.5, height - thick, z)
        parts += {"shelves": _shelves, "doors": _doors, "drawers": _drawers, "mixed": _mixed}[front](
            rng, bay, depth, thick
        )
    return merge(*parts)


FRONTS = {
    "wardrobe": {"doors": 0.75, "mixed": 0.2, "shelves": 0.05},
    "chest": {"drawers": 0.85, "mixed": 0.15},
    "sideboard": {"doors": 0.4, "drawers": 0.25, "shelves": 0.2, "mixed": 0.15},
    "bookcase": {"shelves": 0.85, "mixed": 0.15},
    "nightstand": {"drawers": 0.5, "mixed": 0.25, "doors": 0.15, "shelves": 0.1},
    "wall": {"doors": 0.5, "shelves": 0.5},
}
Bay = tuple[float, float, float, float, float]  # left, right, bottom, top, front


def _stand(rng: np.random.Generator, x: float, z: float, height: float) -> list[Mesh]:
    """A plinth, or four legs."""
    if not height:
        return []
    if height < 0.12 and rng.random() < 0.6:
        inset = rng.uniform(0, 0.04)
        return [board((-x + inset, 0, -z + 0.01), (x - inset, height + 0.004, z - inset), 0.002)]
    bar, sides, splay = rng.uniform(0.025, 0.06), int(rng.choice([4, 12])), rng.choice([0.0, rng.uniform(0, 0.03)])
    a, b = x - bar / 2 - splay, z - bar / 2 - splay
    feet = [(s, t) for s in (-1, 1) for t in (-1, 1)]
    return [
        beam((s * a, height + 0.005, t * b), (s * (a + splay), 0, t * (b + splay)), (bar, bar), 0.7, sides)
        for s, t in feet
    ]


def _shelves(rng: np.random.Generator, bay: Bay, depth: float, thick: float) -> list[Mesh]:
    left, right, low, top, front = bay
    count = int(max(0, round((top - low) / rng.uniform(0.22, 0.5)) - 1))
    levels = np.linspace(low, top, count + 2)[1:-1]
    return [board((left, y - thick / 2, front - depth), (right, y + thick / 2, front - 0.003), 0.001) for y in levels]


def _doors(rng: np.random.Generator, bay: Bay, depth: float, thick: float) -> list[Mesh]:
    """One door, or two that meet in the middle; flat or with a recessed panel, with a knob or a bar."""
    left, right, low, top, front = bay
    gap, proud = rng.uniform(0.001, 0.004), rng.choice([0.0, thick])
    leaves = 2 if right - left > 0.55 else 1
    width = (right - left) / leaves
    framed, handle = rng.random() < 0.4, rng.choice(["knob", "bar", "none"])
    parts = []
    for leaf in range(leaves):
        a, b = left + leaf * width + gap, left + (leaf + 1) * width - gap
        back, face = front - thick + proud, front + proud
        if framed:
            rim = min(0.08, 0.2 * width)
            parts.append(board((a, low, back), (b, top, face - 0.008), 0.001))
            parts += [
                board((a, low, back), (a + rim, top, face), 0.001),
                board((b - rim, low, back), (b, top, face), 0.001),
            ]
            parts += [
                board((a, low, back), (b, low + rim, face), 0.001),
                board((a, top - rim, back), (b, top, face), 0.001),
            ]
        else:
            parts.append(board((a, low, back), (b, top, face), 0.002))
        inner = b - 0.035 if leaf == 0 and leaves == 2 else a + 0.035
        middle = low + (top - low) * rng.uniform(0.45, 0.6)
        parts += _handle(handle, (inner, middle, face), True)
    return parts


def _drawers(rng: np.random.Generator, bay: Bay, depth: float, thick: float) -> list[Mesh]:
    left, right, low, top, front = bay
    count = max(1, round((top - low) / rng.uniform(0.13, 0.32)))
    gap, proud = rng.uniform(0.002, 0.006), rng.choice([0.0, thick])
    handle, pitch = rng.choice(["knob", "bar", "none"]), (top - low) / count
    parts = []
    for n in range(count):
        bottom = low + n * pitch
        back, face = front - thick + proud, front + proud
        parts.append(board((left + gap, bottom + gap, back), (right - gap, bottom + pitch - gap, face), 0.002))
        middle = (left + right) / 2
        places = (-0.25, 0.25) if right - left > 0.6 and handle == "knob" else (0.0,)
        for place in places:
            parts += _handle(handle, (middle + place * (right - left), bottom + pitch / 2, face), False)
    # The body behind the fronts: the inside of a closed drawer is invisible.
    parts.append(board((left, low, front - depth + 0.01), (right, top, front - thick), 0.001))
    return parts


def _mixed(rng: np.random.Generator, bay: Bay, depth: float, thick: float) -> list[Mesh]:
    """Open above and closed below, or the other way round."""
    left, right, low, top, front = bay
    middle = low + (top - low) * rng.uniform(0.35, 0.65)
    divider = board((left, middle - thick / 2, front - depth), (right, middle + thick / 2, front - 0.002), 0.001)
    closed = _doors if rng.random() < 0.5 else _drawers
    lower, upper = (closed, _shelves) if rng.random() < 0.7 else (_shelves, closed)
    below, above = (left, right, low, middle - thick / 2, front), (left, right, middle + thick / 2, top, front)
    return [divider, *lower(rng, below, depth, thick), *upper(rng, above, depth, thick)]


def _handle(kind: str, at: tuple[float, float, float], upright: bool) -> list[Mesh]:
    """A knob or a bar on a front, at a point of its face."""
    if kind == "none":
        return []
    if kind == "knob":
        return [
            translated(rotated(lathe([(0.008, -0.003), (0.008, 0.012), (0.016, 0.02), (0.014, 0.03)], 12), 0, 90), at)
        ]
    half = np.array([0.006, 0.07, 0.006]) if upright else np.array([0.07, 0.006, 0.006])
    middle = np.array(at) + [0, 0, 0.028]
    ends = half * [not upright, upright, 0] * 0.8
    posts = [
        board(at + s * ends - [0.004, 0.004, 0.003], at + s * ends + [0.004, 0.004, 0.026], 0.001) for s in (-1, 1)
    ]
    return [board(middle - half, middle + half, 0.003), *posts]
