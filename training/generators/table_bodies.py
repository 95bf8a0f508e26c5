"""Bodies below a table's top: panels, drums, open boxes, drawer units. Metres, y up, drawers open to the front, +z."""

from collections.abc import Callable

import numpy as np

from training.generators.solids import Mesh, beam, box, lathe, mirrored, rotated, translated
from training.generators.table_plan import TablePlan, corners


def _panels(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """Boards for legs, with a board at the back, a shelf, or nothing between them."""
    inset, thick = rng.choice([0.0, rng.uniform(0.0, 0.15)]), rng.uniform(0.012, 0.06)
    x, z = plan.width / 2 - inset, plan.depth / 2 - rng.choice([0.0, 0.03])
    side = box((x - thick, 0, -z), (x, plan.underside + plan.top / 2, z), 0.002)
    parts = [side, mirrored(side)]
    between = rng.choice(["none", "back", "shelf", "both"], p=(0.25, 0.35, 0.25, 0.15))
    if between in ("back", "both"):
        low = plan.underside * rng.choice([0.02, rng.uniform(0.2, 0.6)])
        rear = -z + rng.uniform(0, 0.3) * z
        parts.append(box((-x, low, rear), (x, plan.underside + 0.004, rear + 0.018), 0.002))
    if between in ("shelf", "both"):
        y = plan.underside * rng.uniform(0.12, 0.6)
        parts.append(box((-x, y, -z), (x, y + thick * 0.8, z), 0.002))
    return parts


def _drum(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """A solid body that reaches the floor, narrower than the top or as wide."""
    share = rng.choice([1.0, rng.uniform(0.35, 0.95)])
    x, z, top = share * plan.width / 2, share * plan.depth / 2, plan.underside + plan.top / 2
    low = rng.choice([0.0, rng.uniform(0.0, 0.1)])
    if plan.round:
        waist = rng.choice([1.0, rng.uniform(0.5, 1.1)])
        vertices, faces = lathe([(x, low), (x * waist, (low + top) / 2), (x, top)], 48)
        body = (vertices * [1, 1, plan.depth / plan.width], faces)
    else:
        body = box((-x, low, -z), (x, top, z), 0.004)
    if not low:
        return [body]
    return [
        body,
        *(
            beam((c[0] * x * 0.65, 0, c[2] * z * 0.65), (c[0] * x * 0.65, low + 0.01, c[2] * z * 0.65), (0.04, 0.04))
            for c in corners()
        ),
    ]


def _open_box(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """A box with an open front, as for a television, on legs or on the floor."""
    x, z, thick = plan.width / 2 - 0.004, plan.depth / 2 - 0.004, rng.uniform(0.012, 0.03)
    low = rng.choice([0.0, rng.uniform(0.05, 0.5)]) * plan.underside
    side = box((x - thick, low, -z), (x, plan.underside + 0.004, z), 0.001)
    parts = [side, mirrored(side), box((-x, low, -z), (x, low + thick, z), 0.001)]
    parts.append(box((-x, low, -z), (x, plan.underside + 0.004, -z + 0.01), 0.001))
    for wall in range(int(rng.integers(0, 3))):
        at = rng.uniform(-0.6, 0.6) * x if wall else 0.0
        parts.append(box((at - thick / 2, low, -z), (at + thick / 2, plan.underside + 0.004, z), 0.001))
    if low:
        bar = min(plan.bar, 0.05)
        parts += [
            beam(
                np.array([x - 0.04, low + 0.005, z - 0.04]) * c,
                np.array([x - 0.03, 0, z - 0.03]) * c,
                (bar, bar),
                0.8,
                plan.sides,
            )
            for c in corners()
        ]
    return parts


def _desk(rng: np.random.Generator, plan: TablePlan) -> list[Mesh]:
    """Drawers below one end, or both, and legs or a panel at the other."""
    x, z = plan.width / 2 - 0.01, plan.depth / 2 - rng.choice([0.01, 0.04])
    wide = min(rng.uniform(0.28, 0.5), 0.38 * plan.width)
    low = rng.choice([0.0, rng.uniform(0.03, 0.2), rng.uniform(0.4, 0.7) * plan.underside])
    parts = _drawer_unit(rng, plan, x - wide, x, low, z)
    other = rng.choice(["unit", "panel", "legs"], p=(0.25, 0.35, 0.4))
    if other == "unit":
        parts += [mirrored(part) for part in parts]
    elif other == "panel":
        parts.append(box((-x, 0, -z), (-x + rng.uniform(0.015, 0.04), plan.underside + 0.004, z), 0.002))
    bar = min(plan.bar, 0.07)
    ends = [end for end, wanted in ((-1, other == "legs"), (1, low > 0), (-1, other == "unit" and low > 0)) if wanted]
    for end in ends:
        for s in (-1, 1):
            place = (end * (x - bar / 2), s * (z - bar / 2))
            parts.append(
                beam((place[0], plan.underside + 0.004, place[1]), (place[0], 0, place[1]), (bar, bar), 1, plan.sides)
            )
            if end * x > 0 or other == "unit":  # the unit's inner legs
                inner = end * (x - wide + bar / 2)
                parts.append(beam((inner, low + 0.005, place[1]), (inner, 0, place[1]), (bar, bar), 1, plan.sides))
    if rng.random() < 0.5:
        parts.append(
            box((-x, plan.underside * rng.uniform(0.3, 0.75), -z), (x, plan.underside + 0.004, -z + 0.018), 0.002)
        )
    return parts if rng.random() < 0.5 else [mirrored(part) for part in parts]


def _drawer_unit(
    rng: np.random.Generator, plan: TablePlan, left: float, right: float, low: float, front: float
) -> list[Mesh]:
    """A body with drawer fronts and knobs."""
    parts = [box((left, low, -front), (right, plan.underside + 0.004, front), 0.002)]
    drawers = int(rng.integers(1, 5)) if plan.underside - low > 0.3 else 1
    pitch, proud = (plan.underside - low) / drawers, rng.choice([0.004, 0.015])
    for n in range(drawers):
        bottom = low + n * pitch
        parts.append(
            box(
                (left + 0.01, bottom + 0.01, front - 0.002), (right - 0.01, bottom + pitch - 0.01, front + proud), 0.002
            )
        )
        middle, y = (left + right) / 2, bottom + pitch * 0.6
        knob = lathe([(0.008, 0), (0.015, 0.02), (0.012, 0.03)], 12)
        parts.append(translated(rotated(knob, 0, 90), (middle, y, front + proud - 0.002)))
    return parts


BODIES: dict[str, Callable[[np.random.Generator, TablePlan], list[Mesh]]] = {
    "panels": _panels,
    "drum": _drum,
    "open box": _open_box,
    "desk": _desk,
}
