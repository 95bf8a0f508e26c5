"""Backs of chairs: framed, with ladders, spindles or crosses; padded; and moulded shells. Metres, y up, front +z."""

from collections.abc import Callable

import numpy as np

from training.generators.chair_plan import ChairPlan
from training.generators.solids import Mesh, beam, box, mirrored


def _uprights(plan: ChairPlan, inset: float, top: float) -> list[Mesh]:
    """The two posts of a framed back, from the seat's underside."""
    x = plan.width / 2 - plan.bar / 2 - inset
    foot, head = (x, plan.underside, plan.rear(-plan.thickness)), (x, plan.height + top, plan.rear(top))
    post = beam(foot, head, (plan.bar, plan.bar), 1.0, plan.sides)
    return [post, mirrored(post)]


def _slat(plan: ChairPlan, low: float, high: float, width: float, thickness: float, bow: float) -> Mesh:
    """A board across the back between two heights above the seat, bowed backwards by `bow` metres in its middle."""
    slat = box((-width / 2, low, -thickness / 2), (width / 2, high, thickness / 2), thickness * 0.4)
    vertices = slat[0].copy()
    share = 2 * vertices[:, 0] / width
    vertices[:, 2] += plan.rear(0) - plan.recline * vertices[:, 1] - bow * (1 - share**2)
    vertices[:, 1] += plan.height
    return vertices, slat[1]


