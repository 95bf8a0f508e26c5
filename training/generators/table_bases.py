"""Bases of tables: legs, a pedestal, columns, trestles, frames. Metres, y up, front +z."""

from collections.abc import Callable

import numpy as np

from training.generators.solids import Mesh, beam, box, lathe, mirrored, rounded_path, translated, tube
from training.generators.table_plan import TablePlan, corners


def _legs(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """Four legs; most with an apron, some with stretchers or a shelf between them."""
    x, z = plan.reach
    splay = rng.choice([0.0, 0.0, rng.uniform(0.02, 0.12)])
    share = rng.choice([1.0, rng.uniform(0.4, 0.9)])
    tops = np.array([x, plan.underside + plan.top / 2, z])
    feet = tops + [splay, 0, splay]
    feet[1] = 0
    if rng.random() < 0.12:
        parts = [translated(_turned_leg(rng, plan), (c[0] * x, 0, c[2] * z)) for c in corners()]
        feet = tops * [1, 0, 1]
    else:
        parts = [beam(tops * c, feet * c, (plan.bar, plan.bar), share, plan.sides) for c in corners()]
    if rng.random() < 0.55:
        parts += _apron(rng, plan)
    extra = rng.choice(["none", "shelf", "stretchers", "box"], p=(0.5, 0.22, 0.16, 0.12))
    level = rng.uniform(0.12, 0.55)
    at = feet + (tops - feet) * level
    if extra == "shelf":
        thick = rng.uniform(0.01, 0.04)
        parts.append(box((-at[0], at[1] - thick, -at[2]), (at[0], at[1], at[2]), 0.002))
    elif extra == "stretchers":
        parts += _stretchers(rng, plan, at)
    elif extra == "box":
        parts += _drawer_box(rng, plan)
    return parts


def _turned_leg(rng: np.random.Generator, plan: TablePlan) -> Mesh:
    """A lathed leg with a square block's bulk at its top."""
    heights = np.linspace(0, plan.underside + plan.top / 2, 12)
    radii = plan.bar / 2 * rng.uniform(0.5, 1.1, size=12)
    radii[-3:] = plan.bar / 2
    return lathe(list(zip(radii, heights, strict=True)), 16)


def _apron(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """Boards between the legs, below the top."""
    x, z = plan.reach
    deep = rng.uniform(0.04, 0.14) * min(1.0, plan.height + 0.3)
    thick = plan.bar * rng.uniform(0.2, 0.8)
    low, high = plan.underside - deep, plan.underside + plan.top / 2
    side = box((x - thick / 2, low, -z), (x + thick / 2, high, z), 0.001)
    front = box((-x, low, z - thick / 2), (x, high, z + thick / 2), 0.001)
    return [side, mirrored(side), front, mirrored(front, 2)]


def _stretchers(rng: np.random.Generator, plan: TablePlan, at: np.ndarray) -> list[Mesh]:
    """Bars between the legs: an H, a box, or a cross."""
    thickness, kind = plan.bar * rng.uniform(0.3, 0.9), rng.choice(["h", "box", "cross"])
    x, y, z = at
    size = (thickness, thickness)
    if kind == "cross":
        return [beam((-x, y, -z), (x, y, z), size), beam((-x, y, z), (x, y, -z), size)]
    side = beam((x, y, -z), (x, y, z), size)
    parts = [side, mirrored(side)]
    if kind == "h":
        return [*parts, beam((-x, y, 0), (x, y, 0), size)]
    front = beam((-x, y, z), (x, y, z), size)
    return [*parts, front, mirrored(front, 2)]


def _drawer_box(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """A box of drawers right below the top, between the legs, with a knob or two."""
    x, z = plan.reach
    deep = min(rng.uniform(0.08, 0.2), 0.5 * plan.underside)
    parts = [box((-x, plan.underside - deep, -z), (x, plan.underside + plan.top / 2, z), 0.003)]
    for knob in rng.choice([(0.0,), (-0.5, 0.5)][int(x > 0.35)], size=1 + int(x > 0.35), replace=False):
        parts.append(
            beam(
                (knob * x, plan.underside - deep / 2, z - 0.01),
                (knob * x, plan.underside - deep / 2, z + 0.03),
                (0.03, 0.03),
                1,
                10,
            )
        )
    return parts


def _pedestal(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """One column: straight, turned, or a cone; on a disc, splayed feet, or a cross."""
    small = min(plan.width, plan.depth)
    column = rng.uniform(0.03, 0.12) * min(1.0, 0.3 + small)
    foot = rng.choice(["disc", "feet", "cross", "cone"], p=(0.35, 0.3, 0.2, 0.15))
    top = plan.underside + plan.top / 2
    plate = min(2.5 * column, 0.4 * small)
    if foot == "cone":
        base = rng.uniform(0.25, 0.4) * small
        return [lathe([(base, 0), (base, 0.01), (column, plan.underside * rng.uniform(0.4, 0.9)), (plate, top)], 32)]
    if foot == "disc":
        radius, rise = rng.uniform(0.24, 0.42) * small, rng.uniform(0.0, 0.08)
        base = [(radius, 0), (radius, rng.uniform(0.01, 0.04)), (column * 1.2, 0.045 + rise)]
        return [
            lathe(
                [
                    *base,
                    *_column(rng, column, 0.05 + rise, plan.underside - 0.03),
                    (plate, plan.underside - 0.01),
                    (plate, top),
                ],
                32,
            )
        ]
    count, reach = int(rng.choice([3, 4, 4])), rng.uniform(0.28, 0.46) * small
    low = rng.uniform(0.0, 0.12) if foot == "feet" else 0.0
    parts = [
        lathe([*_column(rng, column, low, plan.underside - 0.03), (plate, plan.underside - 0.01), (plate, top)], 32)
    ]
    thick, start = rng.uniform(0.6, 1.4) * column, rng.choice([0.0, np.pi / count])
    rise = rng.uniform(0.08, 0.35) * plan.height if foot == "feet" else thick / 2
    for n in range(count):
        angle = start + n * 2 * np.pi / count
        out = np.array([np.sin(angle), 0, np.cos(angle)])
        if foot == "feet":
            path = np.array([[0, rise, 0], out * reach * 0.5 + [0, rise * rng.uniform(0.5, 0.9), 0], out * reach])
            path = path + [0, thick / 2, 0]
            parts.append(tube(rounded_path(path, 0.3), thick / 2, 10))
        else:
            parts.append(beam((0, rise, 0), out * reach + [0, rise, 0], (thick, thick), rng.uniform(0.6, 1), 4))
    return parts


def _column(rng: np.random.Generator, radius: float, low: float, high: float) -> list[tuple[float, float]]:
    """The profile of a straight or a turned column."""
    if rng.random() < 0.6:
        return [(radius, low), (radius * rng.uniform(0.7, 1.0), high)]
    heights = np.linspace(low, high, 10)
    return list(zip(radius * rng.uniform(0.5, 1.5, size=10), heights, strict=True))


def _twin_columns(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """A column, or two, at either end, each on a T-shaped foot; with a beam or a panel between them."""
    x, z = plan.reach
    x *= rng.uniform(0.75, 1.0)
    bar, foot = plan.bar * 1.2, rng.uniform(0.02, 0.06)
    spread = rng.choice([0.0, rng.uniform(0.2, 0.5)])
    parts = []
    for place in (-spread * z, spread * z)[: 2 if spread else 1]:
        parts.append(beam((x, 0, place), (x, plan.underside + plan.top / 2, place), (bar, bar), 1, plan.sides))
    parts.append(box((x - bar * 0.7, 0, -z), (x + bar * 0.7, foot, z), 0.004))
    if rng.random() < 0.6:
        parts.append(box((x - bar * 0.6, plan.underside - foot, -z), (x + bar * 0.6, plan.underside + 0.004, z), 0.004))
    parts += [mirrored(part) for part in parts]
    link = rng.choice(["none", "beam", "panel"])
    if link == "beam":
        y = rng.uniform(0.1, 0.85) * plan.underside
        parts.append(beam((-x, y, 0), (x, y, 0), (bar * 0.7, bar * 1.2)))
    elif link == "panel":
        parts.append(box((-x, plan.underside * rng.uniform(0.3, 0.7), -0.01), (x, plan.underside + 0.004, 0.01), 0.002))
    return parts


def _trestles(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """An A-shaped trestle below either end, or legs that cross."""
    x, z = plan.reach
    x, bar, top = x * rng.uniform(0.7, 0.95), plan.bar * 0.8, plan.underside + plan.top / 2
    crossed = rng.random() < 0.4
    near = -z if crossed else z * rng.uniform(0.05, 0.3)
    lean = rng.choice([0.0, rng.uniform(0, 0.15)]) * x
    parts = [beam((x - lean, top, near * s), (x + lean, 0, z * s), (bar, bar), 1, plan.sides) for s in (-1, 1)]
    parts.append(
        box((x - lean - bar / 2, plan.underside - bar, -z), (x - lean + bar / 2, plan.underside + 0.004, z), 0.002)
    )
    if not crossed:
        share = rng.uniform(0.25, 0.5)
        at = z + (near - z) * share
        parts.append(beam((x, share * top, -at), (x, share * top, at), (bar * 0.6, bar * 0.6)))
    parts += [mirrored(part) for part in parts]
    if rng.random() < 0.5:
        y = plan.underside * (0.5 if crossed else rng.uniform(0.15, 0.45))
        parts.append(beam((-x, y, 0), (x, y, 0), (bar * 0.6, bar * 0.8)))
    return parts


def _loops(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """A frame below either end: a closed rectangle, or hairpins."""
    x, z = plan.reach
    bar, top = plan.bar * rng.uniform(0.3, 0.8), plan.underside + plan.top / 2
    if rng.random() < 0.35:  # hairpins
        parts = []
        for c in corners():
            foot = np.array([x, bar / 2, z]) * c
            path = np.stack([foot * [0.97, 0, 0.8] + [0, top, 0], foot, foot * [0.8, 0, 0.97] + [0, top, 0]])
            parts.append(tube(rounded_path(path, 0.03), bar / 4 + 0.003, 8))
        return parts
    lean = rng.choice([0.0, rng.uniform(0.0, 0.1)])
    posts = [beam((x - lean, top, z * s), (x, bar / 2, z * s), (bar, bar)) for s in (-1, 1)]
    floor = beam((x, bar / 2, -z - bar / 2), (x, bar / 2, z + bar / 2), (bar, bar))
    parts = [*posts, floor]
    parts += [mirrored(part) for part in parts]
    if rng.random() < 0.3:
        parts.append(beam((-x, bar / 2, 0), (x, bar / 2, 0), (bar, bar)))
    return parts


BASES: dict[str, Callable[[np.random.Generator, TablePlan], list[Mesh]]] = {
    "legs": _legs,
    "pedestal": _pedestal,
    "columns": _twin_columns,
    "trestles": _trestles,
    "loops": _loops,
}
