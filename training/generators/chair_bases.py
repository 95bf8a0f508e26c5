"""Bases of chairs: legs, bent tubes, a column, spokes, crossed legs, panels. Metres, y up, front +z."""

from collections.abc import Callable

import numpy as np

from training.generators.chair_plan import ChairPlan
from training.generators.solids import Mesh, beam, box, lathe, mirrored, rotated, rounded_path, translated, tube


def _legs(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """Four legs, upright or splayed, straight or tapered, and on half of the chairs stretchers."""
    splay = rng.choice([0.0, rng.uniform(0.01, 0.1)], size=2)
    share = rng.choice([1.0, rng.uniform(0.45, 0.9)])
    inset = plan.bar / 2 + rng.choice([0.0, rng.uniform(0, 0.05)])
    if plan.round:
        inset += 0.15 * plan.width  # a disc has no corners
    tops = np.array([plan.width / 2 - inset, plan.underside + plan.thickness / 2, plan.depth / 2 - inset])
    feet = tops + [splay[0], 0, splay[1]]
    feet[1] = 0
    corners = [np.array([x, 1, z]) for x in (-1, 1) for z in (-1, 1)]
    parts = [beam(tops * c, feet * c, (plan.bar, plan.bar), share, plan.sides) for c in corners]
    if rng.random() < 0.35:
        parts.append(_apron(rng, plan, inset))
    if rng.random() < 0.5:
        parts += _stretchers(rng, plan, tops, feet)
    return parts


def _apron(rng: np.random.Generator, plan: ChairPlan, inset: float) -> Mesh:
    """The frame below the seat, as one block."""
    deep = rng.uniform(0.03, 0.08)
    x, z = plan.width / 2 - inset - 0.002, plan.depth / 2 - inset - 0.002
    return box((-x, plan.underside - deep, -z), (x, plan.underside + plan.thickness / 2, z), 0.003)


def _stretchers(rng: np.random.Generator, plan: ChairPlan, tops: np.ndarray, feet: np.ndarray) -> list[Mesh]:
    """Bars between the legs: an H, a box, a ring of two heights, or one at the front to rest feet on."""
    thickness = plan.bar * rng.uniform(0.4, 0.8)
    kind = rng.choice(["h", "box", "sides", "front"])
    level = rng.uniform(0.15, 0.5)
    at = feet + (tops - feet) * level
    x, y, z = at
    side = tube(np.array([[x, y, -z], [x, y, z]]), thickness / 2, plan.sides)
    parts = []
    if kind != "front":
        parts += [side, mirrored(side)]
    if kind == "h":
        parts.append(tube(np.array([[-x, y, 0], [x, y, 0]]), thickness / 2, plan.sides))
    if kind in ("box", "front"):
        x, y, z = feet + (tops - feet) * rng.uniform(0.15, 0.6)
        ends = (1,) if kind == "front" else (1, -1)
        parts += [tube(np.array([[-x, y, z * e], [x, y, z * e]]), thickness / 2, plan.sides) for e in ends]
    return parts


def _sled(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """A bent tube on either side: down, along the floor, and up again."""
    radius = rng.uniform(0.008, 0.02)
    x, z = plan.width / 2 - radius - rng.uniform(0, 0.04), plan.depth / 2 - radius
    out, lean, top = rng.uniform(0, 0.06), rng.uniform(0, 0.1), plan.underside + 0.01
    loop = [(x, top, z - lean), (x + out, radius, z), (x + out, radius, -z), (x, top, -z + lean)]
    side = tube(rounded_path(np.array(loop), rng.uniform(0.02, 0.08)), radius)
    return [side, mirrored(side)]


def _cantilever(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """Two front legs and runners that end, or meet, at the rear."""
    radius = rng.uniform(0.01, 0.02)
    x, z, top = plan.width / 2 - radius, plan.depth / 2 - radius, plan.underside + 0.005
    runner = [(x, top, -z), (x, top, z), (x, radius, z), (x, radius, -z - 0.05)]
    if rng.random() < 0.6:
        runner.append((0.0, radius, -z - 0.05))
    side = tube(rounded_path(np.array(runner), rng.uniform(0.04, 0.1)), radius)
    return [side, mirrored(side)]


def _pedestal(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """A column on a round foot."""
    column, foot = rng.uniform(0.02, 0.05), rng.uniform(0.17, 0.27)
    rise = rng.uniform(0.01, 0.06)
    neck = rng.uniform(0.5, 1.0) * column
    profile = [(foot, 0), (foot, 0.012), (column * 1.4, 0.012 + rise), (column, 0.03 + rise * 2)]
    top = [
        (neck, plan.underside * 0.6),
        (neck, plan.underside - 0.06),
        (rng.uniform(1, 3) * neck, plan.underside + 0.005),
    ]
    return [lathe([*profile, *top])]


def _star(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """A column on four or five spokes, with casters or without."""
    spokes, reach = int(rng.choice([4, 5, 5])), rng.uniform(0.24, 0.33)
    wheel = rng.choice([0.0, rng.uniform(0.02, 0.035)])
    low, thick = 2 * wheel + 0.015, rng.uniform(0.02, 0.045)
    hub = low + rng.uniform(0.01, 0.08)
    parts = [lathe([(0.035, low), (0.03, hub + 0.05), (0.025, hub + 0.06), (0.02, plan.underside + 0.005)], 16)]
    parts.append(box((-0.09, plan.underside - 0.03, -0.09), (0.09, plan.underside + 0.004, 0.09), 0.01))
    start = rng.uniform(0, 2 * np.pi)
    for spoke in range(spokes):
        angle = start + spoke * 2 * np.pi / spokes
        x, z = np.sin(angle), np.cos(angle)
        parts.append(beam((0, hub, 0), (reach * x, low, reach * z), (thick, thick), rng.uniform(0.6, 1.0), 8))
        if wheel:
            disc_ = rotated(lathe([(wheel, -0.012), (wheel, 0.012)], 16), 2, 90)
            parts.append(translated(disc_, (reach * x, wheel, reach * z)))
            parts.append(beam((reach * x, low + 0.005, reach * z), (reach * x, wheel, reach * z), (0.012, 0.012)))
    return parts


def _folding(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """Crossed legs on either side, joined by bars."""
    x, z = plan.width / 2 - plan.bar / 2, plan.depth / 2 - plan.bar / 2
    bar, out = plan.bar * 0.7, rng.uniform(0, 0.08)
    one = beam((x, plan.underside + 0.01, -z), (x, 0, z + out), (bar, bar), 1.0, plan.sides)
    other = beam((x - bar, plan.underside + 0.01, z), (x - bar, 0, -z - out), (bar, bar), 1.0, plan.sides)
    share = rng.uniform(0.1, 0.3)
    foot = z - share * (2 * z + out)
    rung = tube(np.array([[-x, share * plan.underside, -foot], [x, share * plan.underside, -foot]]), bar / 3)
    return [one, mirrored(one), other, mirrored(other), rung]


def _slab(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """Panels for legs, or a closed box."""
    z = plan.depth / 2 - rng.uniform(0, 0.03)
    if rng.random() < 0.4:
        x = plan.width / 2 - 0.01
        return [box((-x, 0, -z), (x, plan.underside + 0.005, z), 0.004)]
    outer = plan.width / 2 - rng.choice([0.0, 0.02])
    side = box((outer - plan.bar, 0, -z), (outer, plan.underside + 0.005, z), 0.004)
    return [side, mirrored(side)]


BUILD_BASE: dict[str, Callable[[np.random.Generator, ChairPlan], list[Mesh]]] = {
    "legs": _legs,
    "sled": _sled,
    "cantilever": _cantilever,
    "pedestal": _pedestal,
    "star": _star,
    "folding": _folding,
    "slab": _slab,
}