def _framed(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """Posts with a ladder, spindles, a cross or a panel between them."""
    inset, top = rng.choice([0.0, rng.uniform(0, 0.04)]), plan.back
    parts = _uprights(plan, inset, top)
    width, bow = plan.width - 2 * inset - 0.4 * plan.bar, rng.choice([0.0, rng.uniform(0, 0.05)])
    thickness = plan.bar * rng.uniform(0.35, 0.8)
    fill = rng.choice(["ladder", "spindles", "cross", "panel", "rail"], p=[0.35, 0.3, 0.08, 0.17, 0.1])
    rail, lowest = rng.uniform(0.03, 0.11), rng.uniform(0.04, 0.35) * top
    if fill == "ladder":
        slats = int(rng.integers(2, 7))
        pitch = (top - lowest) / slats
        deep = pitch * rng.uniform(0.25, 0.75)
        parts += [_slat(plan, top - pitch * n - deep, top - pitch * n, width, thickness, bow) for n in range(slats)]
        return parts
    parts.append(_slat(plan, top - rail, top + rng.choice([0.0, 0.02]), width, thickness, bow))
    if fill == "panel":
        parts.append(_slat(plan, lowest, top - rail / 2, width, thickness * 0.8, bow))
    elif fill == "spindles":
        parts += _spindles(rng, plan, width, top - rail / 2, lowest if rng.random() < 0.5 else None, bow)
    elif fill == "cross":
        parts.append(_slat(plan, lowest, lowest + rail * 0.7, width, thickness, 0))
        x, low, high = width / 2, lowest + rail / 2, top - rail / 2
        for sign in (-1, 1):
            ends = [(sign * -x, plan.height + low, plan.rear(low)), (sign * x, plan.height + high, plan.rear(high))]
            parts.append(beam(ends[0], ends[1], (thickness, thickness)))
    else:
        parts.append(_slat(plan, max(lowest, 0.3 * top), max(lowest, 0.3 * top) + rail, width, thickness, bow))
    return parts


def _spindles(
    rng: np.random.Generator, plan: ChairPlan, width: float, top: float, rail: float | None, bow: float
) -> list[Mesh]:
    """Upright bars from the seat, or from a rail above it, to the top rail."""
    count, thickness = int(rng.integers(2, 9)), rng.uniform(0.008, 0.02)
    wide = rng.choice([1.0, rng.uniform(1, 3)]) if count < 6 else 1.0
    low, parts = 0.0, []
    if rail is not None:
        low = rail
        parts.append(_slat(plan, low, low + 0.035, width, thickness * 1.5, bow))
    for n in range(count):
        x = ((n + 1) / (count + 1) - 0.5) * width
        back = bow * (1 - (2 * x / width) ** 2)
        foot = (x, plan.height + low - 0.005, plan.rear(low) - (back if rail is not None else 0))
        parts.append(beam(foot, (x, plan.height + top, plan.rear(top) - back), (thickness * wide, thickness), 1, 8))
    return parts


def _padded(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """A pad held by one or two short posts, or growing from the seat; square, rounded or oval."""
    thickness = rng.uniform(0.012, 0.08)
    low = rng.choice([-0.02, rng.uniform(0.08, 0.5) * plan.back])
    width, bow = plan.width * rng.uniform(0.75, 1.05), rng.choice([0.0, rng.uniform(0.01, 0.09)])
    vertices, faces = _slat(plan, low, plan.back, width, thickness, bow)
    height = (vertices[:, 1] - plan.height - low) / (plan.back - low)
    taper = rng.choice([0.0, rng.uniform(-0.2, 0.4)])
    vertices[:, 0] *= 1 - taper * height
    if rng.random() < 0.35:  # an oval top
        share = np.clip(np.abs(2 * vertices[:, 0] / width), 0, 1)
        vertices[:, 1] -= rng.uniform(0.2, 0.5) * (plan.back - low) * (1 - np.sqrt(1 - 0.95 * share**2)) * height
    parts: list[Mesh] = [(vertices, faces)]
    if low > 0:
        posts = (0.0,) if rng.random() < 0.4 else (-0.3 * width, 0.3 * width)
        bar, reach = plan.bar * 0.7, low + 0.3 * (plan.back - low)
        for x in posts:
            bowed = bow * (1 - (2 * x / width) ** 2)
            foot, head = (
                (x, plan.underside, plan.rear(-plan.thickness)),
                (x, plan.height + reach, plan.rear(reach) - bowed),
            )
            parts.append(beam(foot, head, (bar, bar), 1.0, plan.sides))
    return parts


def _bucket(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """A moulded shell: the back wraps round the sides, and falls to the front where it may make arms."""
    rows, columns = 10, 25
    wrap = np.radians(rng.uniform(50, 140))  # to each side of the rear
    arm, thickness = rng.uniform(-0.05, 0.24), rng.uniform(0.008, 0.04)
    flare, sharp = rng.uniform(0.0, 0.25), rng.choice([1.0, 2.0, 4.0])
    angles = np.linspace(-wrap, wrap, columns)
    share = (np.cos(angles * np.pi / (2 * wrap)).clip(0)) ** (1 / sharp)
    top = np.maximum(arm, 0.03) + (plan.back - np.maximum(arm, 0.03)) * share  # (c,)
    shells = []
    for inset in (0.0, thickness):
        levels = np.linspace(0, 1, rows)[:, None] * (top + plan.thickness) - plan.thickness  # (r, c)
        grow = 1 + flare * (levels + plan.thickness) / plan.back
        x = np.sin(angles) * (plan.width / 2 - inset) * grow
        z = -np.cos(angles) * (plan.depth / 2 - inset) * grow - plan.recline * np.maximum(levels, 0) * np.cos(angles)
        shells.append(np.stack([x, plan.height + levels, z], axis=-1).reshape(-1, 3))
    return [_closed_sheet(shells[0], shells[1], rows, columns)]


def _closed_sheet(outer: np.ndarray, inner: np.ndarray, rows: int, columns: int) -> Mesh:
    """Two gridded sheets, (rows * columns, 3) each, joined along their borders."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    a = (r * columns + c).ravel()
    quads = np.concatenate([np.stack([a, a + columns, a + 1], 1), np.stack([a + 1, a + columns, a + columns + 1], 1)])
    grid = np.arange(rows * columns).reshape(rows, columns)
    border = np.concatenate([grid[0, :-1], grid[:-1, -1], grid[-1, :0:-1], grid[:0:-1, 0]])
    after, count = np.roll(border, -1), rows * columns
    rim = [np.stack([border, after, border + count], 1), np.stack([after, after + count, border + count], 1)]
    return np.concatenate([outer, inner]), np.concatenate([quads, quads[:, ::-1] + count, *rim])


BUILD_BACK: dict[str, Callable[[np.random.Generator, ChairPlan], list[Mesh]]] = {
    "framed": _framed,
    "padded": _padded,
    "bucket": _bucket,
}
