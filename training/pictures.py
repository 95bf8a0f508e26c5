"""Pictures of shapes without a GPU or a display: meshes, point clouds, signed samples, and sheets of them.

    frame = shared_bounds(truth.vertices, guess.vertices)
    truth_image = render_mesh(truth.vertices, truth.faces, bounds=frame)
    guess_image = render_mesh(guess.vertices, guess.faces, bounds=frame, vertex_colors=observed)
    contact_sheet([truth_image, guess_image], ["truth", "completed"], 2, Path("chair.png"))

The camera is orthographic. Geometry is brought into PIXEL SPACE first: x to the right and y down in (supersampled)
pixels, z towards the viewer at the same scale. Colours are 0 to 255 throughout, images are (height, width, 3) uint8,
sizes are (width, height). A face seen from behind is magenta: a closed mesh that is right shows none.
All functions are pure but for the two that write a file. Bad data raises `InputError`, which is a ValueError.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from sdf_backend.errors import InputError
from sdf_backend.files import atomic_write
from training.evaluation.metrics import Floats, Ints, checked_mesh, checked_points

Pixels = NDArray[np.uint8]
Color = tuple[float, float, float]
Up = Literal["y", "z"]
Axis = Literal["x", "y", "z"]

BACKGROUND: Color = (250, 250, 251)
CLAY: Color = (178, 190, 204)
WARNING: Color = (225, 30, 190)  # seen from behind; no other picture uses magenta
SEEN: Color = (62, 124, 214)
FILLED_IN: Color = (246, 146, 50)
INSIDE: tuple[Color, Color] = ((20, 72, 160), (150, 200, 232))  # at the surface, far from it
OUTSIDE: tuple[Color, Color] = ((178, 20, 38), (248, 184, 156))
TEXT = (52, 56, 64)

# Three-quarter view from the side of the nose: canonical fronts look along +z, aeroplanes' noses along -x.
AZIMUTH, ELEVATION = -38.0, 24.0
SUPERSAMPLING = 2
MARGIN = 0.06  # of the picture, on each side
GAMMA = 2.2
# Corners where the surface turns by more than this are edges, and are not smoothed over.
CREASE_COSINE = float(np.cos(np.radians(40)))
# Raw data carries faces twice, back to back; within this many pixels the front one counts.
BACK_TO_BACK = 0.02
FONT_SIZE, GAP = 14, 12


def observed_colors(observed: ArrayLike) -> Floats:
    """Colours for a mesh's `observed` attribute: 1 was seen (blue), 0 was filled in (orange).

    observed : (n,) values, clipped to 0..1. Returns (n, 3).
    """
    share = np.clip(np.asarray(observed, dtype=np.float64), 0, 1)[:, None]
    return share * np.array(SEEN) + (1 - share) * np.array(FILLED_IN)


def shared_bounds(*clouds: ArrayLike) -> Floats:
    """The box around all of the point sets, (2, 3): given to each render as `bounds`, it makes them comparable."""
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
    """A shaded picture of a triangle mesh; faces seen from behind are magenta.

    Parameters
    ----------
    vertices : (n, 3); faces : (m, 3), anticlockwise seen from outside.
    size : width and height in pixels.
    azimuth : degrees by which the camera is turned about the up axis, from the front (+z where y is up, -y where z is)
        towards +x.
    elevation : degrees by which the camera is raised.
    up : "y" for canonical frames, "z" for Blender's.
    vertex_colors : (n, 3) colours, or (n,) observed values (see `observed_colors`); instead of `color`.
    bounds : (2, 3) low and high corners that just fit the picture; the mesh itself where None.

    Returns (height, width, 3) uint8.
    """
    vertices, faces = checked_mesh(vertices, faces)
    colors = _colors(vertex_colors, color, len(vertices))
    camera = _camera(vertices, size, azimuth, elevation, up, bounds)
    placed = camera.place(vertices)
    # Not from pixel space, which is mirrored: y points down there.
    turned = vertices @ camera.basis.T
    face_normals = _face_normals(turned, faces)
    vertex_normals = _vertex_normals(turned, faces, face_normals)
    front = _Hits.trace(placed, faces, np.flatnonzero(face_normals[:, 2] > 0), camera)
    back = _Hits.trace(placed, faces, np.flatnonzero(face_normals[:, 2] < 0), camera)
    inverted = back.depth > front.depth + BACK_TO_BACK
    canvas = camera.canvas()
    for hits, shown in ((front, ~inverted & (front.face >= 0)), (back, inverted)):
        face, weights = hits.face[shown], hits.weights[shown]
        normals = _shading_normals(face_normals[face], vertex_normals[faces[face]], weights)
        if hits is front:
            canvas[shown] = _lit(np.einsum("nk,nkd->nd", weights, colors[faces[face]]), normals)
        else:
            canvas[shown] = _lit(np.array([WARNING]), -normals)
    return _downsampled(canvas, camera)


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
    """A picture of a point cloud as small shaded discs, the nearer before the farther.

    The parameters are those of `render_mesh`, and:

    normals : (n, 3); discs are lit by them. One that looks away is drawn dark: it is inverted, or lies on the far side
        and is seen through a gap. Without normals each point is a little ball.
    radius : in pixels; by the number of points where None.
    """
    points = checked_points(points, "points")
    colors = _colors(vertex_colors, color, len(points))
    camera = _camera(points, size, azimuth, elevation, up, bounds)
    placed = camera.place(points)
    owner, bump = _splat(placed, camera, _disc_radius(len(points), size) if radius is None else radius)
    hit = owner >= 0
    shown = owner[hit]
    lighting = bump[hit]
    if normals is not None:
        turned = checked_points(normals, "normals")
        if len(turned) != len(points):
            raise InputError(f"There are {len(points)} points but {len(turned)} normals.")
        lighting = _unit(turned @ camera.basis.T)[shown]
    canvas = camera.canvas()
    canvas[hit] = _faded(_lit(colors[shown], lighting), placed[shown, 2], placed[:, 2])
    return _downsampled(canvas, camera)


def signed_slice(
    points: ArrayLike,
    sdf: ArrayLike,
    axis: Axis | int = "z",
    size: tuple[int, int] = (420, 420),
    thickness: float = 0.02,
    half_width: float = 1.0,
) -> Pixels:
    """The signed samples near a plane through the origin: blue inside, red outside, darkest at the surface.

    Parameters
    ----------
    points : (n, 3) in a canonical, y up frame; sdf : (n,) signed distances, negative inside (a zero is outside).
    axis : the plane's normal. "z" looks from the front (x right, y up), "x" from the side (z left, y up), "y" from
        above (x right, z down). 0, 1 and 2 mean x, y and z.
    thickness : samples no farther than this from the plane are drawn; in units of the points.
    half_width : of the square that is shown, in units of the points.
    """
    points, values = checked_points(points, "points"), np.asarray(sdf, dtype=np.float64)
    if values.shape != (len(points),) or not np.isfinite(values).all():
        raise InputError(f"sdf has shape {values.shape}; it must hold {len(points)} finite numbers, one a point.")
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
    # Flattened, overlapping discs share their pixels by the nearest centre.
    owner, _ = _splat(camera.place(points) * [1, 1, 0], camera, _disc_radius(len(points), size))
    canvas = camera.canvas()
    canvas[owner >= 0] = _sign_colors(values, half_width)[owner[owner >= 0]]
    inside = int(np.count_nonzero(values < 0))
    legend = [(f"inside {inside:,}", INSIDE[0]), (f"outside {len(values) - inside:,}", OUTSIDE[0])]
    return _with_legend(_downsampled(canvas, camera), legend)


def side_by_side(pictures: Sequence[tuple[str, Pixels]]) -> Pixels:
    """One row of (label, image) pairs as one image, the labels underneath."""
    return _sheet([image for _, image in pictures], [label for label, _ in pictures], max(len(pictures), 1))


def contact_sheet(images: Sequence[Pixels], labels: Sequence[str], columns: int, path: Path) -> None:
    """Write the images as a grid, row by row, each with its label underneath, to a PNG at `path`."""
    write_png(_sheet(images, labels, columns), path)


def write_png(image: Pixels, path: Path) -> None:
    """Write an image as PNG; a reader sees the whole new file or the old one. Raises InputError if it cannot be."""
    with atomic_write(Path(path)) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


@dataclass(frozen=True)
class _Camera:
    """An orthographic view; everything is in supersampled pixels."""

    basis: Floats  # (3, 3): rows are right, up, and towards the viewer
    middle: Floats  # (2,): right and up coordinates of the picture's centre
    scale: float  # pixels a unit
    width: int
    height: int

    def place(self, points: Floats) -> Floats:
        """Bring (n, 3) points into pixel space."""
        x, y, z = self.scale * (points @ self.basis.T - [*self.middle, 0]).T
        return np.stack([self.width / 2 + x, self.height / 2 - y, z], axis=1)

    def canvas(self) -> Floats:
        """An empty picture, (height, width, 3)."""
        return np.tile(np.array(BACKGROUND, dtype=np.float64), (self.height, self.width, 1))


def _camera(
    points: Floats, size: tuple[int, int], azimuth: float, elevation: float, up: Up, bounds: ArrayLike | None
) -> _Camera:
    width, height = (SUPERSAMPLING * side for side in size)
    if min(width, height) < 1:
        raise ValueError(f"size is {size}; both sides must be at least one pixel.")
    basis = _view_basis(azimuth, elevation, up)
    flat = (points if bounds is None else _box_corners(bounds)) @ basis[:2].T
    low, high = flat.min(axis=0), flat.max(axis=0)
    # A single point has no extent; any scale will do, as long as it is finite.
    extent = np.maximum(high - low, 1e-9 + 1e-6 * np.abs(flat).max())
    scale = (1 - 2 * MARGIN) * min(width / extent[0], height / extent[1])
    return _Camera(basis, (low + high) / 2, float(scale), width, height)


def _view_basis(azimuth: float, elevation: float, up: Up) -> Floats:
    turn, raise_ = np.radians([azimuth, elevation])
    right = np.array([np.cos(turn), 0, -np.sin(turn)])
    toward = np.array([np.sin(turn) * np.cos(raise_), np.sin(raise_), np.cos(turn) * np.cos(raise_)])
    basis = np.stack([right, np.cross(toward, right), toward])
    match up:
        case "y":
            return basis
        case "z":
            # y up, front +z becomes z up, front -y: the same camera in Blender's axes.
            return basis @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    raise ValueError(f"up is {up!r}; it must be 'y' or 'z'.")


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
    """What the rays through all pixels meet first."""

    face: Ints  # (height, width): -1 where nothing
    weights: Floats  # (height, width, 3): barycentric
    depth: Floats  # (height, width): z in pixel space, -inf where nothing

    @classmethod
    def trace(cls, placed: Floats, faces: Ints, chosen: Ints, camera: _Camera) -> _Hits:
        """Shoot a ray along -z through each pixel's centre, at the chosen faces only."""
        shape = camera.height, camera.width
        face, weights, depth = np.full(shape, -1), np.zeros((*shape, 3)), np.full(shape, -np.inf)
        if len(chosen) == 0:
            return cls(face, weights, depth)
        row, column = np.indices(shape)
        start = np.stack([column + 0.5, row + 0.5, np.full(shape, placed[:, 2].max() + 1)], axis=-1).reshape(-1, 3)
        scene = EmbreeScene(robust=True)
        TriangleMesh(scene, placed.astype(np.float32), faces[chosen].astype(np.int32))
        along = np.tile(np.array([0, 0, -1], dtype=np.float32), (len(start), 1))
        first = scene.run(start.astype(np.float32), along).reshape(shape)
        hit = first >= 0
        face[hit] = chosen[first[hit]]
        corners = placed[faces[face[hit]]]
        weights[hit] = _barycentric(start.reshape(*shape, 3)[hit][:, :2], corners[:, :, :2])
        depth[hit] = np.einsum("nk,nk->n", weights[hit], corners[:, :, 2])
        return cls(face, weights, depth)


