"""The faces of a finished shape as the user wants them: fewer triangles, or quads."""

from dataclasses import replace

from sdf_backend.geometry.quads import quad_mesh, triangles_of
from sdf_backend.geometry.simplification import simplify_mesh
from sdf_backend.progress import Clock, Phase
from sdf_backend.settings import TaskSettings
from sdf_backend.shapes.shape import Shape

# The number of quads may differ by this share before the user is told.
NUMBER_TOLERANCE = 0.02


def remesh_shape(shape: Shape, settings: TaskSettings) -> Shape:
    """A shape of which nothing but its surface is known yet, with the `triangles` or the `quads` of the settings.

    Where they cannot be had, a note says so; the shape stays closed in any case.
    """
    if not (settings.triangles or settings.quads) or len(shape.faces) == 0:
        return shape
    clock = Clock()
    remeshed = _with_quads(shape, settings.quads) if settings.quads else _with_triangles(shape, settings.triangles)
    clock.lap(Phase.EXTRACTING)
    seconds = shape.seconds.get(Phase.EXTRACTING, 0.0) + clock.seconds[Phase.EXTRACTING]
    return replace(remeshed, seconds=shape.seconds | {Phase.EXTRACTING: seconds})


def _with_triangles(shape: Shape, count: int) -> Shape:
    vertices, faces = simplify_mesh(shape.vertices, shape.faces, count)
    fewer = replace(shape, vertices=vertices, faces=faces)
    if len(faces) <= count:
        return fewer
    return fewer.with_notes(f"The mesh has {len(faces)} triangles; with fewer it would no longer be closed.")


def _with_quads(shape: Shape, count: int) -> Shape:
    vertices, quads = quad_mesh(shape.vertices, shape.faces, count)
    found = len(quads)
    if found == 0:
        return shape.with_notes("The mesh still has triangles, because it is not closed, as quads require.")
    remeshed = replace(shape, vertices=vertices, faces=triangles_of(quads), quads=found)
    if abs(found - count) <= NUMBER_TOLERANCE * count:
        return remeshed
    reason = "with fewer it would no longer be closed" if found > count else "for more use a finer resolution"
    return remeshed.with_notes(f"The mesh has {found} quads; {reason}.")
