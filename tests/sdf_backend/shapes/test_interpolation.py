"""Interpolation between a ball and the same ball with parts that only a residual field adds."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import trimesh

from sdf_backend.engine import Engine
from sdf_backend.errors import InputError
from sdf_backend.geometry.isosurface import EmptySurfaceError, Extraction
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model, ModelStore, load_model
from sdf_backend.settings import Pose, TaskSettings
from sdf_backend.shapes.interpolation import ImplicitShape, ShapeInterpolation
from sdf_backend.shapes.residual_field import SURFACE_SETTINGS
from sdf_backend.shapes.residual_lattice import LATTICE_SIDE, densify_residual_field, sparsify_residual_field
from training.evaluation.metrics import point_to_mesh_distance
from training.triangle_mesh import Mesh

RADIUS, STEPS = 0.5, 25
SETTINGS, POSES = TaskSettings(64, Pose.KNOWN), [Similarity.identity()] * 2
# The nodes of the lattice above the ball, as slices of it and as points, (n, 3).
WHERE = (slice(66, 127), slice(66, 127), slice(126, LATTICE_SIDE))
ABOVE = np.stack(
    np.meshgrid(*(np.linspace(-1, 1, LATTICE_SIDE)[part] for part in WHERE), indexing="ij"), axis=-1
).reshape(-1, 3)
BALL = np.zeros(
    3, dtype=np.float32
)  # a code of the tests' model: ten times the radius less 0.5, and two unused numbers


@pytest.fixture
def model(models_folder) -> Model:
    return load_model(ModelStore(models_folder).find("spheres"), "cpu")


@pytest.fixture
def engine(models_folder) -> Engine:
    return Engine(ModelStore(models_folder), device="cpu")


def stick(points: np.ndarray, length: float, radius: float) -> np.ndarray:
    """Distances, (n,), to a round stick from the centre along z, up to `length`."""
    along = points[:, 2].clip(0, length)
    return np.linalg.norm(points - along[:, None] * [0, 0, 1], axis=1) - radius


def knob(points: np.ndarray) -> np.ndarray:
    """Distances, (n,), to a small ball on the end of such a stick."""
    return np.linalg.norm(points - [0, 0, 0.8], axis=1) - 0.1


def grown(model: Model, *parts: np.ndarray, without: np.ndarray | float = -np.inf) -> np.ndarray:
    """The residual field, (m, 2), that adds parts to the ball, each given by its distances at the nodes above it.

    without : distances from what remains when something has been carved out of all that
    """
    with torch.inference_mode():
        points = torch.from_numpy(ABOVE).float()
        ball = model.folded(torch.float32).distances(torch.zeros(1, 3), points[None])[0].numpy()
    lattice = np.zeros((LATTICE_SIDE,) * 3)
    shape = np.maximum(np.minimum.reduce([ball, *parts]), without)
    lattice[WHERE] = (shape - ball).reshape(lattice[WHERE].shape)
    return sparse(lattice)


def sparse(lattice: np.ndarray) -> np.ndarray:
    return sparsify_residual_field(lattice, SURFACE_SETTINGS.minimum_correction)


def interpolated(engine: Engine, *refinements: np.ndarray | None) -> list[Mesh]:
    shapes = engine.interpolate_codes(
        "spheres", np.stack([BALL, BALL]), POSES, STEPS, SETTINGS, refinements=refinements
    )
    return [Mesh(shape.vertices, shape.faces) for shape in shapes]


def steps(meshes: list[Mesh]) -> np.ndarray:
    """Hausdorff distances from each mesh to the next."""
    return np.array([max(away(one, other), away(other, one)) for one, other in pairwise(meshes)])


def away(one: Mesh, other: Mesh) -> float:
    return float(point_to_mesh_distance(one.vertices, other.vertices, other.faces).max())


def with_and_without(model: Model, *parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Residual fields that add parts to the ball, and that leave the distances of these parts too large for a
    surface."""
    return grown(model, *parts), grown(model, *(part + 0.15 for part in parts))


def test_a_part_that_only_one_end_has_recedes_evenly(engine: Engine, model: Model) -> None:
    horn, none = with_and_without(model, stick(ABOVE, 0.85, 0.06))
    meshes = interpolated(engine, horn, none)
    tips = np.array([mesh.vertices[:, 2].max() for mesh in meshes])
    assert tips[0] == pytest.approx(0.91, abs=0.02) and tips[-1] == pytest.approx(RADIUS, abs=0.02)
    assert (np.diff(tips) < 0.01).all()
    # On the linear path it gets thinner until all of it vanishes at once.
    line = [
        engine.decode("spheres", BALL[None], [Similarity.identity()], SETTINGS, refinements=[sparse(between)])[0]
        for between in np.linspace(densify_residual_field(horn), densify_residual_field(none), STEPS)
    ]
    jump = steps([Mesh(shape.vertices, shape.faces) for shape in line]).max()
    assert jump > 0.2 and steps(meshes).max() < 0.3 * jump


def test_a_pit_is_carved_from_the_surface_down(engine: Engine, model: Model) -> None:
    """A pit in a lump, which on the linear path appears at once in its full depth."""
    lump = np.linalg.norm(ABOVE - [0, 0, 0.6], axis=1) - 0.3
    hole = np.linalg.norm(ABOVE - [0, 0, 0.9], axis=1) - 0.25
    left = np.minimum(-hole, 0.01)
    meshes = interpolated(engine, grown(model, lump, without=left - 0.03), grown(model, lump, without=left))
    depth = (0.9 - meshes[-1].vertices[np.hypot(*meshes[-1].vertices[:, :2].T) < 0.02, 2]).min()
    assert depth == pytest.approx(0.25, abs=0.02) and steps(meshes).max() < 0.6 * depth


