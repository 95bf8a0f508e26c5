"""Tasks that name no model: balls and flat discs, each completed with the model of its kind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from round_things import FLAT, directions, stretched

from sdf_backend import engine as engine_module
from sdf_backend.content_cache import ContentCache
from sdf_backend.engine import Engine, Phase, Source
from sdf_backend.errors import Cancelled, InputError
from sdf_backend.geometry.mesh_files import Geometry
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.model.store import Model, ModelStore, save_model
from sdf_backend.serving.task_runner import TaskRunner
from sdf_backend.settings import Pose, Quality, TaskSettings
from sdf_backend.wire.messages import AUTO_MODEL, Submit
from sdf_backend.wire.messages import Source as WireSource

KNOWN = TaskSettings(resolution=32, pose=Pose.KNOWN, quality=Quality.PREVIEW)
NO_FACES = np.zeros((0, 3), dtype=np.int64)


@pytest.fixture(scope="module")
def folder(spheres: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both")
    save_model(folder / "balls.safetensors", spheres)
    save_model(folder / "discs.safetensors", stretched(spheres, FLAT))
    return folder


@pytest.fixture
def engine(folder: Path) -> Engine:
    store = ModelStore(folder)
    store.folders = [folder]  # without those that ship
    return Engine(store, "cpu")


def half(factors: np.ndarray, radius: float = 0.5) -> Source:
    points = directions(3_000) * factors * radius
    return Source(Geometry(points[points[:, 2] > -0.1], NO_FACES))


BALL, DISC = half(np.ones(3)), half(FLAT)


def test_each_source_is_completed_with_its_own_model_and_comes_back_in_its_place(engine: Engine) -> None:
    twice = replace(KNOWN, candidates=2)
    shapes = engine.complete(AUTO_MODEL, [DISC, BALL, half(FLAT, 0.52)], twice)
    assert [shape.model for shape in shapes] == ["discs", "discs", "balls", "balls", "discs", "discs"]
    assert all(shape.seconds[Phase.CHOOSING] > 0 for shape in shapes)
    heights = [float(np.ptp(shape.vertices[:, 1])) for shape in shapes[::2]]
    assert heights == pytest.approx([0.4, 1.0, 0.416], abs=0.05)
    [named] = engine.complete("balls", [BALL], KNOWN)
    np.testing.assert_allclose(shapes[2].code, named.code, atol=1e-3)


def test_previews_of_chosen_models_name_the_source(engine: Engine) -> None:
    seen: dict[int, float] = {}

    def show(index: int, vertices: np.ndarray, faces: np.ndarray) -> None:
        seen[index] = float(np.ptp(vertices[:, 1]))

    engine.complete(AUTO_MODEL, [BALL, DISC], KNOWN, preview=show)
    assert seen[0] > 0.8 > 0.6 > seen[1]


def test_inputs_of_one_interpolation_get_one_model(engine: Engine) -> None:
    found = engine.encode(AUTO_MODEL, [DISC, half(FLAT, 0.55)], KNOWN)
    assert [one.model for one in found] == ["discs", "discs"]
    steps = engine.interpolate(AUTO_MODEL, [DISC, half(FLAT, 0.55)], 3, KNOWN)
    assert [step.model for step in steps] == ["discs"] * 3
    assert max(float(np.ptp(step.vertices[:, 1])) for step in steps) < 0.6


def test_whole_meshes_are_reconstructed_with_a_chosen_model(engine: Engine) -> None:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    whole = Source(Geometry(np.array(mesh.vertices) * FLAT, np.array(mesh.faces)))
    assert engine.reconstruct(AUTO_MODEL, [whole], KNOWN)[0].model == "discs"


def test_a_doubtful_choice_is_said_with_the_shape(engine: Engine, folder: Path) -> None:
    engine.store.folders = [folder, folder.parent / "copies"]
    engine.store.folders[1].mkdir(exist_ok=True)
    (folder.parent / "copies" / "globes.safetensors").write_bytes((folder / "balls.safetensors").read_bytes())
    [shape] = engine.complete(AUTO_MODEL, [BALL], KNOWN)
    assert "explains this nearly as well" in shape.note and shape.model_confidence == pytest.approx(0, abs=1e-6)
    assert shape.confidence == 1  # of the pose, which is known


def test_a_choice_is_made_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    choose: Callable[..., object] = engine_module.choose_model

    def count(*arguments: object) -> object:
        chosen.append(1)
        return choose(*arguments)

    monkeypatch.setattr(engine_module, "choose_model", count)
    store = ModelStore(folder)
    store.folders = [folder]
    engine = Engine(store, "cpu", ContentCache(tmp_path))
    first, again = (engine.complete(AUTO_MODEL, [BALL], KNOWN)[0] for _ in range(2))
    assert chosen == [1] and first.model == again.model == "balls"
    engine.complete(AUTO_MODEL, [DISC], KNOWN)
    assert chosen == [1, 1]


def test_a_choice_can_be_cancelled(engine: Engine) -> None:
    def cancel(phase: str, fraction: float) -> None:
        if phase is Phase.CHOOSING and fraction > 0:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.complete(AUTO_MODEL, [BALL], KNOWN, cancel)


def test_a_damaged_model_is_passed_over_and_without_any_there_is_no_choice(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    engine.store.folders.append(tmp_path)
    assert engine.complete(AUTO_MODEL, [BALL], KNOWN)[0].model == "balls"
    engine.store.folders = [tmp_path]
    with pytest.raises(InputError, match="there is no model to choose; add one to the folder of models"):
        engine.complete(AUTO_MODEL, [BALL], KNOWN)


def test_without_an_input_a_model_must_be_named(engine: Engine) -> None:
    with pytest.raises(InputError, match="without an input auto has nothing to choose by; name one of balls, discs"):
        engine.sample(AUTO_MODEL, 1)
    with pytest.raises(InputError, match="nothing to choose by"):
        engine.decode(AUTO_MODEL, np.zeros((1, 3)), [Similarity.identity()])


def test_a_file_with_the_name_of_the_choice_is_left_out(engine: Engine, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "auto.safetensors").write_bytes((folder / "balls.safetensors").read_bytes())
    engine.store.folders.append(tmp_path)
    assert [card.name for card in engine.models()] == ["spheres", "spheres"]
    assert "rename the file" in str(engine.store.cards()[tmp_path / "auto.safetensors"])


def test_a_client_is_told_which_model_was_chosen(engine: Engine) -> None:
    runner = TaskRunner(engine)

    def run(model: str) -> list[str]:
        sources = tuple(WireSource(source.geometry.vertices) for source in (DISC, BALL))
        job = Submit("0123456789", "complete", model, KNOWN, sources)
        [result] = runner.run([job], lambda phase, fraction: None, lambda job, preview: None)
        return [shape.model for shape in result.shapes]

    assert run(AUTO_MODEL) == ["discs", "balls"]
    assert run("balls") == ["", ""]
