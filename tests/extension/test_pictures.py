"""The pictures of the menu of models: cut out, and one for each model that ships."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from extension.pictures import PICTURES, SHAPES, cut_out
from sdf_backend.geometry.camera import BACKGROUND

MODELS = Path(__file__).parents[2] / "sdf_backend" / "starter_models"


def test_an_object_is_cut_out_as_a_square_with_its_own_colour_at_the_edge() -> None:
    image = np.full((40, 40, 3), BACKGROUND, np.uint8)
    image[10:20, 5:35] = (50, 60, 70)
    image[9, 5:35] = (150, 155, 160)  # half of each
    cut = cut_out(image)
    assert cut.shape == (30, 30, 4)
    shown = cut[cut[..., 3] > 0]
    assert len(shown) == 11 * 30 and (shown[:, :3] == (50, 60, 70)).all()
    assert sorted(set(shown[:, 3])) == [pytest.approx(127, abs=3), 255]


@pytest.mark.parametrize("model", sorted(path.stem for path in MODELS.glob("*.safetensors")))
def test_a_model_that_ships_has_a_small_picture(model: str) -> None:
    assert model in SHAPES
    path = PICTURES / f"{model}.png"
    assert path.stat().st_size < 20_000
    with Image.open(path) as picture:
        assert picture.mode == "RGBA" and picture.width == picture.height <= 128
