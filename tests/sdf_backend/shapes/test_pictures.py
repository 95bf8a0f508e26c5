"""Pictures of shapes: as their meshes are, all around, and on the way to another; and the command that writes them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from typer.testing import CliRunner, Result

from sdf_backend.cli import app
from sdf_backend.geometry.camera import BACKGROUND
from sdf_backend.geometry.isosurface import ExtractSettings, extract_surface
from sdf_backend.geometry.ray_casting import View, cast_rays
from sdf_backend.model.store import Model, ModelStore, load_model
from sdf_backend.progress import silent
from sdf_backend.shapes.interpolation import ImplicitShape
from sdf_backend.shapes.pictures import render_shapes

SMALL = View((64, 64))


def drawn(image: np.ndarray) -> np.ndarray:
    """The pixels that are not background."""
    return (np.abs(image.astype(int) - np.array(BACKGROUND, int)) > 3).any(axis=2)


def radius(image: np.ndarray) -> float:
    """The radius, in canonical units, of the disc that a ball is drawn as."""
    return math.sqrt(drawn(image).sum() / math.pi) / View(image.shape[1::-1]).camera(1).scale


@pytest.mark.parametrize("name", sorted(ModelStore().paths()))
def test_one_shape_of_each_category_has_the_silhouette_of_its_mesh_to_a_pixel(name: str) -> None:
    model = load_model(ModelStore().find(name))
    field = ImplicitShape(model.codes[0].numpy(), None).field(model.folded(torch.float32))
    settings = ExtractSettings(clamp=model.card.clamp)
    mesh = extract_surface(field, settings)
    camera = View((72, 72)).camera(1)
    cast = np.zeros(camera.height * camera.width, bool)
    hits = cast_rays(field, camera, settings)
    cast[hits.pixels] = True
    centres = camera.pixel_centres()
    caster = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).ray
    meshed = caster.intersects_any(centres + 2 * camera.basis[2], np.tile(-camera.basis[2], (len(centres), 1)))
    meshed, cast = (one.reshape(camera.height, camera.width) for one in (meshed, cast))
    around = np.ones((3, 3), bool)
    assert meshed.sum() > 100
    assert not (cast & ~binary_dilation(meshed, around)).any()
    assert not (binary_erosion(meshed, around) & ~cast).any()
    # The points are on the field's surface, and the normals are its gradients.
    points = torch.from_numpy(hits.points).float()
    assert field(points).abs().max() < 1e-3
    ahead = field(points + 1e-3 * torch.from_numpy(hits.normals).float()) - field(points)
    assert float((ahead > 0).float().mean()) > 0.99


def test_a_turntable_turns_one_shape_by_equal_angles(spheres: Model) -> None:
    [first, *others] = render_shapes(spheres, [ImplicitShape(np.zeros(3, np.float32), None)], SMALL, 3, silent)
    assert first.shape == (64, 64, 3)
    assert len(others) == 2
    turned = View(SMALL.size, SMALL.azimuth + 240)
    [again] = render_shapes(spheres, [ImplicitShape(np.zeros(3, np.float32), None)], turned, 1, silent)
    assert np.array_equal(others[1], again)


def test_frames_between_shapes_go_from_the_first_to_the_last(spheres: Model) -> None:
    shapes = [ImplicitShape(np.array([size, 0, 0], np.float32), None) for size in (-1, 1, 0)]
    radii = [radius(image) for image in render_shapes(spheres, shapes, SMALL, 5, silent)]
    # The radius of a sphere is 0.5 and a tenth of its first number.
    assert radii == pytest.approx([0.4, 0.5, 0.6, 0.55, 0.5], abs=0.02)


def render(models: Path, output: Path, *arguments: str | Path) -> Result:
    fixed = ("--model", "spheres", "--models", models, "--size", "64", "--device", "cpu")
    return CliRunner().invoke(app, ["render", *map(str, (*arguments, "-o", output, *fixed))])


def test_the_command_renders_a_code_a_training_shape_and_a_mesh_made_here(
    spheres: Model, models_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "code.json").write_text(json.dumps([0.5, 0, 0]))
    mesh = trimesh.creation.icosphere(4, 0.55)
    mesh.export(tmp_path / "made.ply")
    expected = 0.5 + 0.1 * float(spheres.codes[2, 0])
    for size, arguments in (
        (0.55, ("--code", tmp_path / "code.json")),
        (expected, ("--shape", "sphere2")),
        (0.55, (tmp_path / "made.ply", "--pose", "known", "--quality", "preview")),
    ):
        done = render(models_folder, tmp_path / "picture.png", *arguments)
        assert done.exit_code == 0, done.output
        with Image.open(tmp_path / "picture.png") as image:
            assert radius(np.asarray(image)) == pytest.approx(size, abs=0.025)


def test_the_command_renders_a_turntable_as_one_animation(models_folder: Path, tmp_path: Path) -> None:
    done = render(models_folder, tmp_path / "turn.png", "--shape", "sphere0", "--frames", "3")
    assert done.stdout == f"{tmp_path / 'turn.png'}: 3 frames\n", done.output
    with Image.open(tmp_path / "turn.png") as image:
        assert getattr(image, "n_frames", 1) == 3


def test_wrong_input_is_an_error_of_one_line(models_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text('["a"]')
    (tmp_path / "short.json").write_text("[1, 2]")
    picture = tmp_path / "picture.png"
    for said, output, arguments in (
        ("is no PNG file; name it picture.png", tmp_path / "picture.gif", ("--shape", "sphere0")),
        ("give files, or --shape, or --code", picture, ()),
        ("give files, or --shape, or --code", picture, ("--shape", "sphere0", "--code", tmp_path / "short.json")),
        ("was trained on no shape 'cube', but on sphere0, sphere1", picture, ("--shape", "cube")),
        ("it must be a JSON list of numbers", picture, ("--code", tmp_path / "words.json")),
        ("it must be a JSON list of numbers", picture, ("--code", tmp_path / "none.json")),
        ("a code of spheres must be 3 finite numbers; its shape is (2,)", picture, ("--code", tmp_path / "short.json")),
    ):
        done = render(models_folder, output, *arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ") and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not picture.exists()
