"""Draws the pictures of the menu of models, blender_addon/pictures/: a training shape of each, cut out.

python -m extension.pictures [MODEL ...]
"""

import sys
from pathlib import Path

import numpy as np

from sdf_backend.engine import Engine
from sdf_backend.geometry.camera import BACKGROUND
from sdf_backend.geometry.png import write_png
from sdf_backend.geometry.ray_casting import View
from sdf_backend.model.codes import training_code
from sdf_backend.model.store import ModelStore
from sdf_backend.progress import silent
from sdf_backend.shapes.interpolation import ImplicitShape
from sdf_backend.shapes.pictures import render_shapes

PICTURES = Path(__file__).parents[1] / "blender_addon" / "pictures"
# Chosen by eye: what one thinks of first.
SHAPES = {
    "airplanes": "A320",
    "bottles": "scopia_wine_bottle",
    "cabinets": "blendswap-cc-0_bookcase",
    "cars": "Scenery_Transport_vwgolfsilver",
    "chairs": "blendswap-cc-0_oakChair",
    "humans": "body-0003",
    "lamps": "katorlegaz_pedestal-vase-lamp",
    "mugs": "mugs-turned-0-00034",
    "sofas": "blendswap-cc-0_sofa",
    "tables": "blendswap-cc-0_oakTable",
}
# Pixels before they are cut; Blender shows them at 40 on an ordinary screen, and at 80 on a fine one.
VIEW = View((96, 96))


def main() -> None:
    """Draw the pictures of the models that are named, or of all."""
    engine = Engine(ModelStore(None), "cpu")
    for name in sys.argv[1:] or SHAPES:
        model = engine.model(name, silent)
        shape = ImplicitShape(training_code(model, SHAPES[name]), None)
        [image] = render_shapes(model, [shape], VIEW, 1, silent)
        write_png(PICTURES / f"{name}.png", [cut_out(image)])


def cut_out(image: np.ndarray) -> np.ndarray:
    """The object in a picture, (h, w, 3) uint8, as a square without background, (s, s, 4) uint8.

    A pixel beside the background is a mixture of both. It gets the colour of the neighbour that differs most from the
    background, and covers as much as its own differs, relative to that.
    """
    contrast = np.abs(image.astype(float) - BACKGROUND).sum(axis=2)  # (h, w)
    rows, columns = np.nonzero(contrast)
    size = max(np.ptp(rows), np.ptp(columns)) + 1
    around = [np.roll(contrast, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    beside = [np.roll(image, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    strongest, is_edge = np.argmax(around, axis=0), np.min(around, axis=0) == 0
    pure = np.take_along_axis(np.stack(beside), strongest[None, :, :, None], axis=0)[0]
    share = np.where(is_edge, contrast / np.maximum(np.max(around, axis=0), 1), 1.0)
    cut = np.dstack([np.where(is_edge[..., None], pure, image), 255 * share]).astype(np.uint8)
    square = np.zeros((size, size, 4), np.uint8)
    inside = cut[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    top, left = (size - inside.shape[0]) // 2, (size - inside.shape[1]) // 2
    square[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return square


if __name__ == "__main__":
    main()