def test_a_part_that_recedes_in_one_direction_grows_in_the_other(engine: Engine, model: Model) -> None:
    horn, none = with_and_without(model, stick(ABOVE, 0.85, 0.06))
    there, back = interpolated(engine, horn, none), interpolated(engine, none, horn)
    for one, other in zip(there, reversed(back), strict=True):
        assert max(away(one, other), away(other, one)) < 0.05


def test_there_are_no_floaters(engine: Engine, model: Model) -> None:
    """On the linear path the stick vanishes before the knob on it; here the knob vanishes first."""
    meshes = interpolated(engine, *with_and_without(model, stick(ABOVE, 0.8, 0.025), knob(ABOVE)))
    pieces = [trimesh.Trimesh(mesh.vertices, mesh.faces).split(only_watertight=False) for mesh in meshes]
    assert pieces[0][0].vertices[:, 2].max() > 0.85
    for piece in (piece for found in pieces for piece in found):
        # Small pieces next to the ball may be left of what recedes; the knob's place is 0.2 away from it.
        assert len(piece.vertices) > 500 or piece.vertices[:, 2].min() < 0.65
    assert steps(meshes).max() < 0.1


def test_the_ends_are_the_given_shapes(model: Model) -> None:
    horn = grown(model, stick(ABOVE, 0.85, 0.06))
    first, last = ImplicitShape(BALL, horn), ImplicitShape(BALL + 0.1, None)
    interpolation = ShapeInterpolation(model, first, last)
    assert interpolation.shape_at(0.0) is first and interpolation.shape_at(1.0) is last
    middle = interpolation.shape_at(0.5)
    assert 0 < middle.code[0] < 0.1 and middle.refinement is not None


def test_interpolating_between_equal_shapes_changes_nothing(engine: Engine) -> None:
    for mesh in interpolated(engine, None, None):
        np.testing.assert_allclose(np.linalg.norm(mesh.vertices, axis=1), RADIUS, atol=0.02)


def test_a_path_without_a_surface_is_refused(model: Model) -> None:
    nowhere = ImplicitShape(np.array([-6, 0, 0], dtype=np.float32), None)  # a ball of negative radius
    with pytest.raises(EmptySurfaceError):
        ShapeInterpolation(model, nowhere, nowhere).shape_at(0.5)


def test_the_progress_callback_may_end_it(model: Model) -> None:
    heard: list[float] = []

    def listen(share: float) -> None:
        heard.append(share)
        if share > 0.3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        ShapeInterpolation(model, ImplicitShape(BALL, None), ImplicitShape(BALL + 1, None), listen).shape_at(0.5)
    assert heard == sorted(heard) and heard[-1] < 0.4


def test_an_invalid_residual_field_is_refused(engine: Engine) -> None:
    with pytest.raises(InputError, match="nodes from 0"):
        engine.interpolate_codes(
            "spheres", np.stack([BALL, BALL]), POSES, 3, SETTINGS, refinements=[None, np.array([[-1.0, 0.1]])]
        )


def test_each_code_needs_a_residual_field_if_any_has_one(engine: Engine) -> None:
    with pytest.raises(InputError, match="1 refinements were given for 2 codes"):
        engine.interpolate_codes("spheres", np.stack([BALL, BALL]), POSES, 3, SETTINGS, refinements=[None])


def test_a_residual_field_survives_the_round_trip_through_the_lattice() -> None:
    refinement = np.array([[5, 0.25], [LATTICE_SIDE**3 - 1, -0.5]], dtype=np.float32)
    np.testing.assert_array_equal(sparse(densify_residual_field(refinement)), refinement)
    assert not len(sparse(densify_residual_field(None)))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_floaters_are_dropped_and_detail_is_kept(model: Model, share: float) -> None:
    ball, floater, detail = (
        trimesh.creation.icosphere(subdivisions=3, radius=radius) for radius in (RADIUS, 0.03, 0.01)
    )
    floater.apply_translation([0, 0, 0.9])
    detail.apply_translation([0, 0, 0.53])
    mesh, whole = trimesh.util.concatenate([ball, floater, detail]), trimesh.util.concatenate([ball, detail])
    interpolation = ShapeInterpolation(model, ImplicitShape(BALL, None), ImplicitShape(BALL, None))
    left = interpolation.remove_floaters(share, Extraction(np.array(mesh.vertices), np.array(mesh.faces), 7))
    np.testing.assert_array_equal(left.vertices, whole.vertices)
    assert trimesh.Trimesh(left.vertices, left.faces, process=False).is_watertight and left.evaluations == 7
    alone = Extraction(np.array(floater.vertices), np.array(floater.faces), 7)
    assert interpolation.remove_floaters(share, alone) is alone


def test_floaters_that_a_fit_left_are_dropped_from_the_ends(engine: Engine, model: Model) -> None:
    floater = grown(model, np.linalg.norm(ABOVE - [0, 0, 0.8], axis=1) - 0.04)
    first, *_ = interpolated(engine, floater, None)
    assert first.vertices[:, 2].max() == pytest.approx(RADIUS, abs=0.02)
