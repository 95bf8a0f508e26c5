"""Lamps: on tables and floors, on bent and jointed arms, hanging from a cord, at a wall; canonical axes, metres.

A lamp that hangs has its canopy, or the cord's end, at its top; what an arm reaches out to lies at the front (+z).
"""

import numpy as np

from training.generators.solids import Mesh, beam, box, disc, lathe, merge, rotated, rounded_path, translated, tube

SIDES = 32


def lamp(rng: np.random.Generator) -> Mesh:
    """Draw a lamp of any kind; its lowest point is at y = 0."""
    kind = rng.choice(["table", "floor", "arc", "jointed", "pendant", "chandelier", "wall"], p=KINDS)
    return {
        "table": table_lamp,
        "floor": floor_lamp,
        "arc": arc_lamp,
        "jointed": jointed_lamp,
        "pendant": pendant,
        "chandelier": chandelier,
        "wall": wall_lamp,
    }[kind](rng)


KINDS = (0.28, 0.2, 0.08, 0.14, 0.16, 0.07, 0.07)


def table_lamp(rng: np.random.Generator) -> Mesh:
    """Draw a turned or plain body with a shade."""
    height = rng.uniform(0.25, 0.7)
    shade_height = height * rng.uniform(0.3, 0.6)
    wide = rng.uniform(0.25, 0.5) * height
    stem = height - shade_height * rng.uniform(0.4, 1.0)
    if rng.random() < 0.5:  # a vase
        heights = np.linspace(0, stem, 12)
        radii = wide * rng.uniform(0.15, 0.7, size=4)
        body = lathe(list(zip(np.interp(heights, np.linspace(0, stem, 4), radii), heights, strict=True)), SIDES)
    else:
        thin = rng.uniform(0.006, 0.02)
        foot = wide * rng.uniform(0.4, 0.8)
        body = merge(disc(foot, rng.uniform(0.01, 0.04), 0.004, SIDES), _rod((0, 0.005, 0), (0, stem, 0), thin))
    rod = _rod((0, stem * 0.8, 0), (0, height - shade_height * 0.2, 0), 0.005)
    return merge(body, rod, translated(_shade(rng, wide, shade_height), (0, height - shade_height, 0)))


def floor_lamp(rng: np.random.Generator) -> Mesh:
    """Draw a tall stem on a disc or on three legs, with a shade or a bowl that throws its light upwards."""
    height, thin = rng.uniform(1.2, 1.9), rng.uniform(0.008, 0.025)
    wide = rng.uniform(0.12, 0.28)
    shade_height = wide * rng.uniform(0.7, 2.0)
    stem = height - shade_height * 0.4
    if rng.random() < 0.3:
        knee, reach, start = stem * rng.uniform(0.3, 1.0), rng.uniform(0.2, 0.35), rng.uniform(0, 2)
        feet = [np.array([np.sin(a), 0, np.cos(a)]) * reach for a in start + np.arange(3) * 2 * np.pi / 3]
        parts = [beam((0, knee, 0), foot, (thin * 2, thin * 2), 0.8, 10) for foot in feet]
        parts.append(_rod((0, knee - 0.03, 0), (0, stem, 0), thin))
    else:
        parts = [
            disc(rng.uniform(0.11, 0.18), rng.uniform(0.012, 0.05), 0.005, SIDES),
            _rod((0, 0.005, 0), (0, stem, 0), thin),
        ]
    if rng.random() < 0.2:
        dish = [
            (thin * 1.5, 0),
            (wide * 0.6, wide * 0.2),
            (wide, wide * 0.6),
            (wide * 0.96, wide * 0.6),
            (wide * 0.55, wide * 0.24),
            (0.005, 0.03),
        ]
        return merge(*parts, translated(lathe(dish, SIDES), (0, stem, 0)))
    return merge(*parts, translated(_shade(rng, wide, shade_height), (0, height - shade_height, 0)))