def _barycentric(points: Floats, corners: Floats) -> Floats:
    """Weights, (n, 3), of points, (n, 2), in their triangles, (n, 3, 2), which have an area."""
    spokes = corners - points[:, None]
    weights = np.stack([_cross2(spokes[:, i], spokes[:, j]) for i, j in ((1, 2), (2, 0), (0, 1))], axis=1)
    weights /= weights.sum(axis=1, keepdims=True)
    # The ray was cast in float32: on slivers it may lie a little outside.
    weights = np.clip(weights, 0, 1)
    return weights / weights.sum(axis=1, keepdims=True)


def _cross2(a: Floats, b: Floats) -> Floats:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _face_normals(vertices: Floats, faces: Ints) -> Floats:
    """Unit normals, (m, 3); zero for faces without an area."""
    corners = vertices[faces]
    return _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))


def _vertex_normals(vertices: Floats, faces: Ints, face_normals: Floats) -> Floats:
    """Unit normals, (n, 3): faces count by their angle at the vertex, so that it is no matter how sides are cut up.

    Thürmer and Wüthrich, "Computing vertex normals from polygonal facets", 1998.
    """
    corners = vertices[faces]
    one, other = np.roll(corners, -1, axis=1) - corners, np.roll(corners, 1, axis=1) - corners
    angles = np.arctan2(np.linalg.norm(np.cross(one, other), axis=2), np.sum(one * other, axis=2))
    weighted = (angles[:, :, None] * face_normals[:, None]).reshape(-1, 3)
    sums = [np.bincount(faces.ravel(), along, len(vertices)) for along in weighted.T]
    normals = np.stack(sums, axis=1).astype(np.float64)
    # Where faces are doubled back to back theirs cancel, and what rounding leaves points anywhere.
    normals[np.linalg.norm(normals, axis=1) < 1e-6] = 0
    return _unit(normals)


