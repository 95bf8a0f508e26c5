"""Bottles, mugs and bowls as turned profiles, hollow where they are open; canonical axes, y up, metres.

A mug's handle points to the front (+z), so that it is symmetric across x = 0.
"""

import numpy as np
from scipy.interpolate import PchipInterpolator

from training.generators.solids import Mesh, lathe, merge, rounded_path, translated, tube

SIDES = 40


def bottle(rng: np.random.Generator) -> Mesh:
    """Draw a bottle or flask, closed by a cap or with an open neck; some with square bodies."""
    height, slim = rng.uniform(0.12, 0.36), rng.uniform(0.13, 0.3)
    body, neck = height * slim, height * slim * rng.uniform(0.22, 0.6)
    shoulder = rng.uniform(0.45, 0.8)  # where the body ends, share of the height
    throat = min(shoulder + rng.uniform(0.05, 0.25), 0.93)  # where the neck begins
    waist = rng.choice([1.0, 1.0, rng.uniform(0.75, 1.1)])
    foot = rng.choice([1.0, rng.uniform(0.75, 1.0)])
    knots = [0.0, 0.03, 0.45 * shoulder, shoulder, (shoulder + throat) / 2, throat, 1.0]
    middle = neck + (body - neck) * rng.uniform(0.35, 0.85)
    radii = [foot * body * 0.93, foot * body, waist * body, body, middle, neck, neck * rng.uniform(0.85, 1.0)]
    levels = np.linspace(0, 1, 36)
    outer = PchipInterpolator(knots, radii)(levels)
    profile = list(zip(outer, levels * height, strict=True))
    kind = rng.choice(["cap", "open", "stopper"], p=(0.5, 0.35, 0.15))
    parts = []
    if kind == "open":
        lip = neck * rng.uniform(1.05, 1.3)
        profile += [(lip, height), (lip, height * 1.02)]
        parts.append(lathe(_hollow(profile, rng.uniform(0.001, 0.003), floor=0.006), SIDES))
    else:
        parts.append(lathe(profile, SIDES))
        wide, tall = neck * rng.uniform(1.05, 1.5), height * rng.uniform(0.04, 0.13)
        if kind == "cap":
            parts.append(lathe([(wide, height - tall * 0.4), (wide, height + tall * 0.6)], SIDES))
        else:
            levels = np.linspace(0, np.pi, 9)
            ball = [(max(wide * np.sin(a), 1e-4), height + wide * (1 - np.cos(a)) - 0.002) for a in levels]
            parts.append(lathe(ball, SIDES))
    made = merge(*parts)
    if rng.random() < 0.25:
        made = _squared(made, neck * 1.3, rng.uniform(3, 8), rng.choice([1.0, rng.uniform(0.5, 0.9)]))
    return made


def mug(rng: np.random.Generator) -> Mesh:
    """Draw a mug or cup, most with a handle at the front, some on a saucer."""
    height = rng.uniform(0.055, 0.14)
    radius = height * rng.uniform(0.32, 0.8)
    wall = rng.uniform(0.002, 0.006)
    foot, waist = rng.choice([1.0, rng.uniform(0.5, 1.0)]), rng.choice([1.0, rng.uniform(0.85, 1.2)])
    knots = [0.0, 0.06, 0.5, 1.0]
    radii = [foot * radius * 0.92, foot * radius, waist * radius * (foot + 1) / 2, radius]
    levels = np.linspace(0, 1, 24)
    outer = PchipInterpolator(knots, radii)(levels)
    parts = [lathe(_hollow(list(zip(outer, levels * height, strict=True)), wall, floor=1.5 * wall), SIDES)]
    if rng.random() < 0.8:
        parts.append(_handle(rng, height, levels, outer, wall))
    if rng.random() < 0.12:
        wide = radius * rng.uniform(1.5, 2.2)
        saucer = [
            (radius * 0.6, 0),
            (wide * 0.7, 0.004),
            (wide, 0.016),
            (wide, 0.019),
            (wide * 0.7, 0.008),
            (0.01, 0.005),
        ]
        parts = [*(translated(part, (0, 0.004, 0)) for part in parts), lathe(saucer, SIDES)]
    return merge(*parts)