def arc_lamp(rng: np.random.Generator) -> Mesh:
    """Draw a stem that bends over to the front, with a shade hanging from its end."""
    height, reach, thin = rng.uniform(1.3, 2.1), rng.uniform(0.4, 1.3), rng.uniform(0.008, 0.02)
    rear = -reach * rng.uniform(0.3, 0.5)
    end = height - rng.uniform(0.05, 0.4)
    path = [(0, 0.01, rear), (0, height, rear), (0, height, rear + reach * 0.7), (0, end, rear + reach)]
    wide = rng.uniform(0.1, 0.24)
    shade_height = wide * rng.uniform(0.6, 1.4)
    stem = tube(rounded_path(np.array(path), rng.uniform(0.2, 0.8), 9), thin, 10)
    foot = translated(disc(rng.uniform(0.13, 0.2), rng.uniform(0.015, 0.06), 0.005, SIDES), (0, 0, rear))
    return merge(stem, foot, translated(_shade(rng, wide, shade_height), (0, end - shade_height * 0.9, rear + reach)))


def jointed_lamp(rng: np.random.Generator) -> Mesh:
    """Draw a desk lamp of two arms and a tilted reflector; single or twin rods."""
    lower, upper = rng.uniform(0.2, 0.45), rng.uniform(0.2, 0.45)
    lean, rise, thin = rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.9), rng.uniform(0.004, 0.012)
    elbow = np.array([0, 0.02 + lower * np.cos(lean), -lower * np.sin(lean)])
    head = elbow + [0, upper * np.sin(rise), upper * np.cos(rise)]
    parts = [disc(rng.uniform(0.07, 0.12), rng.uniform(0.012, 0.04), 0.004, SIDES)]
    offsets = (-0.012, 0.012) if rng.random() < 0.4 else (0.0,)
    for x in offsets:
        parts += [_rod((x, 0.01, 0), elbow + [x, 0, 0], thin), _rod(elbow + [x, 0, 0], head + [x, 0, 0], thin)]
    joint = rotated(lathe([(0.015, -0.02), (0.015, 0.02)], 14), 2, 90)
    parts += [translated(joint, elbow), translated(joint, head)]
    wide = rng.uniform(0.05, 0.1)
    shade_height = wide * rng.uniform(0.9, 1.8)
    reflector = translated(
        _shell([(wide, -shade_height), (wide * 0.5, -0.3 * shade_height), (0.02, 0)], 0.004), (0, 0.01, 0)
    )
    return _grounded(merge(*parts, translated(rotated(reflector, 0, rng.uniform(-60, 10)), head)))


def pendant(rng: np.random.Generator) -> Mesh:
    """Draw a shade, globe or bell on a cord below a canopy."""
    wide, cord = rng.uniform(0.08, 0.35), rng.uniform(0.15, 1.0)
    shade_height = wide * rng.uniform(0.5, 2.0)
    top = shade_height + cord
    parts = [_rod((0, shade_height * 0.85, 0), (0, top, 0), rng.uniform(0.003, 0.008))]
    if rng.random() < 0.8:
        parts.append(translated(disc(rng.uniform(0.04, 0.08), 0.025, 0.004, 24), (0, top - 0.02, 0)))
    kind = rng.choice(["shade", "globe", "bell"])
    if kind == "globe":
        angles = np.linspace(0, np.pi, 20)
        half = shade_height / 2
        parts.append(lathe([(max(wide * np.sin(a), 1e-3), half - half * np.cos(a)) for a in angles], SIDES))
    elif kind == "bell":
        heights = np.linspace(0, 1, 12)
        radii = wide * np.clip(1 - heights ** rng.uniform(1.2, 4), 0.08, 1)
        parts.append(_shell(list(zip(radii, heights * shade_height, strict=True)), 0.004))
        parts.append(_rod((0, shade_height * 0.5, 0), (0, shade_height, 0), 0.02))
    else:
        parts.append(_shade(rng, wide, shade_height))
    return merge(*parts)