def _shading_normals(flat: Floats, smooth: Floats, weights: Floats) -> Floats:
    """Normals at hits: smooth over gentle bends, flat at creases.

    flat : (k, 3) of the faces; smooth : (k, 3, 3) of their corners; weights : (k, 3) barycentric. Returns unit (k, 3).
    """
    flat = flat[:, None]
    gentle = np.sum(flat * smooth, axis=2, keepdims=True) > CREASE_COSINE
    return _unit(np.einsum("nk,nkd->nd", weights, np.where(gentle, smooth, flat)))


def _lit(colors: Floats, normals: Floats) -> Floats:
    """Soft Lambert shading in linear light: a key light, a weak fill, and an ambient that is brighter from above.

    colors : (n, 3) or (1, 3); normals : (n, 3) unit; right, up, and towards the viewer.
    """
    key, fill = _unit(np.array([-0.45, 0.65, 0.75])), _unit(np.array([0.8, 0.1, 0.45]))
    ambient = 0.17 + 0.07 * normals[:, 1]
    # Light that wraps a little round the terminator keeps the shadow side readable.
    wrapped = np.clip((normals @ key + 0.2) / 1.2, 0, None)
    light = ambient + 0.85 * wrapped + 0.16 * np.clip(normals @ fill, 0, None)
    linear = (colors / 255) ** GAMMA * light[:, None]
    return 255 * np.clip(linear, 0, 1) ** (1 / GAMMA)


