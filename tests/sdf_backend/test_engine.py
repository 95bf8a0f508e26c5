"""The tasks on spheres: position, size and watertightness of the results, caching, progress and refusals."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from sdf_backend import engine as engine_module
from sdf_backend.content_cache import ContentCache
from sdf_backend.engine import Engine, Phase, Shape, Source
from sdf_backend.errors import Cancelled, InputError
from sdf_backend.geometry.isosurface import EmptySurfaceError, Extraction
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model, ModelStore, save_model
from sdf_backend.observation.sources import observe_solid, observe_surface
from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.shapes import mesher
from sdf_backend.shapes.residual_field import fit_residual_field

KNOWN = TaskSettings(resolution=48, pose=Pose.KNOWN, quality=Quality.PREVIEW)
NO_FACES = np.zeros((0, 3), dtype=np.int64)


@pytest.fixture
def engine(models_folder: Path) -> Engine:
    return Engine(ModelStore(models_folder), "cpu")


def cap(radius: float = 0.5, centre: tuple[float, float, float] = (0, 0, 0), lowest: float = 0.0) -> Source:
    normal = np.random.default_rng(0).normal(size=(6_000, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return Source(Geometry(normal[normal[:, 2] >= lowest] * radius + centre, NO_FACES))


def ball(radius: float = 0.5) -> Source:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    return Source(Geometry(np.array(mesh.vertices), np.array(mesh.faces)))


def radius(shape: Shape, centre: tuple[float, float, float] = (0, 0, 0)) -> float:
    return float(np.linalg.norm(shape.vertices - centre, axis=1).mean())


def closed(shape: Shape) -> bool:
    mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
    return bool(mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0)


def test_the_colours_of_half_a_sphere_are_continued(engine: Engine) -> None:
    half = cap(0.55).geometry
    [shape] = engine.complete("spheres", [Source(replace(half, colors=half.vertices / 2 + 0.5))], KNOWN)
    assert shape.colors is not None and shape.observed is not None
    seen = shape.observed == 1
    assert np.abs(shape.colors[seen] - (shape.vertices[seen] / 2 + 0.5)).max() < 0.05
    hidden = shape.colors[shape.vertices[:, 2] < -0.1]
    assert np.abs(hidden[:, 2] - 0.5).max() < 0.1  # the rim's
    assert engine.complete("spheres", [cap(0.55)], KNOWN)[0].colors is None


def test_half_a_sphere_is_completed(engine: Engine) -> None:
    [shape] = engine.complete("spheres", [cap(0.55)], KNOWN)
    assert closed(shape)
    assert radius(shape) == pytest.approx(0.55, abs=0.015)
    # Up to 0.05 beyond the rim counts in part.
    assert shape.observed_share == pytest.approx(0.5, abs=0.08)
    assert shape.explained > 0.95 and set(shape.seconds) >= {Phase.FITTING, Phase.EXTRACTING}


def test_observed_and_completed_vertices_are_distinguished(engine: Engine) -> None:
    [shape] = engine.complete("spheres", [cap(0.5)], KNOWN)
    assert shape.observed is not None
    # The decoded sphere bulges by about 0.02, which lowers `observed` there.
    seen, filled = shape.observed[shape.vertices[:, 2] > 0.1], shape.observed[shape.vertices[:, 2] < -0.1]
    assert seen.min() > 0.5 and seen.mean() > 0.95
    assert filled.max() < 0.1


@pytest.mark.parametrize("pose", [Pose.ALIGNED, Pose.UPRIGHT, Pose.FREE])
def test_a_large_distant_sphere_is_completed_in_its_own_frame(engine: Engine, pose: Pose) -> None:
    centre = (400.0, -30.0, 5.0)
    settings = TaskSettings(resolution=48, pose=pose, quality=Quality.PREVIEW)
    [shape] = engine.complete("spheres", [cap(60.0, centre, lowest=-1.0)], settings)
    assert closed(shape)
    np.testing.assert_allclose(shape.vertices.mean(axis=0), centre, atol=1.5)
    assert radius(shape, centre) == pytest.approx(60, rel=0.03)


def test_a_whole_mesh_is_reconstructed_with_any_orientation_of_its_faces(engine: Engine) -> None:
    source = ball(0.58)
    flipped = Source(Geometry(source.geometry.vertices, source.geometry.faces[:, ::-1]))
    for one in engine.reconstruct("spheres", [source, flipped], KNOWN):
        assert closed(one) and radius(one) == pytest.approx(0.575, abs=0.015)


def test_floaters_are_removed_from_reconstructions_and_kept_in_completions(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = mesher.extract_surface

    def with_floater(*arguments: Any) -> Extraction:
        mesh = extract(*arguments)
        floater = trimesh.creation.icosphere(subdivisions=1, radius=0.02)
        vertices = np.concatenate([mesh.vertices, np.array(floater.vertices) + [0, 0, 0.8]])
        return Extraction(vertices, np.concatenate([mesh.faces, np.array(floater.faces) + len(mesh.vertices)]), 1)

    monkeypatch.setattr(mesher, "extract_surface", with_floater)
    for task, there in ((engine.reconstruct, False), (engine.complete, True)):
        [shape] = task("spheres", [ball(0.5)], KNOWN)
        assert closed(shape) and bool(shape.vertices[:, 2].max() > 0.6) is there
        assert len(shape.observed) == len(shape.deviation) == len(shape.vertices)


def bumpy(lowest: float = -1.0) -> Source:
    """A ball with a dent, which no code of the balls reproduces."""
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=0.5)
    dent = np.exp(-np.square(np.linalg.norm(mesh.vertices - [0, 0, 0.5], axis=1)) / (2 * 0.12**2))
    vertices = np.array(mesh.vertices) * (1 - 0.1 * dent)[:, None]
    if lowest > -1:
        return Source(Geometry(vertices[vertices[:, 2] >= lowest], NO_FACES))
    return Source(Geometry(vertices, np.array(mesh.faces)))


def height(shape: Shape) -> float:
    """Height of the surface above the origin, where the dent is."""
    axis = np.linalg.norm(shape.vertices[:, :2], axis=1) < 0.05
    return float(shape.vertices[axis & (shape.vertices[:, 2] > 0), 2].mean())


@pytest.mark.parametrize("solid", [True, False])
def test_refinement_follows_detail_that_no_code_reproduces_as_far_as_asked(engine: Engine, solid: bool) -> None:
    heights = []
    for strength in (0.0, 0.5, 1.0):
        settings = replace(KNOWN, refine=strength)
        task, source = (engine.reconstruct, bumpy()) if solid else (engine.complete, bumpy(lowest=0.0))
        [shape] = task("spheres", [source], settings)
        assert closed(shape)
        heights.append(height(shape))
        # The lower half of the cloud is unobserved, so refinement leaves it alone.
        bottom = shape.vertices[shape.vertices[:, 2] < -0.2]
        assert np.linalg.norm(bottom, axis=1).mean() == pytest.approx(0.5, abs=0.025)
    truth = 0.45
    assert heights[0] > heights[1] > heights[2]
    assert abs(heights[2] - truth) < 0.3 * abs(heights[0] - truth)


@pytest.mark.parametrize(("gap", "there"), [(0.0, True), (0.2, False)])
def test_a_part_that_the_category_lacks_appears_if_it_is_connected(engine: Engine, gap: float, there: bool) -> None:
    rng = np.random.default_rng(0)
    fin = np.stack([np.zeros(2_000), rng.uniform(-0.05, 0.05, 2_000), rng.uniform(0.45 + gap, 0.85, 2_000)], axis=1)
    # So dense that the fin, an outlier where it is separate, is a small share of all points.
    dense = np.concatenate([cap().geometry.vertices * share for share in np.linspace(0.999, 1.001, 16)])
    both = Source(Geometry(np.concatenate([dense, fin]), NO_FACES))
    settings = replace(KNOWN, resolution=96)
    [plain] = engine.complete("spheres", [both], replace(settings, refine=0.0))
    [refined] = engine.complete("spheres", [both], settings)
    assert closed(plain) and closed(refined)
    assert plain.vertices[:, 2].max() < 0.7
    assert bool(refined.vertices[:, 2].max() > 0.8) is there


@pytest.mark.parametrize("pose", [Pose.KNOWN, Pose.UPRIGHT])
def test_a_ground_plane_under_the_object_is_not_completed(engine: Engine, pose: Pose) -> None:
    settings = replace(KNOWN, pose=pose, up="+y", front="-z", resolution=64)
    rng = np.random.default_rng(0)
    ball_points = cap(0.5, lowest=-1.0).geometry.vertices
    floor = rng.uniform(-0.7, 0.7, size=(900, 3)) * [1, 0, 1] - [0, 0.5, 0]
    [alone] = engine.complete("spheres", [Source(Geometry(ball_points, NO_FACES))], settings)
    [stood] = engine.complete("spheres", [Source(Geometry(np.concatenate([ball_points, floor]), NO_FACES))], settings)
    assert closed(stood)
    assert radius(stood) == pytest.approx(radius(alone), rel=0.01)
    assert np.linalg.norm(stood.vertices, axis=1).max() < 0.56


def test_deviations_are_in_the_units_of_the_input(engine: Engine) -> None:
    settings = replace(KNOWN, pose=Pose.ALIGNED)
    small, large = (
        engine.complete("spheres", [Source(Geometry(cap(0.5).geometry.vertices * unit, NO_FACES))], settings)[0]
        for unit in (1.0, 1e3)
    )
    assert small.deviation is not None and large.deviation is not None and (small.deviation > 0).all()
    assert large.deviation.mean() == pytest.approx(1e3 * small.deviation.mean(), rel=0.2)


def test_a_malformed_refinement_is_refused(engine: Engine) -> None:
    [shape] = engine.encode("spheres", [cap()], KNOWN)
    for wrong in (np.zeros((3, 3)), np.array([[-1.0, 0.1]]), np.array([[9e6, 0.1]]), np.array([[0, np.nan]])):
        with pytest.raises(InputError, match="refinement"):
            engine.decode("spheres", shape.code[None], [shape.pose], KNOWN, refinements=[wrong.astype(np.float32)])
    with pytest.raises(InputError, match="1 refinements were given for 2 codes"):
        codes, poses = np.stack([shape.code] * 2), [shape.pose] * 2
        engine.decode("spheres", codes, poses, KNOWN, refinements=[np.zeros((0, 2), dtype=np.float32)])


def test_a_point_cloud_cannot_be_reconstructed(engine: Engine) -> None:
    with pytest.raises(InputError, match="use complete"):
        engine.reconstruct("spheres", [cap()], KNOWN)


def test_interpolation_runs_through_all_inputs_in_order(engine: Engine) -> None:
    shapes = engine.interpolate("spheres", [ball(0.45), cap(0.6, lowest=-1.0), ball(0.5)], 7, KNOWN)
    radii = [radius(shape) for shape in shapes]
    assert len(shapes) == 7 and all(closed(shape) for shape in shapes)
    assert radii[:4] == sorted(radii[:4]) and radii[3:] == sorted(radii[3:], reverse=True)
    assert radii[0] == pytest.approx(0.45, abs=0.015) and radii[3] == pytest.approx(0.6, abs=0.02)


def test_an_encoded_source_decodes_to_its_completion_or_reconstruction(engine: Engine) -> None:
    [cloud, solid] = engine.encode("spheres", [cap(0.55), ball(0.45)], KNOWN)
    [completed], [rebuilt] = (
        engine.complete("spheres", [cap(0.55)], KNOWN),
        engine.reconstruct("spheres", [ball(0.45)], KNOWN),
    )
    for one, whole in ((cloud, completed), (solid, rebuilt)):
        np.testing.assert_array_equal(one.code, whole.code)
        assert (one.residual, one.explained, one.steps) == (whole.residual, whole.explained, whole.steps)
        np.testing.assert_array_equal(one.pose.apply(np.eye(3)), whole.pose.apply(np.eye(3)))
        assert one.vertices.shape == one.faces.shape == (0, 3) and one.observed is None and one.evaluations == 0
        assert Phase.FITTING in one.seconds and Phase.EXTRACTING not in one.seconds
        [decoded] = engine.decode("spheres", one.code[None], [one.pose], KNOWN, refinements=[one.refinement])
        np.testing.assert_array_equal(decoded.vertices, whole.vertices)
    assert engine.encode("spheres", [], KNOWN) == []


def test_an_encoded_source_decodes_in_its_own_frame(engine: Engine) -> None:
    centre = (40.0, -3.0, 5.0)
    settings = replace(KNOWN, pose=Pose.UPRIGHT)
    [shape] = engine.encode("spheres", [cap(6.0, centre, lowest=-1.0)], settings)
    [decoded] = engine.decode("spheres", shape.code[None], [shape.pose], settings)
    np.testing.assert_allclose(decoded.vertices.mean(axis=0), centre, atol=0.15)
    assert radius(decoded, centre) == pytest.approx(6, rel=0.03)


def test_samples_are_closed_and_different_and_repeat_with_their_seed(engine: Engine) -> None:
    first, second = (engine.sample("spheres", 3, KNOWN) for _ in range(2))
    assert all(closed(shape) for shape in first)
    assert len({len(shape.vertices) for shape in first}) > 1
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.vertices, other.vertices)


@pytest.mark.parametrize("pose", [Pose.KNOWN, Pose.UPRIGHT])
def test_a_fit_does_not_depend_on_the_seed(engine: Engine, pose: Pose) -> None:
    [first], [second] = (engine.complete("spheres", [cap()], replace(KNOWN, pose=pose, seed=seed)) for seed in (0, 1))
    np.testing.assert_array_equal(first.vertices, second.vertices)


def test_the_seed_decides_which_candidates_are_drawn(engine: Engine) -> None:
    settings = replace(KNOWN, candidates=3)
    first, again, other = (engine.complete("spheres", [cap()], replace(settings, seed=seed)) for seed in (0, 0, 1))
    for one, two, three in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(one.code, two.code)
        assert np.array_equal(one.code, three.code) == (one is first[0])


def test_a_batch_gives_one_shape_an_input(engine: Engine) -> None:
    shapes = engine.complete("spheres", [cap(0.45), cap(0.55)], KNOWN)
    assert [radius(shape) for shape in shapes] == pytest.approx([0.45, 0.55], abs=0.015)
    assert engine.complete("spheres", [], KNOWN) == []


def test_a_code_can_be_meshed_again_at_another_resolution(engine: Engine) -> None:
    [coarse] = engine.complete("spheres", [cap()], KNOWN)
    fine = engine.shape_of("spheres", coarse.code, coarse.pose, TaskSettings(resolution=96))
    assert len(fine.vertices) > 3 * len(coarse.vertices)
    assert radius(fine) == pytest.approx(radius(coarse), abs=0.002)


@pytest.mark.parametrize("code", [np.zeros(4), np.full(3, np.nan), np.zeros((3, 1))])
def test_a_malformed_code_is_refused(engine: Engine, code: np.ndarray) -> None:
    with pytest.raises(InputError, match="a code of spheres"):
        engine.shape_of("spheres", code, Similarity.identity(), KNOWN)


def test_progress_runs_through_the_phases_and_cancels_in_each(engine: Engine) -> None:
    heard: list[Phase] = []
    settings = TaskSettings(resolution=32, pose=Pose.UPRIGHT, quality=Quality.PREVIEW)
    engine.complete("spheres", [cap()], settings, lambda phase, fraction: heard.append(phase))
    # A model is chosen where none is named, and only kept meshes are joined.
    assert list(dict.fromkeys(heard)) == [one for one in Phase if one not in (Phase.CHOOSING, Phase.JOINING)]
    for stop in Phase:
        if stop in (Phase.LOADING, Phase.CHOOSING, Phase.JOINING):
            continue  # loaded already, the model is named, and nothing is kept

        def cancel(phase: Phase, fraction: float, stop: Phase = stop) -> None:
            if phase is stop:
                raise Cancelled

        with pytest.raises(Cancelled):
            engine.complete("spheres", [cap()], settings, cancel)
    assert len(engine.complete("spheres", [cap()], KNOWN)) == 1


def test_counts_out_of_range_and_unknown_models_are_refused(engine: Engine) -> None:
    for count in (0, 10_001):
        with pytest.raises(InputError, match="samples"):
            engine.sample("spheres", count, KNOWN)
    with pytest.raises(InputError, match="at least two"):
        engine.interpolate("spheres", [ball()], 5, KNOWN)
    with pytest.raises(InputError, match="steps"):
        engine.interpolate("spheres", [ball(), ball()], 1, KNOWN)
    with pytest.raises(InputError, match=r"unknown model 'boats'.*spheres"):
        engine.complete("boats", [cap()], KNOWN)


def test_known_models_are_listed_with_their_cards(engine: Engine) -> None:
    assert "spheres" in [card.name for card in engine.models()]


@pytest.fixture
def cached(models_folder: Path, tmp_path: Path) -> Engine:
    return Engine(ModelStore(models_folder), "cpu", ContentCache(tmp_path / "cache"))


def phases(task: Callable[..., list[Shape]], *arguments: object) -> tuple[list[Shape], set[Phase]]:
    """The result of a task, and the phases that it reported."""
    heard: set[Phase] = set()
    shapes = task(*arguments, progress=lambda phase, fraction: heard.add(phase))
    return shapes, heard


def test_the_same_source_is_neither_fitted_nor_extracted_twice(cached: Engine, engine: Engine) -> None:
    [first], _ = phases(cached.complete, "spheres", [cap()], KNOWN)
    [again], heard = phases(cached.complete, "spheres", [cap()], KNOWN)
    [plain] = engine.complete("spheres", [cap()], KNOWN)
    assert not heard & {Phase.FITTING, Phase.EXTRACTING}
    for other in (again, plain):
        np.testing.assert_array_equal(other.vertices, first.vertices)
        np.testing.assert_array_equal(other.observed, first.observed)
        assert (other.residual, other.explained, other.steps) == (first.residual, first.explained, first.steps)


def test_another_resolution_or_seed_reuses_the_fit_and_another_input_does_not(cached: Engine) -> None:
    cached.complete("spheres", [cap()], KNOWN)
    [finer], heard = phases(cached.complete, "spheres", [cap()], replace(KNOWN, resolution=64))
    assert Phase.FITTING not in heard and Phase.EXTRACTING in heard and closed(finer)
    assert Phase.FITTING not in phases(cached.complete, "spheres", [cap()], replace(KNOWN, seed=1))[1]
    assert Phase.FITTING in phases(cached.complete, "spheres", [cap(0.52)], KNOWN)[1]


def test_only_the_new_sources_of_a_batch_are_fitted(cached: Engine, engine: Engine) -> None:
    cached.complete("spheres", [cap(0.45)], KNOWN)
    mixed = cached.complete("spheres", [cap(0.55), cap(0.45)], KNOWN)
    alone = [engine.complete("spheres", [cap(radius)], KNOWN)[0] for radius in (0.55, 0.45)]
    for one, other in zip(mixed, alone, strict=True):
        np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-6)


def test_an_encoded_source_is_not_fitted_again_to_be_encoded_or_interpolated(cached: Engine) -> None:
    sources = [cap(0.45), ball(0.55)]
    first, heard = phases(cached.encode, "spheres", sources, KNOWN)
    assert Phase.FITTING in heard and Phase.EXTRACTING not in heard
    again, heard = phases(cached.encode, "spheres", sources, KNOWN)
    assert not heard & {Phase.FITTING, Phase.EXTRACTING}
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.code, other.code)
        assert Phase.FITTING in one.seconds and Phase.FITTING not in other.seconds
    _, heard = phases(cached.interpolate, "spheres", sources, 3, KNOWN)
    assert Phase.FITTING not in heard and Phase.EXTRACTING in heard


def test_a_replaced_model_file_is_read_again(spheres: Model, tmp_path: Path) -> None:
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    engine = Engine(ModelStore(tmp_path), "cpu")
    assert len(engine.model("spheres").codes) == 12
    save_model(path, replace(spheres, codes=spheres.codes[:6], card=replace(spheres.card, shapes=list("abcdef"))))
    os.utime(path, ns=(0, 0))
    assert len(engine.model("spheres").codes) == 6


def test_beyond_the_memory_limit_the_least_recently_used_model_is_released(spheres: Model, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save_model(tmp_path / f"{name}.safetensors", replace(spheres, card=replace(spheres.card, name=name)))
    engine = Engine(ModelStore(tmp_path), "cpu", model_bytes=2 * spheres.nbytes)
    for name in ("a", "b", "a", "c"):
        engine.model(name)
    assert engine.loaded_models() == ["a", "c"]


def test_a_coarse_preview_is_shown_during_the_fit(engine: Engine) -> None:
    shown: list[tuple[int, float]] = []
    heard: list[Phase] = []

    def show(number: int, vertices: np.ndarray, faces: np.ndarray) -> None:
        assert Phase.EXTRACTING not in heard and trimesh.Trimesh(vertices, faces, process=False).is_watertight
        shown.append((number, float(np.linalg.norm(vertices, axis=1).mean())))

    sources = [cap(0.45), cap(0.55)]
    engine.complete("spheres", sources, KNOWN, lambda phase, fraction: heard.append(phase), show)
    assert [number for number, _ in shown] == [0, 1]
    assert [size for _, size in shown] == pytest.approx([0.45, 0.55], abs=0.03)


def test_fitted_codes_can_be_decoded_and_interpolated(engine: Engine) -> None:
    shapes = engine.complete("spheres", [cap(0.45), cap(0.55)], replace(KNOWN, refine=0.0))
    codes, poses = np.stack([shape.code for shape in shapes]), [shape.pose for shape in shapes]
    for decoded, shape in zip(engine.decode("spheres", codes, poses, KNOWN), shapes, strict=True):
        np.testing.assert_array_equal(decoded.vertices, shape.vertices)
    between = engine.interpolate_codes("spheres", codes, poses, 3, KNOWN)
    assert [radius(one) for one in between] == pytest.approx([0.45, 0.5, 0.55], abs=0.02)
    with pytest.raises(InputError, match="each code needs one pose"):
        engine.decode("spheres", codes, poses[:1], KNOWN)


CODES = np.array([[0.3, 0.1, -0.2], [-0.4, 0.2, 0.1]], dtype=np.float32)


def test_zero_weights_do_not_move_codes(engine: Engine) -> None:
    for columns in range(4):
        moved = engine.move_codes("spheres", np.zeros((2, columns)), CODES)
        np.testing.assert_array_equal(moved, CODES)
        assert moved.dtype == np.float32
    [mean] = engine.move_codes("spheres", np.zeros((1, 1)))
    np.testing.assert_array_equal(mean, engine.model("spheres").mean)


def test_weights_move_by_standard_deviations_along_the_directions(engine: Engine) -> None:
    directions = engine.model("spheres").principal_components.numpy()
    weights = np.array([[2.0, -1.0], [0.0, 0.5]])
    moved = engine.move_codes("spheres", weights, CODES)
    np.testing.assert_allclose(moved, CODES + weights @ directions[:2], atol=1e-6)


def test_opposite_weights_move_symmetrically_about_the_mean(engine: Engine) -> None:
    weights = np.array([[1.5, -0.5, 2.0]])
    ahead, back = (engine.move_codes("spheres", sign * weights)[0] for sign in (1, -1))
    np.testing.assert_allclose((ahead + back) / 2, engine.model("spheres").mean, atol=1e-6)
    assert np.linalg.norm(ahead - back) > 0.1


@pytest.mark.parametrize(
    ("weights", "codes", "words"),
    [
        (np.zeros((1, 4)), None, "at most 3"),
        (np.zeros(3), None, "at most 3"),
        (np.full((1, 2), np.nan), None, "finite"),
        (np.full((1, 2), 1e300), None, "finite"),
        (np.zeros((1, 2)), CODES, "give one row for each code"),
        (np.zeros((2, 2)), CODES[:, :2], "a code of spheres must be 3 finite numbers"),
        (np.zeros((2, 2)), np.full((2, 3), np.inf), "a code of spheres must be 3 finite numbers"),
        (np.zeros((2, 2)), CODES[0], "a code of spheres must be 3 finite numbers"),
    ],
)
def test_weights_that_do_not_fit_the_model_or_the_codes_are_refused(
    engine: Engine, weights: np.ndarray, codes: np.ndarray | None, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        engine.move_codes("spheres", weights, codes)


def test_variations_repeat_with_their_seed_and_stand_at_the_pose(engine: Engine) -> None:
    pose = Similarity(20.0, np.eye(3), np.array([100.0, 0, 0]))
    first, second = (engine.vary("spheres", CODES[0], pose, 3, 0.5, KNOWN) for _ in range(2))
    other = engine.vary("spheres", CODES[0], pose, 3, 0.5, replace(KNOWN, seed=1))
    assert len(first) == 3 and all(closed(shape) for shape in first)
    assert all(shape.pose is pose for shape in first)
    for one, same, different in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(one.vertices, same.vertices)
        assert not np.array_equal(one.code, different.code)
        np.testing.assert_allclose(one.vertices.mean(axis=0), (100, 0, 0), atol=1.5)


def test_the_deviation_of_variations_is_proportional_to_the_spread(engine: Engine) -> None:
    origin, model = Similarity.identity(), engine.model("spheres")
    deviations = {
        spread: np.stack([one.code for one in engine.vary("spheres", CODES[0], origin, 4, spread, KNOWN)]) - CODES[0]
        for spread in (0.25, 0.5, 1.0)
    }
    for spread, deviation in deviations.items():
        np.testing.assert_allclose(deviation, spread * deviations[1.0], atol=1e-6)
    # About the mean and with a spread of 1 they are the samples of that seed.
    around_mean = engine.vary("spheres", model.mean.numpy(), origin, 4, 1.0, KNOWN)
    for one, sample in zip(around_mean, engine.sample("spheres", 4, KNOWN), strict=True):
        np.testing.assert_array_equal(one.code, sample.code)


@pytest.mark.parametrize(
    ("code", "count", "spread", "words"),
    [
        (CODES[0], 2, 0.0, "spread"),
        (CODES[0], 2, -0.5, "spread"),
        (CODES[0], 2, 1.01, "spread"),
        (CODES[0], 2, np.nan, "spread"),
        (CODES[0], 0, 0.5, "samples"),
        (CODES[0], 1_001, 0.5, "samples"),
        (CODES[0, :2], 2, 0.5, "a code of spheres must be 3 finite numbers"),
        (np.full(3, np.nan), 2, 0.5, "a code of spheres must be 3 finite numbers"),
        (CODES, 2, 0.5, "a code of spheres must be 3 finite numbers"),
    ],
)
def test_variations_out_of_range_are_refused(
    engine: Engine, code: np.ndarray, count: int, spread: float, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        engine.vary("spheres", code, Similarity.identity(), count, spread, KNOWN)


def test_candidates_are_the_best_and_then_draws_that_explain_the_input_as_well(engine: Engine) -> None:
    settings = replace(KNOWN, candidates=3)
    sources = [cap(0.5), cap(0.56)]
    shapes = engine.complete("spheres", sources, settings)
    alone = engine.complete("spheres", sources, KNOWN)
    assert len(shapes) == 6
    for best, expected in zip(shapes[::3], alone, strict=True):
        np.testing.assert_array_equal(best.vertices, expected.vertices)
    assert len({shape.code.tobytes() for shape in shapes}) == 6
    assert all(closed(shape) and shape.explained > 0.9 and shape.observed is not None for shape in shapes)
    again = engine.complete("spheres", sources, settings)
    for one, other in zip(shapes, again, strict=True):
        np.testing.assert_array_equal(one.code, other.code)


def test_more_candidates_of_a_source_need_no_second_fit(cached: Engine) -> None:
    [first] = cached.complete("spheres", [cap()], KNOWN)
    shapes, seen = phases(cached.complete, "spheres", [cap()], replace(KNOWN, candidates=2))
    assert Phase.FITTING not in seen
    np.testing.assert_array_equal(shapes[0].code, first.code)


@pytest.mark.parametrize(("strength", "expected"), [(1.0, 3), (0.0, 0)])
def test_candidates_are_refined_one_at_a_time_and_only_if_asked(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, strength: float, expected: int
) -> None:
    """A task of many candidates can so be cancelled between two, and reports its progress."""
    refined: list[int] = []
    done: list[int] = []

    def counted(*arguments: Any) -> np.ndarray:
        refined.append(len(refined))
        return fit_residual_field(*arguments)

    def heard(phase: Phase, fraction: float) -> None:
        if phase is Phase.EXTRACTING:
            done.append(len(refined))

    monkeypatch.setattr("sdf_backend.fitting.candidates.fit_residual_field", counted)
    shapes = engine.complete("spheres", [cap()], replace(KNOWN, candidates=4, refine=strength), heard)
    assert len(refined) == expected and (expected == 0 or set(done) == {0, 1, 2, 3})
    assert all((shape.refinement is None) == (strength == 0) for shape in shapes)
    assert all(shape.seconds[Phase.REFINING] > 0 for shape in shapes)


def test_a_candidate_without_a_surface_backtracks_towards_the_best(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    [best] = engine.complete("spheres", [cap()], KNOWN)
    extract, far = engine_module.extract_shape, []

    def only_near(meshes: Any, code: np.ndarray, *rest: Any) -> Shape:
        if np.abs(code - best.code).max() > 0 and len(far) < 2:
            far.append(np.abs(code - best.code).max())
            raise EmptySurfaceError("no surface")
        return extract(meshes, code, *rest)

    monkeypatch.setattr(engine_module, "extract_shape", only_near)
    first, second = engine.complete("spheres", [cap()], replace(KNOWN, candidates=2))
    np.testing.assert_array_equal(first.code, best.code)
    assert np.abs(second.code - best.code).max() == pytest.approx(far[0] / 4, rel=1e-3)
    assert far[1] == pytest.approx(far[0] / 2, rel=1e-3)


def test_observations_of_both_kinds_cannot_be_fitted_in_one_batch(engine: Engine) -> None:
    solid, surface = observe_solid(ball(), None), observe_surface(cap(), None)
    for batch in ([solid, surface], []):
        with pytest.raises(InputError, match="all solids or all surfaces"):
            engine.fit("spheres", batch, KNOWN)


def test_a_public_fit_and_extraction_give_the_shape_of_the_task(engine: Engine) -> None:
    """As evaluation calls them."""
    [encoding] = engine.fit("spheres", [observe_surface(cap(0.55), np.array([0.0, 1, 0]))], KNOWN)
    shape, [completed] = engine.extract("spheres", encoding, KNOWN), engine.complete("spheres", [cap(0.55)], KNOWN)
    np.testing.assert_array_equal(shape.vertices, completed.vertices)
    np.testing.assert_array_equal(shape.observed, completed.observed)
    assert shape.explained == completed.explained


@pytest.mark.parametrize("scale", [np.inf, np.nan, 1e308])
def test_a_shape_that_is_not_finite_does_not_leave(engine: Engine, scale: float) -> None:
    pose = replace(Similarity.identity(), scale=scale, translation=np.full(3, 1.7e308))
    with pytest.raises(InputError, match="not finite"):
        engine.decode("spheres", np.zeros((1, 3)), [pose], KNOWN)
    with pytest.raises(InputError, match="finite numbers"):
        engine.decode("spheres", np.full((1, 3), scale), [Similarity.identity()], KNOWN)
