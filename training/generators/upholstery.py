"""Upholstered seats drawn from rounded boxes: block armchairs, club, wing and tub chairs, and sofas of any length.

Infinigen's armchairs all stand on one frame; those that people model are mostly solid blocks that reach the floor.
Canonical axes: y up, front +z, the seat's middle at x = 0; metres.
"""

from dataclasses import dataclass

import numpy as np

from training.generators.solids import Mesh, beam, box, lathe, merge, mirrored, rotated, translated, wall

# Thinnest and thickest seat cushion, metres; the base ends within the thinnest, so that none floats above it.
CUSHION = 0.1, 0.22
# Narrowest room between two arms, metres: someone sits there.
INNER = 0.42


@dataclass(frozen=True)
class Seat:
    """The measures of one upholstered seat, metres."""

    width: float
    """between the arms' outer sides"""
    depth: float
    """from the back's rear to the seat's front"""
    seat_height: float
    """of the cushion's top"""
    arm_width: float
    """0 without arms"""
    arm_height: float
    """of the arms' top, above the floor"""
    back_height: float
    """of the back's top, above the floor"""
    back_thickness: float
    """measured across its middle"""
    clearance: float
    """of the underside, above the floor; 0 where the seat is a block"""
    radius: float
    """of all rounded edges"""
    arms: str
    """block, rolled, sloping, or open: a slab on a post"""


def armchair(rng: np.random.Generator) -> Mesh:
    """Draw an upholstered chair for one: a block, on legs or a plinth, with wings, or a tub; some without arms."""
    if rng.random() < 0.2:
        return tub_chair(rng)
    seat = _draw_seat(rng, rng.uniform(0.6, 1.15), armless=0.18)
    parts = [*_frame(rng, seat), *_cushions(rng, seat, 1)]
    if seat.arm_width and rng.random() < 0.15:
        parts += _wings(rng, seat)
    return merge(*parts)


def sofa(rng: np.random.Generator) -> Mesh:
    """Draw a sofa for two to four, some with a chaise on one side, some a bench without arms."""
    width = rng.uniform(1.25, 2.7)
    seat = _draw_seat(rng, width, armless=0.1)
    places = max(1, round((width - 2 * seat.arm_width) / rng.uniform(0.55, 0.85)))
    if rng.random() < 0.2:
        places = 1  # a single long cushion
    parts = [*_frame(rng, seat), *_cushions(rng, seat, places)]
    if rng.random() < 0.2 and width > 1.7:
        parts += _chaise(rng, seat)
    return merge(*parts)


def tub_chair(rng: np.random.Generator) -> Mesh:
    """Draw a chair whose back and arms are one curved wall about a round seat."""
    radius, seat_height = rng.uniform(0.3, 0.45), rng.uniform(0.36, 0.48)
    clearance = rng.choice([0.0, rng.uniform(0.05, 0.25)])
    opening = np.radians(rng.uniform(35, 75))  # to each side of the front
    angles = np.linspace(opening, 2 * np.pi - opening, 49)
    path = np.stack([np.sin(angles), np.cos(angles) * rng.uniform(0.85, 1.1)], axis=1) * radius
    arm, back = seat_height + rng.uniform(0.08, 0.25), seat_height + rng.uniform(0.25, 0.5)
    share = ((1 - np.cos(angles)) / 2) ** rng.choice([0.0, 1.0, 3.0])  # level, sloping, or a high back
    bottom = np.full(len(path), clearance if rng.random() < 0.7 else max(clearance, seat_height - 0.12))
    shell = wall(path, rng.uniform(0.05, 0.16), bottom, arm + (max(back, arm) - arm) * share)
    rounding = rng.uniform(0.01, 0.04)
    inside = radius * rng.uniform(0.95, 1.02)
    profile = [(inside, clearance), (inside, seat_height - rounding), (inside - rounding, seat_height)]
    parts = [shell, lathe(profile, 48)]
    if clearance:
        parts += _legs(rng, 1.3 * radius, 1.3 * radius, clearance)
    return merge(*parts)