def _faded(colors: Floats, depth: Floats, all_depths: Floats) -> Floats:
    """Far things paler, as in haze: clouds have no outlines to tell near from far by."""
    nearest, farthest = all_depths.max(), all_depths.min()
    haze = 0.4 * (nearest - depth[:, None]) / max(nearest - farthest, 1e-9)
    return (1 - haze) * colors + haze * np.array(BACKGROUND)


def _splat(placed: Floats, camera: _Camera, radius: float) -> tuple[Ints, Floats]:
    """Draw each point as a ball, with a depth buffer.

    placed : (n, 3) in pixel space; radius : in pixels of the final image.
    Returns the point that each pixel shows, (height, width), -1 for none, and the ball's normal there, (..., 3).
    """
    radius *= SUPERSAMPLING
    reach = int(np.ceil(radius))
    depth = np.full(camera.height * camera.width, -np.inf)
    owner, bump = np.full(depth.shape, -1), np.zeros((len(depth), 3))
    cell = np.floor(placed[:, :2])
    for dx, dy in itertools.product(range(-reach, reach + 1), repeat=2):
        column, row = (cell + np.array([dx, dy])).T
        x, y = (cell + np.array([dx, dy]) + 0.5 - placed[:, :2]).T
        height2 = radius**2 - x**2 - y**2
        kept = np.flatnonzero(
            (height2 >= 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        )
        pixel = (row[kept] * camera.width + column[kept]).astype(np.int64)
        z = placed[kept, 2] + np.sqrt(height2[kept])
        np.maximum.at(depth, pixel, z)
        won = z == depth[pixel]
        pixel, kept = pixel[won], kept[won]
        owner[pixel] = kept
        bump[pixel] = np.stack([x[kept], -y[kept], np.sqrt(height2[kept])], axis=1) / radius
    shape = camera.height, camera.width
    return owner.reshape(shape), bump.reshape(*shape, 3)


def _disc_radius(count: int, size: tuple[int, int]) -> float:
    """Pixels: so that a few points are seen and many do not become one blot."""
    return float(np.clip(0.5 * np.sqrt(size[0] * size[1] / count), 1.1, 3.5))


def _sign_colors(sdf: Floats, half_width: float) -> Floats:
    # A quarter of the picture is far: most samples are nearer, and the surface is what is to be seen.
    far = np.clip(np.abs(sdf) / (0.25 * half_width), 0, 1)[:, None]
    near_color, far_color = np.where((sdf < 0)[:, None, None], np.array(INSIDE), np.array(OUTSIDE)).swapaxes(0, 1)
    return (1 - far) * near_color + far * far_color


def _with_legend(image: Pixels, entries: Sequence[tuple[str, Color]]) -> Pixels:
    picture = Image.fromarray(image)
    # Small pictures get small letters, or the legend would cover what it explains.
    font = ImageFont.load_default(min(FONT_SIZE, max(9, picture.width // 20)))
    draw, x = ImageDraw.Draw(picture), float(GAP)
    for text, color in entries:
        draw.text((x, GAP // 3), text, fill=_ink(color), font=font)
        x += draw.textlength(text, font=font) + GAP
    return np.asarray(picture)


def _sheet(images: Sequence[Pixels], labels: Sequence[str], columns: int) -> Pixels:
    if not images:
        raise ValueError("There are no images to lay out.")
    if len(images) != len(labels):
        raise ValueError(f"There are {len(images)} images but {len(labels)} labels.")
    if columns < 1:
        raise ValueError(f"columns is {columns}; it must be at least 1.")
    font = ImageFont.load_default(FONT_SIZE)
    cell_width, picture_height = max(i.shape[1] for i in images), max(i.shape[0] for i in images)
    wrapped = [_wrapped(label, font, cell_width) for label in labels]
    line_height = round(1.35 * FONT_SIZE)
    cell_height = picture_height + GAP // 2 + line_height * max(len(lines) for lines in wrapped)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (GAP + columns * (cell_width + GAP), GAP + rows * (cell_height + GAP)), _ink(BACKGROUND))
    draw = ImageDraw.Draw(sheet)
    for index, (image, lines) in enumerate(zip(images, wrapped, strict=True)):
        row, column = divmod(index, columns)
        left, top = GAP + column * (cell_width + GAP), GAP + row * (cell_height + GAP)
        # Smaller images stand in the middle of their cell, on the label.
        height, width = image.shape[:2]
        sheet.paste(Image.fromarray(image), (left + (cell_width - width) // 2, top + picture_height - height))
        for number, line in enumerate(lines):
            place = left + cell_width / 2, top + picture_height + GAP // 2 + number * line_height
            draw.text(place, line, fill=TEXT, font=font, anchor="ma")
    return np.asarray(sheet)


def _wrapped(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The label in lines that fit; a single word that does not is left to overhang."""
    lines: list[str] = []
    for given in label.splitlines():
        line = ""
        for word in given.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def _downsampled(canvas: Floats, camera: _Camera) -> Pixels:
    blocks = canvas.reshape(camera.height // SUPERSAMPLING, SUPERSAMPLING, -1, SUPERSAMPLING, 3)
    return np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)


def _ink(color: Color) -> tuple[int, int, int]:
    red, green, blue = (round(value) for value in color)
    return red, green, blue


def _unit(vectors: Floats) -> Floats:
    # A vector of length zero stays one.
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-300)