def bowl(rng: np.random.Generator) -> Mesh:
    """Draw a bowl, deep or flat, on a foot ring or none, with a straight, flared or drawn-in rim."""
    radius = rng.uniform(0.05, 0.2)
    height = radius * rng.uniform(0.3, 1.3)
    foot = radius * rng.uniform(0.25, 0.7)
    ring = rng.choice([0.0, rng.uniform(0.02, 0.12)]) * height
    power, rim = rng.uniform(0.3, 1.1), rng.choice([1.0, rng.uniform(0.85, 1.15)])
    levels = np.linspace(0, 1, 28)
    outer = foot + (radius - foot) * levels**power
    outer = outer * (1 + (rim - 1) * np.clip((levels - 0.7) / 0.3, 0, 1))
    profile = list(zip(outer, ring + levels * (height - ring), strict=True))
    if ring:
        profile = [(foot * 0.95, 0.0), (foot * 0.92, ring * 0.9), *profile[1:]]
    wall = rng.uniform(0.002, 0.008)
    made = lathe(_hollow(profile, wall, floor=ring + 1.5 * wall), SIDES)
    if rng.random() < 0.12:  # fluted, or square
        made = _squared(made, 0.0, rng.uniform(2.5, 5), 1.0)
    return made


def _hollow(profile: list[tuple[float, float]], wall: float, floor: float) -> list[tuple[float, float]]:
    """A profile that goes up outside and down again inside, `wall` metres further in, to a floor at a height."""
    outer = np.array(profile)  # (p, 2)
    along = np.gradient(outer, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    inner = (outer - wall * np.stack([along[:, 1], -along[:, 0]], axis=1))[::-1]
    inner[0, 1] = outer[-1, 1]  # a level rim
    inner = inner[(inner[:, 1] > floor) & (inner[:, 0] > 2e-3)]
    return [*profile, *map(tuple, inner), (max(inner[-1, 0], 2e-3), floor), (1e-3, floor)]


def _handle(rng: np.random.Generator, height: float, levels: np.ndarray, outer: np.ndarray, wall: float) -> Mesh:
    """A bent bar at the front, whose ends stick in the wall."""
    low, high = rng.uniform(0.12, 0.35), rng.uniform(0.7, 0.92)
    out = rng.uniform(0.22, 0.45) * height
    start, end = (np.interp(level, levels, outer) - wall / 2 for level in (high, low))
    far = max(start, end) + out
    shape = rng.choice(["ear", "square", "ring"])
    corners = {
        "ear": [(high, start), (high + 0.04, far), (0.4 * high + 0.6 * low, 0.97 * far), (low, end)],
        "square": [(high, start), (high, far), (low, far), (low, end)],
        "ring": [(high, start), (high, far), ((high + low) / 2, far * 1.02), (low, far), (low, end)],
    }[shape]
    path = np.array([(0.0, level * height, z) for level, z in corners])
    thickness = rng.uniform(0.05, 0.1) * height
    bend = thickness if shape == "square" else out
    vertices, faces = tube(rounded_path(path, max(bend, 0.01), 7), thickness / 2, 12)
    return vertices * [rng.uniform(0.9, 2.0), 1, 1], faces


def _squared(mesh: Mesh, above: float, power: float, depth: float) -> Mesh:
    """Make the round sections that are wider than `above` metres superelliptic: square with rounded corners."""
    vertices = mesh[0].copy()
    flat = vertices[:, [0, 2]]
    radius = np.linalg.norm(flat, axis=1)
    share = np.clip((radius - above) / max(0.3 * above, 1e-6), 0, 1) if above else np.ones(len(flat))
    unit = flat / np.maximum(radius, 1e-9)[:, None]
    stretch = 1 / np.maximum((np.abs(unit) ** power).sum(1), 1e-9) ** (1 / power)
    factor = 1 + share * (stretch - 1) * 0.9
    vertices[:, [0, 2]] = flat * factor[:, None]
    vertices[:, 2] *= 1 + (depth - 1) * share
    return vertices, mesh[1]
