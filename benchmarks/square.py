"""A mesh of any size, for what does not depend on a mesh's shape; needs numpy alone, which Blender has too."""

import numpy as np


def wavy_square(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A square with `side` vertices along each side: (side^2, 3) float32, and (2 (side - 1)^2, 3) int32 triangles."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, side, dtype=np.float32),) * 2)
    vertices = np.stack([x, y, 0.1 * np.sin(5 * x * y)], axis=-1).reshape(-1, 3)
    corner = (np.arange(side - 1)[:, None] * side + np.arange(side - 1)).reshape(-1, 1)
    faces = np.concatenate([corner + [0, 1, side], corner + [1, side + 1, side]])
    return np.ascontiguousarray(vertices), faces.astype(np.int32)
