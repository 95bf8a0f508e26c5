"""Tables assembled from a top and a base, each of many kinds, some with shelves, drawers or boxes below the top.

They include what real tables have and Infinigen's lack: aprons, turned pedestals with splayed feet, trestles, columns
on T-shaped feet, sleds, panels for legs, drums and cubes, lower shelves, drawer units on one side. Canonical axes: y
up, front +z; a desk's drawers open to the front.
"""

import numpy as np

from training.generators.solids import Mesh, box, disc, merge, translated
from training.generators.table_bases import BASES
from training.generators.table_bodies import BODIES
from training.generators.table_plan import TablePlan

# Kind of table -> width, depth and height from and to, metres.
SIZES = {
    "dining": ((0.8, 2.2), (0.7, 1.1), (0.68, 0.79)),
    "coffee": ((0.5, 1.4), (0.45, 0.9), (0.25, 0.5)),
    "side": ((0.3, 0.6), (0.3, 0.55), (0.4, 0.75)),
    "bar": ((0.5, 0.9), (0.5, 0.8), (0.9, 1.15)),
    "console": ((0.7, 1.5), (0.25, 0.45), (0.7, 0.9)),
    "desk": ((0.9, 1.8), (0.5, 0.85), (0.68, 0.78)),
}

# Shares of the bases, roughly those of the 35 real training tables.
SHARES = {
    "legs": 0.42,
    "pedestal": 0.1,
    "columns": 0.08,
    "trestles": 0.1,
    "loops": 0.1,
    "panels": 0.1,
    "drum": 0.04,
    "open box": 0.06,
}
DESK_SHARES = {"legs": 0.2, "columns": 0.17, "trestles": 0.08, "loops": 0.08, "panels": 0.17, "desk": 0.3}
ROUND_SHARES = {"legs": 0.4, "pedestal": 0.48, "drum": 0.12}


def table(rng: np.random.Generator) -> Mesh:
    """Draw a table; metres, y up, front +z, standing on y = 0."""
    kind = rng.choice(list(SIZES), p=(0.32, 0.2, 0.14, 0.08, 0.06, 0.2))
    width, depth, height = (rng.uniform(*SIZES[kind][axis]) for axis in range(3))
    round_ = kind not in ("desk", "console") and rng.random() < 0.4
    if (round_ and rng.random() < 0.75) or (kind in ("side", "bar") and rng.random() < 0.5):
        width = depth = min(width, 1.4)
    plan = TablePlan(
        width=width,
        depth=depth,
        height=height,
        top=float(np.exp(rng.uniform(np.log(0.008), np.log(0.07)))),
        bar=float(np.exp(rng.uniform(np.log(0.02), np.log(0.1)))) * min(1.0, 0.4 + height),
        sides=int(rng.choice([4, 4, 14])),
        round=round_,
        overhang=rng.choice([0.0, rng.uniform(0, 0.16) * depth]),
    )
    shares = ROUND_SHARES if round_ else DESK_SHARES if kind == "desk" else SHARES
    base = rng.choice(list(shares), p=list(shares.values()))
    return merge(_top(rng, plan, base in BASES), *(BASES | BODIES)[base](rng, plan))


def _top(rng: np.random.Generator, plan: TablePlan, curved: bool) -> Mesh:
    """A plate: rectangular with sharp, rounded or boat-shaped sides, or round."""
    if plan.round:
        radius, edge = plan.width / 2, rng.choice([0.0, 0.45]) * plan.top
        vertices, faces = disc(radius, plan.top, edge, 56)
        return translated((vertices * [1, 1, plan.depth / plan.width], faces), (0, plan.underside, 0))
    half = np.array([plan.width / 2, 0, plan.depth / 2])
    vertices, faces = box(
        -half + [0, plan.underside, 0],
        half + [0, plan.height, 0],
        rng.choice([0.002, rng.uniform(0.002, 0.45) * plan.top]),
    )
    if curved and rng.random() < 0.1:  # boat-shaped
        vertices[:, 2] *= 1 - rng.uniform(0.05, 0.25) * (2 * vertices[:, 0] / plan.width) ** 2
    return vertices, faces
