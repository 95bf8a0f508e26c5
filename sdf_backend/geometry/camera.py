"""An orthographic camera and the light of rendered pictures.

Geometry is transformed into PIXEL SPACE: x to the right and y down in pixels, z towards the viewer at the same scale.
Colours are 0 to 255.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Up = Literal["y", "z"]
Color = tuple[float, float, float]

BACKGROUND: Color = (250, 250, 251)
CLAY: Color = (178, 190, 204)
# Three-quarter view of the front: most canonical frames face +z, that of airplanes faces -x.
AZIMUTH, ELEVATION = -38.0, 24.0
MARGIN = 0.06  # share of the image, on each side
GAMMA = 2.2


@dataclass(frozen=True)
class Camera:
    """An orthographic camera.

    basis : (3, 3), rows are right, up, and towards the viewer
    centre : (2,), right and up coordinates of the image's centre
    scale : pixels per unit
    width, height : of the image, in pixels
    """

    basis: Floats
    centre: Floats
    scale: float
    width: int
    height: int

    @classmethod
    def framing(cls, points: Floats, size: tuple[int, int], azimuth: float, elevation: float, up: Up) -> "Camera":
        """The camera whose image of this size, width and height, points of shape (n, 3) fill but for its margin.

        Raises `ValueError` for an image without pixels.
        """
        width, height = size
        if min(width, height) < 1:
            raise ValueError(f"size is {size}; both sides must be at least one pixel.")
        basis = view_basis(azimuth, elevation, up)
        flat = points @ basis[:2].T
        low, high = flat.min(axis=0), flat.max(axis=0)
        # A single point has no extent; the bound keeps the scale finite.
        extent = np.maximum(high - low, 1e-9 + 1e-6 * np.abs(flat).max())
        scale = (1 - 2 * MARGIN) * min(width / extent[0], height / extent[1])
        return cls(basis, (low + high) / 2, float(scale), width, height)

    def to_pixels(self, points: Floats) -> Floats:
        """Transform (n, 3) points into pixel space."""
        x, y, z = self.scale * (points @ self.basis.T - [*self.centre, 0]).T
        return np.stack([self.width / 2 + x, self.height / 2 - y, z], axis=1)

    def pixel_centres(self) -> Floats:
        """The centre of each pixel, row by row, on the plane through the origin, (height * width, 3)."""
        rows, columns = np.indices((self.height, self.width)).reshape(2, -1) + 0.5
        right = (columns - self.width / 2) / self.scale + self.centre[0]
        up = (self.height / 2 - rows) / self.scale + self.centre[1]
        return np.stack([right, up], axis=1) @ self.basis[:2]

    def canvas(self) -> Floats:
        """An empty image, (height, width, 3)."""
        return np.tile(np.array(BACKGROUND, dtype=np.float64), (self.height, self.width, 1))


def view_basis(azimuth: float, elevation: float, up: Up) -> Floats:
    """The axes of a view, (3, 3): right, up, and towards the viewer.

    Parameters
    ----------
    azimuth : rotation about the up axis, in degrees: 0 is the front (+z with y up, -y with z up), 90 is +x
    elevation : above the horizontal, in degrees
    up : "y" for canonical frames, "z" for Blender's
    """
    azimuth, elevation = np.radians([azimuth, elevation])
    right = np.array([np.cos(azimuth), 0, -np.sin(azimuth)])
    toward = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    basis = np.stack([right, np.cross(toward, right), toward])
    match up:
        case "y":
            return basis
        case "z":
            # The same camera in Blender's axes: y up, front +z becomes z up, front -y.
            return basis @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    raise ValueError(f"up is {up!r}; it must be 'y' or 'z'.")


def shaded(colors: Floats, normals: Floats) -> Floats:
    """Lambert shading in linear light: a key light, a weak fill light, and an ambient term that is brighter from above.

    colors : (n, 3) or (1, 3); normals : (n, 3), unit, in view space (right, up, towards the viewer).
    """
    key, fill = unit(np.array([-0.45, 0.65, 0.75])), unit(np.array([0.8, 0.1, 0.45]))
    ambient = 0.17 + 0.07 * normals[:, 1]
    # Wrapping the key light around the terminator keeps the shadow side readable.
    wrapped = np.clip((normals @ key + 0.2) / 1.2, 0, None)
    light = ambient + 0.85 * wrapped + 0.16 * np.clip(normals @ fill, 0, None)
    linear = (colors / 255) ** GAMMA * light[:, None]
    return 255 * np.clip(linear, 0, 1) ** (1 / GAMMA)


def downsampled(canvas: Floats, factor: int) -> NDArray[np.uint8]:
    """The mean of each block of `factor` by `factor` pixels of an image, (height, width, 3)."""
    height, width, _ = canvas.shape
    blocks = canvas.reshape(height // factor, factor, width // factor, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def unit(vectors: Floats) -> Floats:
    """Vectors of length 1 along the last axis; zero vectors stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300)