def chandelier(rng: np.random.Generator) -> Mesh:
    """Draw a column with bent arms, each with a small shade or a candle, hanging from a rod."""
    count, reach, drop = int(rng.integers(3, 9)), rng.uniform(0.2, 0.45), rng.uniform(0.05, 0.25)
    top = rng.uniform(0.4, 1.0)
    heights = np.linspace(0, 0.25, 8)
    parts = [
        lathe(list(zip(rng.uniform(0.01, 0.05, size=8), heights, strict=True)), 20),
        _rod((0, 0.2, 0), (0, top, 0), 0.008),
    ]
    parts.append(translated(disc(0.06, 0.025, 0.004, 24), (0, top - 0.02, 0)))
    candle, wide = rng.random() < 0.5, rng.uniform(0.04, 0.09)
    shade = _shade(rng, wide, wide * 1.4)
    for n in range(count):
        angle = np.pi / 2 + n * 2 * np.pi / count
        out = np.array([np.cos(angle), 0, np.sin(angle)])
        path = np.stack([[0, 0.12, 0], out * reach * 0.6 + [0, 0.12 - drop, 0], out * reach + [0, 0.12, 0]])
        parts.append(tube(rounded_path(path, 0.3, 9), 0.007, 8))
        end = out * reach + [0, 0.12, 0]
        parts.append(_rod(end, end + [0, 0.1, 0], 0.012) if candle else translated(shade, end - [0, 0.01, 0]))
    return _grounded(merge(*parts))


def wall_lamp(rng: np.random.Generator) -> Mesh:
    """Draw a plate at the back with an arm to the front and a shade."""
    out, wide = rng.uniform(0.1, 0.3), rng.uniform(0.05, 0.13)
    shade_height = wide * rng.uniform(0.9, 2.0)
    plate = box((-0.05, -0.08, 0), (0.05, 0.08, 0.02), 0.004)
    rise = rng.uniform(-0.05, 0.12)
    arm = tube(rounded_path(np.array([(0, 0, 0.01), (0, 0, out), (0, rise + 0.06, out)]), 0.05), 0.008, 10)
    return _grounded(merge(plate, arm, translated(_shade(rng, wide, shade_height), (0, rise, out))))


def _rod(start: np.ndarray | tuple, end: np.ndarray | tuple, radius: float) -> Mesh:
    return beam(np.asarray(start, float), np.asarray(end, float), (2 * radius, 2 * radius), 1.0, 12)


def _shade(rng: np.random.Generator, wide: float, height: float) -> Mesh:
    """A cone, drum or dome open below and above, from y = 0 up, with the cross bars that hold it."""
    narrow = wide * rng.choice([1.0, rng.uniform(0.35, 0.95), rng.uniform(1.0, 1.2)])
    bulge = rng.choice([0.0, 0.0, rng.uniform(-0.15, 0.2)]) * wide
    levels = np.linspace(0, 1, 9 if bulge else 2)
    radii = wide + (narrow - wide) * levels + bulge * 4 * levels * (1 - levels)
    shell = _shell(list(zip(radii, levels * height, strict=True)), rng.uniform(0.003, 0.008))
    bar, at = 0.004, 0.8 * height
    radius = float(np.interp(0.8, levels, radii))
    return merge(
        shell, beam((-radius, at, 0), (radius, at, 0), (bar, bar)), beam((0, at, -radius), (0, at, radius), (bar, bar))
    )


def _shell(profile: list[tuple[float, float]], wall: float) -> Mesh:
    """A turned wall of some thickness, open at both ends."""
    radii, heights = np.array(profile).T
    inner = np.maximum(radii - wall, 1e-3)
    angles = np.arange(SIDES) * (2 * np.pi / SIDES)
    loop = np.concatenate([np.stack([radii, heights], 1), np.stack([inner, heights], 1)[::-1]])  # (p, 2)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)  # (s, 2)
    flat = loop[:, None, :1] * ring[None]  # (p, s, 2)
    level = np.broadcast_to(loop[:, 1:, None], (len(loop), SIDES, 1))
    vertices = np.concatenate([flat[..., :1], level, flat[..., 1:]], axis=-1).reshape(-1, 3)
    row, side = np.meshgrid(np.arange(len(loop)), np.arange(SIDES), indexing="ij")
    a, b = row * SIDES + side, row * SIDES + (side + 1) % SIDES
    c, d = (row + 1) % len(loop) * SIDES + side, (row + 1) % len(loop) * SIDES + (side + 1) % SIDES
    quads = [np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)]
    return vertices, np.concatenate(quads)


def _grounded(mesh: Mesh) -> Mesh:
    return translated(mesh, (0, -mesh[0][:, 1].min(), 0))