def _draw_seat(rng: np.random.Generator, width: float, armless: float) -> Seat:
    seat_height = rng.uniform(0.32, 0.5)
    with_arms = rng.random() >= armless
    arms = rng.choice(["block", "rolled", "open", "sloping"], p=[0.5, 0.2, 0.12, 0.18])
    widest = min(0.1 if arms == "open" else 0.3, (width - INNER) / 2)
    arm_width = rng.uniform(0.06, widest) if with_arms else 0.0
    back_height = seat_height + rng.uniform(0.2, 0.62)
    arm_height = min(seat_height + rng.uniform(0.06, 0.3), back_height)
    if arms != "open" and rng.random() < 0.15:
        arm_height = back_height  # a cube, all of one height
    clearance = 0.0 if rng.random() < 0.5 else rng.uniform(0.03, 0.2)
    return Seat(
        width=width,
        depth=rng.uniform(0.62, 1.05),
        seat_height=seat_height,
        arm_width=arm_width,
        arm_height=arm_height,
        back_height=back_height,
        back_thickness=rng.uniform(0.08, 0.28),
        clearance=clearance,
        radius=float(np.exp(rng.uniform(np.log(0.003), np.log(0.07)))),
        arms=arms,
    )


def _frame(rng: np.random.Generator, seat: Seat) -> list[Mesh]:
    """Base, back, arms, and what the base stands on; the back's rear is at -depth / 2."""
    rear, front = -seat.depth / 2, seat.depth / 2
    inner = seat.width / 2 - seat.arm_width
    base_top = seat.seat_height - (0.0 if rng.random() < 0.3 else rng.uniform(0.04, CUSHION[0]))
    low = seat.clearance
    parts = [box((-inner - 0.01, low, rear), (inner + 0.01, max(base_top, low + 0.06), front), seat.radius)]
    across = seat.width / 2 if rng.random() < 0.5 else inner + 0.005
    back = box((-across, low, rear), (across, seat.back_height, rear + seat.back_thickness), seat.radius)
    recline = rng.choice([0.0, rng.uniform(2, 18)])
    parts.append(_lean(back, base_top, recline))
    if seat.arm_width:
        arm = _arm(rng, seat, inner, front - (0.0 if rng.random() < 0.6 else rng.uniform(0.02, 0.2)))
        parts += [arm, mirrored(arm)]
    if low:
        if rng.random() < 0.25:
            inset = rng.uniform(0.02, 0.1)
            wide, deep = seat.width / 2 - inset, seat.depth / 2 - inset
            parts.append(box((-wide, 0, -deep), (wide, low + 0.02, deep), 0.005))
        else:
            # An open arm stands on a post of its own.
            parts += _legs(rng, 2 * inner if seat.arms == "open" else seat.width, seat.depth, low)
    return parts


def _lean(mesh: Mesh, above: float, degrees: float) -> Mesh:
    """Shear what is above a height backwards, so that a back still stands where it stood."""
    vertices = mesh[0].copy()
    vertices[:, 2] -= np.tan(np.radians(degrees)) * np.maximum(vertices[:, 1] - above, 0)
    return vertices, mesh[1]


def _arm(rng: np.random.Generator, seat: Seat, inner: float, front: float) -> Mesh:
    """The arm on the +x side: a block, one with a rolled top, a slab on a post, or one that slopes to the front."""
    rear, outer = -seat.depth / 2 + rng.uniform(0, 0.5) * seat.back_thickness, seat.width / 2
    if seat.arms == "open":
        thickness = rng.uniform(0.03, 0.08)
        top = box((inner, seat.arm_height - thickness, rear), (outer, seat.arm_height, front), seat.radius)
        middle = (inner + outer) / 2
        width = min(0.06, seat.arm_width)
        post = beam((middle, 0, front - 0.06), (middle, seat.arm_height - thickness / 2, front - 0.06), (width, 0.05))
        return merge(top, post)
    block = box((inner, seat.clearance, rear), (outer, seat.arm_height, front), seat.radius)
    if seat.arms == "rolled":
        radius = min(seat.arm_width * rng.uniform(0.55, 0.75), 0.16)
        length = front - rear
        roll = lathe([(radius * 0.9, 0), (radius, 0.02), (radius, length - 0.02), (radius * 0.9, length)], 24)
        roll = rotated(roll, 0, 90)  # y -> z
        return merge(block, translated(roll, ((inner + outer) / 2, seat.arm_height - radius * 0.5, rear)))
    if seat.arms == "sloping":
        vertices = block[0].copy()
        drop = rng.uniform(0.2, 0.7) * (seat.arm_height - seat.seat_height)
        share = (vertices[:, 2] - rear) / (front - rear)
        upper = (vertices[:, 1] - seat.clearance) / (seat.arm_height - seat.clearance)
        vertices[:, 1] -= drop * share * upper
        return vertices, block[1]
    return block


