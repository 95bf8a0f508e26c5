"""Chairs assembled from a seat, a base, a back and arms, each of many kinds.

They include what real chairs have and Infinigen's lack: ladders of many slats, spindles, crosses, padded and bucket
backs, tubes bent into sleds and cantilevers, folding legs, pedestals, star bases with arms. Canonical axes: y up, front
+z.
"""

import numpy as np

from training.generators.chair_backs import BUILD_BACK
from training.generators.chair_bases import BUILD_BASE
from training.generators.chair_plan import ChairPlan
from training.generators.solids import Mesh, beam, box, disc, merge, mirrored, rounded_path, translated, tube

# Shares of the bases, in the order of `BUILD_BASE`, roughly those of the 45 real training chairs.
BASES = (0.56, 0.08, 0.06, 0.08, 0.12, 0.05, 0.05)
ROUND_BASES = (0.4, 0.0, 0.0, 0.35, 0.25, 0.0, 0.0)  # the other bases have legs at the corners, which a disc lacks
LEGGED_BACKS, SLIM_BACKS, ROUND_BACKS = (0.6, 0.28, 0.12), (0.1, 0.5, 0.4), (0.0, 0.5, 0.5)


def chair(rng: np.random.Generator) -> Mesh:
    """Draw a chair or, seldom, a stool; metres, y up, front +z, standing on y = 0."""
    tall = rng.random() < 0.15
    plan = ChairPlan(
        width=rng.uniform(0.34, 0.56),
        depth=rng.uniform(0.34, 0.52),
        height=rng.uniform(0.6, 0.8) if tall else rng.uniform(0.38, 0.5),
        thickness=float(np.exp(rng.uniform(np.log(0.012), np.log(0.1)))),
        bar=float(np.exp(rng.uniform(np.log(0.018), np.log(0.06)))),
        back=rng.uniform(0.12, 0.35) if tall else rng.uniform(0.28, 0.62),
        recline=rng.choice([0.0, rng.uniform(0.03, 0.3)]),
        sides=int(rng.choice([4, 12])),
        round=rng.random() < 0.12,
    )
    base = rng.choice(list(BUILD_BASE), p=ROUND_BASES if plan.round else BASES)
    parts = [_seat(rng, plan), *BUILD_BASE[base](rng, plan)]
    if base != "slab" and rng.random() < (0.3 if tall else 0.02):
        return merge(*parts)  # a stool
    # No two posts stand on the rim of a disc.
    slim = base in ("pedestal", "star", "cantilever")
    back = rng.choice(list(BUILD_BACK), p=ROUND_BACKS if plan.round else SLIM_BACKS if slim else LEGGED_BACKS)
    parts += BUILD_BACK[back](rng, plan)
    if back != "bucket" and not plan.round and rng.random() < 0.35:
        parts += _arms(rng, plan)
    return merge(*parts)


def _seat(rng: np.random.Generator, plan: ChairPlan) -> Mesh:
    """A plate, a cushion or a disc; some are narrower at the back, some dished."""
    if plan.round:
        plate = disc(plan.width / 2, plan.thickness, rng.uniform(0, 0.5) * plan.thickness)
        return translated((plate[0] * [1, 1, plan.depth / plan.width], plate[1]), (0, plan.underside, 0))
    half = np.array([plan.width / 2, 0, plan.depth / 2])
    bulge = rng.choice([0.0, rng.uniform(0, 0.02)])
    low, high = -half + [0, plan.underside, 0], half + [0, plan.height, 0]
    vertices, faces = box(low, high, rng.uniform(0.05, 0.49) * plan.thickness, (0, bulge, 0))
    narrow = rng.choice([0.0, rng.uniform(0.05, 0.25)])
    vertices[:, 0] *= 1 - narrow * (0.5 - vertices[:, 2] / plan.depth)
    if rng.random() < 0.3:  # dished across, as moulded plywood is
        vertices[:, 1] += rng.uniform(0.01, 0.04) * (2 * vertices[:, 0] / plan.width) ** 2
    return vertices, faces


def _arms(rng: np.random.Generator, plan: ChairPlan) -> list[Mesh]:
    """Armrests from the back to a post at the front, or bent tubes that start at the seat's side."""
    height, outward = rng.uniform(0.15, 0.28), rng.uniform(0.0, 0.05)
    height = min(height, 0.8 * plan.back)
    x, front = plan.width / 2 + outward, plan.depth / 2 * rng.uniform(0.2, 1.0)
    rear = plan.rear(height)
    low = plan.underside + plan.thickness / 2
    if rng.random() < 0.5:
        radius = plan.bar * rng.uniform(0.25, 0.5)
        inner = plan.width / 2 - plan.bar / 2
        bend = [(inner, plan.height + height, rear), (x, plan.height + height, front), (x, low, front)]
        if rng.random() < 0.5:
            bend.append((inner, low, front))
        side = tube(rounded_path(np.array(bend), rng.uniform(0.02, 0.1)), radius)
        return [side, mirrored(side)]
    wide = rng.uniform(0.03, 0.08)
    thickness = rng.uniform(0.015, 0.05)
    rest = box(
        (x - wide / 2, plan.height + height, rear), (x + wide / 2, plan.height + height + thickness, front), 0.01
    )
    post_x = plan.width / 2 - plan.bar / 2
    top = (x, plan.height + height + 0.01, front * 0.8)
    post = beam((post_x, low, front * 0.8), top, (plan.bar, plan.bar), 1, plan.sides)
    link = beam((post_x, plan.height + height, rear), (x, plan.height + height, rear), (plan.bar * 0.7, plan.bar * 0.7))
    return [rest, mirrored(rest), post, mirrored(post), link, mirrored(link)]
