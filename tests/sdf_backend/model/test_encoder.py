"""The network of an encoder, and its place in a model file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sdf_backend.errors import InputError
from sdf_backend.model.encoder import Encoder, EncoderSettings, box_frame, encoder_shapes
from sdf_backend.model.store import Model, load_model, save_model

SETTINGS = EncoderSettings(3, points=16, point_widths=(8, 16), width=8, codes=2)


def with_encoder(model: Model) -> Model:
    torch.manual_seed(0)
    return replace(model, encoder=Encoder(SETTINGS).eval().requires_grad_(False))


def test_the_order_of_the_points_does_not_matter() -> None:
    encoder, points = Encoder(SETTINGS), torch.randn(3, 16, 3)
    one, other = encoder(points), encoder(points.flip(1))
    torch.testing.assert_close(one.codes, other.codes)
    assert one.codes.shape == (3, 2, 3)
    torch.testing.assert_close(one.code_weights.sum(1), torch.ones(3))
    assert (one.log_scale.shape, one.shift.shape, one.turn.shape, one.right.shape) == ((3,), (3, 3), (3, 3), (3,))


def test_a_box_frame_has_the_box_about_the_origin_and_the_farthest_point_at_distance_one() -> None:
    points = torch.tensor([[[2.0, 0, 0], [6, 0, 0], [4, 1, 0]]])
    boxed, centre, size = box_frame(points)
    torch.testing.assert_close(centre, torch.tensor([[4.0, 0.5, 0]]))
    torch.testing.assert_close(size, torch.tensor([4.25]).sqrt())
    torch.testing.assert_close(boxed * size + centre[:, None], points)
    assert float(boxed.norm(dim=2).max()) == pytest.approx(1)


def test_shapes_of_tensors_are_known_without_them() -> None:
    assert encoder_shapes(SETTINGS) == {name: tuple(t.shape) for name, t in Encoder(SETTINGS).state_dict().items()}


def test_an_encoder_survives_its_file(spheres: Model, tmp_path: Path) -> None:
    model, path = with_encoder(spheres), tmp_path / "spheres.safetensors"
    save_model(path, model)
    loaded, points = load_model(path), torch.randn(2, 16, 3)
    assert loaded.encoder is not None and model.encoder is not None
    assert loaded.encoder.settings == SETTINGS
    torch.testing.assert_close(loaded.encoder(points).codes, model.encoder(points).codes, atol=1e-2, rtol=1e-2)
    assert loaded.nbytes > load_without(spheres, tmp_path).nbytes


def load_without(model: Model, folder: Path) -> Model:
    save_model(folder / "without.safetensors", model)
    return load_model(folder / "without.safetensors")


def test_a_model_without_an_encoder_has_none(spheres: Model, tmp_path: Path) -> None:
    assert load_without(spheres, tmp_path).encoder is None


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("width", "8", "encoder.width is '8'"),
        ("point_widths", [8, 0], "encoder.point_widths is"),
        ("code_length", 4, "encoder.code_length is not decoder.code_length"),
        ("codes", 3, "does not match its own card: encoder.code"),
        ("point_widths", [8, 10_000], "does not match its own card: encoder"),
    ],
)
def test_an_encoder_unlike_its_card_is_refused(
    spheres: Model, tmp_path: Path, field: str, value: object, reason: str
) -> None:
    path = tmp_path / "spheres.safetensors"
    save_model(path, with_encoder(spheres))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    card = json.loads(metadata["card"])
    card["encoder"][field] = value
    save_file(load_file(path), path, {**metadata, "card": json.dumps(card)})
    with pytest.raises(InputError, match=reason):
        load_model(path)