def _cushions(rng: np.random.Generator, seat: Seat, places: int) -> list[Mesh]:
    """Seat cushions side by side and, on most, back cushions."""
    parts = []
    inner = seat.width / 2 - seat.arm_width
    rear, front = -seat.depth / 2 + seat.back_thickness * 0.9, seat.depth / 2 + rng.uniform(-0.03, 0.04)
    thickness, bulge = rng.uniform(*CUSHION), rng.uniform(0, 0.035)
    radius = rng.uniform(0.01, 0.45) * thickness
    back_top = seat.back_height + rng.uniform(-0.15, 0.08)
    deep = rng.uniform(0.08, 0.2)
    with_back = rng.random() < 0.55 and back_top > seat.seat_height + 0.15
    lean = rng.uniform(0, 15)
    wide = 2 * inner / places
    for place in range(places):
        left = -inner + place * wide
        low = (left + 0.003, seat.seat_height - thickness, rear)
        parts.append(box(low, (left + wide - 0.003, seat.seat_height, front), radius, (0, bulge, 0)))
        if with_back:
            cushion = box(
                (left + 0.006, seat.seat_height - 0.01, rear - 0.02),
                (left + wide - 0.006, back_top, rear + deep),
                radius,
                (0, 0, bulge),
            )
            parts.append(rotated(cushion, 0, -lean, (0, seat.seat_height, rear)))
    return parts


def _wings(rng: np.random.Generator, seat: Seat) -> list[Mesh]:
    """The side panels of a wing chair, from the arms up along the back."""
    inner, rear = seat.width / 2 - seat.arm_width - 0.005, -seat.depth / 2
    outer = inner + min(seat.arm_width, rng.uniform(0.04, 0.1))
    front = rear + seat.back_thickness + rng.uniform(0.1, 0.3)
    wing = box((inner, seat.seat_height - 0.05, rear), (outer, seat.back_height, front), seat.radius)
    return [wing, mirrored(wing)]


def _chaise(rng: np.random.Generator, seat: Seat) -> list[Mesh]:
    """A longer seat at one end of a sofa."""
    side = rng.choice([-1, 1])
    outer = seat.width / 2 - rng.choice([0.0, seat.arm_width])
    wide = rng.uniform(0.55, 0.8)
    front = seat.depth / 2 + rng.uniform(0.35, 0.8)
    base = box((outer - wide, seat.clearance, 0), (outer, seat.seat_height - 0.05, front), seat.radius)
    pad = box((outer - wide, seat.seat_height - 0.12, 0), (outer, seat.seat_height, front), 0.03)
    parts = [base, pad]
    if seat.clearance:
        leg = outer - wide / 2
        parts.append(beam((leg, 0, front - 0.1), (leg, seat.clearance + 0.01, front - 0.1), (0.06, 0.06)))
    return parts if side > 0 else [mirrored(part) for part in parts]


def _legs(rng: np.random.Generator, width: float, depth: float, height: float) -> list[Mesh]:
    """Four legs near the corners, upright or splayed, square or round."""
    thickness, sides = rng.uniform(0.03, 0.08), int(rng.choice([4, 16]))
    inset, splay, share = rng.uniform(0.03, 0.08), rng.uniform(0, 0.04), rng.uniform(0.5, 1.0)
    splay = min(splay, 0.3 * height)  # a short leg that leans would dip its edge below the floor
    legs = []
    for x in (-1, 1):
        for z in (-1, 1):
            top = (x * (width / 2 - inset - splay), height + 0.02, z * (depth / 2 - inset - splay))
            foot = (x * (width / 2 - inset), 0.0, z * (depth / 2 - inset))
            legs.append(beam(top, foot, (thickness, thickness), share, sides))
    return legs
