"""Beds with mattress, pillows and blanket: frames, boxes, posts, bunks; canonical axes, the foot end at +z, metres."""

import numpy as np

from training.generators.solids import Mesh, beam, box, merge, mirrored, translated


def bed(rng: np.random.Generator) -> Mesh:
    """Draw a bed for one or two, or a bunk bed; y up, its head at -z, standing on y = 0."""
    double = rng.random() < 0.6
    width = rng.uniform(1.3, 2.0) if double else rng.uniform(0.8, 1.1)
    length = rng.uniform(1.85, 2.2)
    if not double and rng.random() < 0.2:
        return _bunk(rng, width, length)
    frame_top, low = rng.uniform(0.2, 0.45), rng.choice([0.0, rng.uniform(0.06, 0.25)])
    bar = rng.uniform(0.04, 0.1)
    x, z = width / 2, length / 2
    parts = [box((-x, min(low, frame_top - 0.1), -z), (x, frame_top, z), rng.uniform(0.002, 0.03))]
    head = frame_top + rng.uniform(0.2, 0.9)
    parts += _headboard(rng, x, -z, head, bar)
    if rng.random() < 0.35:
        parts += _headboard(rng, x, z + bar, frame_top + rng.uniform(0.1, 0.4), bar)
    if low:
        parts += _legs(rng, x - bar / 2, z - bar / 2, low + 0.02, bar)
    if rng.random() < 0.06:
        parts += _legs(rng, x - bar / 2, z - bar / 2, rng.uniform(1.6, 2.1), bar)  # four posts
    return merge(*parts, *_bedding(rng, x, z, frame_top, double))


def _bedding(rng: np.random.Generator, x: float, z: float, top: float, double: bool) -> list[Mesh]:
    """A mattress; pillows at its head and a blanket over its foot on most."""
    inset, thick = rng.uniform(0, 0.05), rng.uniform(0.1, 0.3)
    x, z, above = x - inset, z - inset, top + thick
    parts = [box((-x, top - 0.04, -z), (x, above, z), rng.uniform(0.02, 0.09), (0, rng.uniform(0, 0.03), 0))]
    if rng.random() < 0.75:
        places = (-x / 2, x / 2) if double else (0.0,)
        wide = min((x if double else 2 * x) * rng.uniform(0.75, 0.95), 0.8)
        deep, high = rng.uniform(0.3, 0.5), rng.uniform(0.07, 0.14)
        for place in places:
            low = np.array([place - wide / 2, above - 0.02, -z + 0.03])
            parts.append(box(low, low + [wide, high, deep], 0.45 * high, (0, 0.4 * high, 0)))
    if rng.random() < 0.6:
        out, start = rng.uniform(0.01, 0.05), rng.uniform(-0.6, 0.2) * z
        drop = rng.uniform(0.3, 1.0) * thick
        parts.append(box((-x - out, above - drop, start), (x + out, above + 0.03, z + out), 0.03, (0, 0.02, 0)))
    return parts


def _headboard(rng: np.random.Generator, x: float, z: float, top: float, bar: float) -> list[Mesh]:
    """A panel, a padded or arched one, or bars between two posts; its front is at z."""
    kind = rng.choice(["panel", "padded", "arched", "slats", "rails"], p=(0.35, 0.2, 0.12, 0.18, 0.15))
    thick = bar if kind != "padded" else rng.uniform(0.08, 0.16)
    if kind in ("panel", "padded", "arched"):
        wide = x + rng.choice([0.0, rng.uniform(0, 0.25)])
        vertices, faces = box((-wide, 0, z - thick), (wide, top, z + 0.01), 0.4 * thick if kind == "padded" else 0.004)
        if kind == "arched":
            vertices[:, 1] *= 1 - rng.uniform(0.1, 0.35) * (vertices[:, 0] / wide) ** 2
        return [(vertices, faces)]
    middle = z - bar / 2
    post = beam((x - bar / 2, 0, middle), (x - bar / 2, top, middle), (bar, bar), 1, int(rng.choice([4, 12])))
    parts = [post, mirrored(post), beam((-x, top - bar / 2, middle), (x, top - bar / 2, middle), (bar, bar * 0.7))]
    low = 0.4 * top
    if kind == "slats":
        count = int(rng.integers(4, 14))
        parts.append(beam((-x, low, middle), (x, low, middle), (bar * 0.7, bar * 0.7)))
        for place in np.linspace(-x, x, count + 2)[1:-1]:
            parts.append(beam((place, low, middle), (place, top - bar / 2, middle), (bar * 0.4, bar * 0.4), 1, 8))
    else:
        for level in np.linspace(low, top, int(rng.integers(2, 5)) + 1)[:-1]:
            parts.append(
                box((-x, level, middle - bar * 0.2), (x, level + 0.4 * (top - low) / 3, middle + bar * 0.2), 0.003)
            )
    return parts


def _legs(rng: np.random.Generator, x: float, z: float, top: float, bar: float) -> list[Mesh]:
    sides = int(rng.choice([4, 12]))
    return [
        beam((a * x, top, b * z), (a * x, 0, b * z), (bar, bar), rng.uniform(0.6, 1), sides)
        for a in (-1, 1)
        for b in (-1, 1)
    ]


def _bunk(rng: np.random.Generator, width: float, length: float) -> Mesh:
    """Two beds above one another on four posts, with rails and a ladder on one side."""
    x, z, bar = width / 2, length / 2, rng.uniform(0.04, 0.08)
    lower, upper = rng.uniform(0.25, 0.4), rng.uniform(1.2, 1.5)
    top = upper + rng.uniform(0.3, 0.5)
    parts = _legs(rng, x - bar / 2, z - bar / 2, top, bar)
    for level in (lower, upper):
        parts.append(box((-x, level - 0.1, -z), (x, level, z), 0.004))
        parts += _bedding(rng, x, z, level, False)
    for level in np.linspace(upper + 0.15, top, 2):
        for end in (-z + bar / 2, z - bar / 2):
            parts.append(beam((-x, level - bar / 2, end), (x, level - bar / 2, end), (bar * 0.6, bar * 0.6)))
        rail = beam((x - bar / 2, level - bar / 2, -z), (x - bar / 2, level - bar / 2, z), (bar * 0.6, bar * 0.6))
        parts += [rail, mirrored(rail)]
    at, side = rng.choice([-1, 1]) * (z - 0.3), rng.choice([-1, 1])
    ladder = [beam((x + 0.02, 0, at + d), (x + 0.02, top, at + d), (0.03, 0.04)) for d in (-0.18, 0.18)]
    ladder += [
        beam((x + 0.02, y, at - 0.18), (x + 0.02, y, at + 0.18), (0.03, 0.03)) for y in np.arange(0.25, upper, 0.28)
    ]
    made = merge(*parts, *ladder)
    return translated(made if side > 0 else mirrored(made), (0, 0, 0))
