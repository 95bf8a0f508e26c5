"""Human bodies as training meshes, sampled from anny, a parametric body model (code Apache-2.0, data CC0).

    write_bodies(Path("data/meshes/humans"), 560)

Age, build and proportions are uniformly distributed. Poses are mild: standing, with the limbs, back and head moved
about as much as those of people who stand and wait. Meshes are y up, front +z, in metres.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from sdf_backend.geometry.similarity import axis_rotation
from training.catalog import SOURCES_FILE

LICENCE, CREATOR = "CC0-1.0", "MakeHuman community, through anny (NAVER Corp.)"
# Every 28th body is a test shape. Bodies have no families: they are sampled independently.
TEST_EVERY = 28
BATCH = 16


@dataclass(frozen=True)
class Joint:
    """A joint that is posed: of a pair the left one, whose mirror image is the right one. Axes are world axes."""

    bone: str
    axis: tuple[float, float, float]
    low: float
    """smallest rotation, degrees"""
    high: float
    """largest rotation, degrees"""


PAIRS = (
    Joint("upperarm01", (0, 1, 0), -20, 28),  # arms down to the sides, or away from them
    Joint("upperarm01", (1, 0, 0), -25, 25),
    Joint("lowerarm01", (-0.7, 0, -0.7), 0, 45),
    Joint("upperleg01", (0, 1, 0), -10, 2),
    Joint("upperleg01", (1, 0, 0), -20, 10),
    Joint("lowerleg01", (1, 0, 0), 0, 20),
)
SINGLE = (
    Joint("spine03", (1, 0, 0), -8, 8),
    Joint("spine03", (0, 0, 1), -10, 10),
    Joint("spine02", (0, 1, 0), -5, 5),
    Joint("neck01", (1, 0, 0), -10, 10),
    Joint("head", (0, 0, 1), -25, 25),
)


def write_bodies(
    output: Path, count: int, seed: int = 0, report: Callable[[str, bool], None] = lambda name, resumed: None
) -> None:
    """Write `count` bodies as PLY files and `sources.json` into `output`; files that are there already are kept.

    Body i depends on `seed` and i alone, apart from rounding, which may differ with the size of its batch.
    `report(name, resumed)` is called after each. Raises `InputError` where anny is not installed, and where `output`
    holds other bodies.
    """
    credits = [_credit(number, seed) for number in range(count)]
    # The credits are written first: without them, the bodies of a killed run would all be training shapes.
    paths = [path for path in output.glob("body-*") if path.suffix in (".obj", ".ply")]
    others = {path.name for path in paths} - {f"{credit['name']}.ply" for credit in credits}
    if others:
        raise InputError(f"{output} contains {len(others)} other bodies, such as {min(others)}; choose another folder")
    model = _load()
    faces = model.faces.numpy()
    with atomic_write(output / SOURCES_FILE) as temporary:
        temporary.write_text(json.dumps(credits, indent=1))
    for first in range(0, count, BATCH):
        batch = credits[first : first + BATCH]
        there = [(output / f"{credit['name']}.ply").exists() for credit in batch]
        # Whole batches: of another size they would round otherwise.
        if not all(there):
            generators = [np.random.default_rng([seed, first + place]) for place in range(len(batch))]
            for credit, vertices in zip(batch, _draw(model, generators), strict=True):
                # From anny's z up, front -y.
                mesh = trimesh.Trimesh(vertices @ axis_rotation("+z", "-y", "+z").T, faces, process=False)
                with atomic_write(output / f"{credit['name']}.ply") as temporary:
                    mesh.export(temporary, file_type="ply")
        for credit, kept in zip(batch, there, strict=True):
            report(credit["name"], all(there) or kept)


def _credit(number: int, seed: int) -> dict[str, str]:
    """The entry of a body in `sources.json`; the names of seed 0 carry no seed, as they always did."""
    name = f"body-{number:04d}" if seed == 0 else f"body-{seed}-{number:04d}"
    split = "test" if number % TEST_EVERY == 0 else "train"
    return {"name": name, "split": split, "licence": LICENCE, "creator": CREATOR, "family": name}


def _load() -> Any:
    try:  # by name: an optional dependency without type information
        anny = import_module("anny")
    except ImportError as error:
        raise InputError("the package anny is not installed; pip install 'sdf-shapes[humans]'") from error
    import torch

    return anny.Anny().to(dtype=torch.float32)


def _draw(model: Any, generators: list[np.random.Generator]) -> np.ndarray:
    """Vertices, (n, v, 3), of one body per generator."""
    import torch

    labels = list(model.phenotype_labels)
    phenotypes = torch.tensor(np.stack([_phenotype(labels, rng) for rng in generators]), dtype=torch.float32)
    poses = {
        bone: torch.tensor(np.stack(turns), dtype=torch.float32)
        for bone, turns in _stacked([_pose(rng) for rng in generators]).items()
    }
    with torch.inference_mode():
        kwargs = {label: phenotypes[:, index] for index, label in enumerate(labels)}
        return model(pose_parameters=poses, phenotype_kwargs=kwargs)["vertices"].numpy()


def _phenotype(labels: list[str], rng: np.random.Generator) -> np.ndarray:
    """Values in [0, 1] of all phenotypes: a U-shaped distribution for gender, uniform ones otherwise."""
    return np.array([rng.beta(0.5, 0.5) if label == "gender" else rng.uniform(0.02, 0.98) for label in labels])


def _pose(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The transform of each posed bone, (4, 4)."""
    turns: dict[str, Rotation] = {}
    for joint in SINGLE:
        _turn(turns, joint.bone, joint, rng, np.ones(3))
    for joint in PAIRS:
        _turn(turns, f"{joint.bone}.L", joint, rng, np.ones(3))
        # The mirror image of a rotation across x = 0.
        _turn(turns, f"{joint.bone}.R", joint, rng, np.array([1, -1, -1]))
    changes = {}
    for bone, turn in turns.items():
        changes[bone] = np.eye(4)
        changes[bone][:3, :3] = turn.as_matrix()
    return changes


def _turn(turns: dict[str, Rotation], bone: str, joint: Joint, rng: np.random.Generator, mirror: np.ndarray) -> None:
    axis = np.array(joint.axis) * mirror
    angle = np.radians(rng.uniform(joint.low, joint.high))
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
    turns[bone] = turn * turns.get(bone, Rotation.identity())


def _stacked(poses: list[dict[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    return {bone: [pose[bone] for pose in poses] for bone in poses[0]}
