"""Renders meshes, point clouds and signed samples to images, without a GPU or a display.

    frame = shared_bounds(truth.vertices, guess.vertices)
    truth_image = render_mesh(truth.vertices, truth.faces, bounds=frame)
    guess_image = render_mesh(guess.vertices, guess.faces, bounds=frame, vertex_colors=observed)
    write_contact_sheet([truth_image, guess_image], ["ground truth", "completed"], 2, Path("chair.png"))

The camera is orthographic. Geometry is first transformed into PIXEL SPACE: x to the right and y down in (supersampled)
pixels, z towards the viewer at the same scale. Colours are 0 to 255, images are (height, width, 3) uint8, sizes are
(width, height). Back faces are magenta: a correctly oriented, closed mesh shows none.
All functions are pure. Malformed data raises `InputError`, a ValueError.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from sdf_backend.errors import InputError
from sdf_backend.geometry.camera import (
    AZIMUTH,
    BACKGROUND,
    CLAY,
    ELEVATION,
    Camera,
    Color,
    Up,
    downsampled,
    shaded,
    unit,
)
from training.triangle_mesh import Floats, Ints, checked_mesh, checked_points

Pixels = NDArray[np.uint8]
Axis = Literal["x", "y", "z"]

BACK_FACE: Color = (225, 30, 190)  # magenta, used for nothing else
OBSERVED: Color = (62, 124, 214)
COMPLETED: Color = (246, 146, 50)
INSIDE: tuple[Color, Color] = ((20, 72, 160), (150, 200, 232))  # at the surface, far from the surface
OUTSIDE: tuple[Color, Color] = ((178, 20, 38), (248, 184, 156))

SUPERSAMPLING = 2
# Normals that differ by more than this angle mark a crease, which is shaded flat.
CREASE_COSINE = float(np.cos(np.radians(40)))
# Raw data doubles faces back to back: within this depth, in pixels, the front face hides the back face.
BACK_FACE_BIAS = 0.02
FONT_SIZE, GAP = 14, 12


def observed_colors(observed: ArrayLike) -> Floats:
    """Map a mesh's `observed` attribute to colours: 1 is observed (blue), 0 is completed (orange).

    observed : (n,), clipped to 0..1. Returns (n, 3).
    """
    share = np.clip(np.asarray(observed, dtype=np.float64), 0, 1)[:, None]
    return share * np.array(OBSERVED) + (1 - share) * np.array(COMPLETED)


def shared_bounds(*clouds: ArrayLike) -> Floats:
    """Bounding box of all point sets, (2, 3); renders that share it as `bounds` have the same framing and scale."""
    points = np.concatenate([checked_points(cloud, "cloud") for cloud in clouds])
    return np.stack([points.min(axis=0), points.max(axis=0)])


def render_mesh(
    vertices: ArrayLike,
    faces: ArrayLike,
    size: tuple[int, int] = (480, 360),
    azimuth: float = AZIMUTH,
    elevation: float = ELEVATION,
    up: Up = "y",
    vertex_colors: ArrayLike | None = None,
    color: Color = CLAY,
    bounds: ArrayLike | None = None,
) -> Pixels:
    """Render a triangle mesh with shading; back faces are magenta.

    Parameters
    ----------
    vertices : (n, 3); faces : (m, 3), counter-clockwise seen from outside.
    size : width and height in pixels.
    azimuth : camera rotation about the up axis, in degrees: 0 is the front (+z with y up, -y with z up), 90 is +x.
    elevation : of the camera above the horizontal, in degrees.
    up : "y" for canonical frames, "z" for Blender's.
    vertex_colors : (n, 3) colours, or (n,) observed values (see `observed_colors`); overrides `color`.
    bounds : (2, 3) bounding box that fills the image; that of the mesh where None.

    Returns
    -------
    image : (height, width, 3) uint8

    Raises
    ------
    InputError : malformed mesh, colours or bounds
    """
    vertices, faces = checked_mesh(vertices, faces)
    colors = _colors(vertex_colors, color, len(vertices))
    camera = _camera(vertices, size, azimuth, elevation, up, bounds)
    in_pixels = camera.to_pixels(vertices)  # (n, 3)
    # Normals in view space: pixel space is mirrored, its y points down.
    in_view = vertices @ camera.basis.T  # (n, 3)
    face_normals = _face_normals(in_view, faces)
    vertex_normals = _vertex_normals(in_view, faces, face_normals)
    front = _Hits.trace(in_pixels, faces, np.flatnonzero(face_normals[:, 2] > 0), camera)
    back = _Hits.trace(in_pixels, faces, np.flatnonzero(face_normals[:, 2] < 0), camera)
    inverted = back.depth > front.depth + BACK_FACE_BIAS
    canvas = camera.canvas()
    for hits, shown in ((front, ~inverted & (front.face >= 0)), (back, inverted)):
        face, weights = hits.face[shown], hits.weights[shown]
        normals = _shading_normals(face_normals[face], vertex_normals[faces[face]], weights)
        if hits is front:
            canvas[shown] = shaded(np.einsum("nk,nkd->nd", weights, colors[faces[face]]), normals)
        else:
            canvas[shown] = shaded(np.array([BACK_FACE]), -normals)
    return downsampled(canvas, SUPERSAMPLING)


def render_points(
    points: ArrayLike,
    size: tuple[int, int] = (480, 360),
    azimuth: float = AZIMUTH,
    elevation: float = ELEVATION,
    up: Up = "y",
    vertex_colors: ArrayLike | None = None,
    color: Color = CLAY,
    bounds: ArrayLike | None = None,
    normals: ArrayLike | None = None,
    radius: float | None = None,
) -> Pixels:
    """Render a point cloud as small shaded discs with a depth buffer.

    Takes the parameters of `render_mesh`, and:

    normals : (n, 3), for shading. A disc whose normal faces away is dark: the normal is inverted, or the disc is on the
        far side and visible through a gap. Without normals each point is shaded as a ball.
    radius : in pixels; None derives it from the number of points.
    """
    points = checked_points(points, "points")
    colors = _colors(vertex_colors, color, len(points))
    camera = _camera(points, size, azimuth, elevation, up, bounds)
    in_pixels = camera.to_pixels(points)  # (n, 3)
    owner, ball_normals = _splat(in_pixels, camera, _disc_radius(len(points), size) if radius is None else radius)
    hit = owner >= 0  # (height, width)
    shown = owner[hit]
    shading_normals = ball_normals[hit]
    if normals is not None:
        given = checked_points(normals, "normals")
        if len(given) != len(points):
            raise InputError(f"There are {len(points)} points but {len(given)} normals.")
        shading_normals = unit(given @ camera.basis.T)[shown]
    canvas = camera.canvas()
    canvas[hit] = _with_haze(shaded(colors[shown], shading_normals), in_pixels[shown, 2], in_pixels[:, 2])
    return downsampled(canvas, SUPERSAMPLING)


def signed_slice(
    points: ArrayLike,
    sdf: ArrayLike,
    axis: Axis | int = "z",
    size: tuple[int, int] = (420, 420),
    thickness: float = 0.02,
    half_width: float = 1.0,
) -> Pixels:
    """Draw the signed samples near a plane through the origin: blue inside, red outside, darkest at the surface.

    Parameters
    ----------
    points : (n, 3) in a canonical, y up frame; sdf : (n,) signed distances, negative inside (zero counts as outside).
    axis : normal of the plane: "z" for a front view (x right, y up), "x" for a side view (z left, y up), "y" for a top
        view (x right, z down). 0, 1 and 2 mean x, y and z.
    thickness : largest distance of a drawn sample from the plane, in units of the points.
    half_width : of the square that is shown, in units of the points.

    Raises
    ------
    InputError : malformed samples, or no sample near the plane
    """
    points, values = checked_points(points, "points"), np.asarray(sdf, dtype=np.float64)
    if values.shape != (len(points),) or not np.isfinite(values).all():
        raise InputError(f"sdf has shape {values.shape}; it must hold {len(points)} finite numbers, one per point.")
    if axis not in ("x", "y", "z", 0, 1, 2):
        raise ValueError(f"axis is {axis!r}; it must be 'x', 'y' or 'z'.")
    column = "xyz".index(axis) if isinstance(axis, str) else axis
    near = np.abs(points[:, column]) <= thickness
    if not near.any():
        raise InputError(f"None of the {len(points)} samples lies within {thickness} of the plane {'xyz'[column]} = 0.")
    azimuth, elevation = ((90.0, 0.0), (0.0, 90.0), (0.0, 0.0))[column]
    frame = half_width * np.array([[-1, -1, -1], [1, 1, 1]])
    points, values = points[near], values[near]
    camera = _camera(points, size, azimuth, elevation, "y", frame)
    # With depth 0, each pixel shows the sample whose disc centre is nearest.
    owner, _ = _splat(camera.to_pixels(points) * [1, 1, 0], camera, _disc_radius(len(points), size))
    canvas = camera.canvas()
    canvas[owner >= 0] = _sign_colors(values, half_width)[owner[owner >= 0]]
    inside = int(np.count_nonzero(values < 0))
    legend = [(f"inside {inside:,}", INSIDE[0]), (f"outside {len(values) - inside:,}", OUTSIDE[0])]
    return _with_legend(downsampled(canvas, SUPERSAMPLING), legend)


def _camera(
    points: Floats, size: tuple[int, int], azimuth: float, elevation: float, up: Up, bounds: ArrayLike | None
) -> Camera:
    points = points if bounds is None else _box_corners(bounds)
    width, height = size
    return Camera.framing(points, (SUPERSAMPLING * width, SUPERSAMPLING * height), azimuth, elevation, up)


def _box_corners(bounds: ArrayLike) -> Floats:
    box = checked_points(bounds, "bounds")
    if box.shape != (2, 3) or (box[0] > box[1]).any():
        raise InputError(f"bounds is {box.tolist()}; it must be a low and a high corner.")
    return np.array(list(itertools.product(*box.T)))


def _colors(vertex_colors: ArrayLike | None, color: Color, count: int) -> Floats:
    if vertex_colors is None:
        return np.tile(np.array(color, dtype=np.float64), (count, 1))
    colors = np.asarray(vertex_colors, dtype=np.float64)
    colors = observed_colors(colors) if colors.ndim == 1 else colors
    if colors.shape != (count, 3):
        raise InputError(f"vertex_colors has shape {np.shape(vertex_colors)}; it must be ({count}, 3) or ({count},).")
    return checked_points(colors, "vertex_colors")


@dataclass(frozen=True)
class _Hits:
    """First intersection of the ray through each pixel."""

    face: Ints  # (height, width): -1 for none
    weights: Floats  # (height, width, 3): barycentric
    depth: Floats  # (height, width): z in pixel space, -inf for none

    @classmethod
    def trace(cls, vertices: Floats, faces: Ints, chosen: Ints, camera: Camera) -> _Hits:
        """Cast a ray along -z through each pixel centre, at the chosen faces only; vertices are in pixel space."""
        shape = camera.height, camera.width
        face, weights, depth = np.full(shape, -1), np.zeros((*shape, 3)), np.full(shape, -np.inf)
        if len(chosen) == 0:
            return cls(face, weights, depth)
        row, column = np.indices(shape)
        start = np.stack([column + 0.5, row + 0.5, np.full(shape, vertices[:, 2].max() + 1)], axis=-1).reshape(-1, 3)
        scene = EmbreeScene(robust=True)
        TriangleMesh(scene, vertices.astype(np.float32), faces[chosen].astype(np.int32))
        along = np.tile(np.array([0, 0, -1], dtype=np.float32), (len(start), 1))
        first = scene.run(start.astype(np.float32), along).reshape(shape)
        hit = first >= 0
        face[hit] = chosen[first[hit]]
        corners = vertices[faces[face[hit]]]
        weights[hit] = _barycentric(start.reshape(*shape, 3)[hit][:, :2], corners[:, :, :2])
        depth[hit] = np.einsum("nk,nk->n", weights[hit], corners[:, :, 2])
        return cls(face, weights, depth)


def _barycentric(points: Floats, corners: Floats) -> Floats:
    """Barycentric weights, (n, 3), of points, (n, 2), in triangles of non-zero area, (n, 3, 2)."""
    spokes = corners - points[:, None]
    weights = np.stack([_cross2(spokes[:, i], spokes[:, j]) for i, j in ((1, 2), (2, 0), (0, 1))], axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    # The ray was cast in float32: on sliver triangles the point may lie slightly outside.
    weights = np.clip(weights, 0, 1)
    return weights / weights.sum(axis=1, keepdims=True)


def _cross2(a: Floats, b: Floats) -> Floats:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _face_normals(vertices: Floats, faces: Ints) -> Floats:
    """Unit normals, (m, 3); zero for faces of zero area."""
    corners = vertices[faces]
    return unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))


def _vertex_normals(vertices: Floats, faces: Ints, face_normals: Floats) -> Floats:
    """Angle-weighted unit normals, (n, 3), which do not depend on the triangulation of flat sides.

    Thürmer and Wüthrich, "Computing vertex normals from polygonal facets", 1998.
    """
    corners = vertices[faces]
    to_next, to_previous = np.roll(corners, -1, axis=1) - corners, np.roll(corners, 1, axis=1) - corners
    angles = np.arctan2(
        np.linalg.norm(np.cross(to_next, to_previous), axis=2), np.sum(to_next * to_previous, axis=2)
    )  # (m, 3)
    weighted = (angles[:, :, None] * face_normals[:, None]).reshape(-1, 3)
    sums = [np.bincount(faces.ravel(), along, len(vertices)) for along in weighted.T]
    normals = np.stack(sums, axis=1).astype(np.float64)
    # The normals of faces doubled back to back cancel; the rounding error that remains has no meaningful direction.
    normals[np.linalg.norm(normals, axis=1) < 1e-6] = 0
    return unit(normals)


def _shading_normals(flat: Floats, smooth: Floats, weights: Floats) -> Floats:
    """Normals at ray hits: interpolated over gentle bends, flat at creases.

    flat : (k, 3) face normals; smooth : (k, 3, 3) vertex normals; weights : (k, 3) barycentric. Returns (k, 3), unit.
    """
    flat = flat[:, None]
    gentle = np.sum(flat * smooth, axis=2, keepdims=True) > CREASE_COSINE
    return unit(np.einsum("nk,nkd->nd", weights, np.where(gentle, smooth, flat)))


def _with_haze(colors: Floats, depth: Floats, all_depths: Floats) -> Floats:
    """Blend far points into the background: point clouds have no outlines to show depth."""
    nearest, farthest = all_depths.max(), all_depths.min()
    haze = 0.4 * (nearest - depth[:, None]) / max(nearest - farthest, 1e-9)
    return (1 - haze) * colors + haze * np.array(BACKGROUND)


def _splat(centres: Floats, camera: Camera, radius: float) -> tuple[Ints, Floats]:
    """Draw each point as a ball, with a depth buffer.

    centres : (n, 3) in pixel space; radius : in pixels of the final image.
    Returns the point index at each pixel, (height, width), -1 for none, and the normal of its ball, (height, width, 3).
    """
    radius *= SUPERSAMPLING
    reach = int(np.ceil(radius))
    depth = np.full(camera.height * camera.width, -np.inf)
    owner, normals = np.full(depth.shape, -1), np.zeros((len(depth), 3))
    cell = np.floor(centres[:, :2])
    for dx, dy in itertools.product(range(-reach, reach + 1), repeat=2):
        column, row = (cell + np.array([dx, dy])).T
        x, y = (cell + np.array([dx, dy]) + 0.5 - centres[:, :2]).T
        height2 = radius**2 - x**2 - y**2
        kept = np.flatnonzero(
            (height2 >= 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        )
        pixel = (row[kept] * camera.width + column[kept]).astype(np.int64)
        z = centres[kept, 2] + np.sqrt(height2[kept])
        np.maximum.at(depth, pixel, z)
        won = z == depth[pixel]
        pixel, kept = pixel[won], kept[won]
        owner[pixel] = kept
        normals[pixel] = np.stack([x[kept], -y[kept], np.sqrt(height2[kept])], axis=1) / radius
    shape = camera.height, camera.width
    return owner.reshape(shape), normals.reshape(*shape, 3)


def _disc_radius(count: int, size: tuple[int, int]) -> float:
    """Radius in pixels that keeps few points visible and many points apart."""
    return float(np.clip(0.5 * np.sqrt(size[0] * size[1] / count), 1.1, 3.5))


def _sign_colors(sdf: Floats, half_width: float) -> Floats:
    # Colours saturate at a quarter of the width: most samples are nearer, and contrast matters at the surface.
    far = np.clip(np.abs(sdf) / (0.25 * half_width), 0, 1)[:, None]
    near_color, far_color = np.where((sdf < 0)[:, None, None], np.array(INSIDE), np.array(OUTSIDE)).swapaxes(0, 1)
    return (1 - far) * near_color + far * far_color


def _with_legend(image: Pixels, entries: Sequence[tuple[str, Color]]) -> Pixels:
    picture = Image.fromarray(image)
    # Small images get a small font, so that the legend does not cover the samples.
    font = ImageFont.load_default(min(FONT_SIZE, max(9, picture.width // 20)))
    draw, x = ImageDraw.Draw(picture), float(GAP)
    for text, color in entries:
        draw.text((x, GAP // 3), text, fill=rounded_color(color), font=font)
        x += draw.textlength(text, font=font) + GAP
    return np.asarray(picture)


def rounded_color(color: Color) -> tuple[int, int, int]:
    """A colour as whole numbers, as PIL takes it."""
    red, green, blue = (round(value) for value in color)
    return red, green, blue
