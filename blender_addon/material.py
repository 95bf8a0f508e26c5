"""A material that shows what was seen, and what was filled in."""

from typing import Any

import bpy
import numpy as np

from .geometry import OBSERVED

NAME = "SDF observed"
# An attribute: which material each face had before.
KEPT = "sdf_material_index"
SEEN, FILLED_IN = (0.55, 0.58, 0.62, 1.0), (1.0, 0.32, 0.05, 1.0)


def shows_observed(mesh: bpy.types.Mesh) -> bool:
    """Whether the mesh has that material."""
    return len(mesh.materials) > 0 and mesh.materials[0] == _known()


def show_observed(mesh: bpy.types.Mesh) -> None:
    """Give all faces that material. Those that the mesh has stay behind it, and which face has which is kept."""
    if shows_observed(mesh):
        return
    numbers = np.empty(len(mesh.polygons), dtype=np.int32)
    mesh.polygons.foreach_get("material_index", numbers)
    if numbers.any():
        kept: Any = mesh.attributes.get(KEPT) or mesh.attributes.new(KEPT, "INT", "FACE")
        kept.data.foreach_set("value", numbers)
    before = list(mesh.materials)
    mesh.materials.clear()
    for one in (_known() or _made(), *before):
        mesh.materials.append(one)
    mesh.polygons.foreach_set("material_index", np.zeros(len(numbers), dtype=np.int32))
    mesh.update()


def hide_observed(mesh: bpy.types.Mesh) -> None:
    """Take that material away, so that each face has its own again."""
    if not shows_observed(mesh):
        return
    mesh.materials.pop(index=0)
    kept: Any = mesh.attributes.get(KEPT)
    if kept:
        numbers = np.empty(len(mesh.polygons), dtype=np.int32)
        kept.data.foreach_get("value", numbers)
        mesh.attributes.remove(kept)
        mesh.polygons.foreach_set("material_index", numbers)
    mesh.update()


def _known() -> bpy.types.Material | None:
    return next((one for one in bpy.data.materials if one.name == NAME and one.library is None), None)


def _made() -> bpy.types.Material:
    material = bpy.data.materials.new(NAME)
    if bpy.app.version < (5, 0, 0):  # from there on, all have nodes
        material.use_nodes = True
    # The stubs know little of nodes, and less of their properties.
    tree: Any = material.node_tree
    surface = next(node for node in tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    observed, colours = (tree.nodes.new(f"ShaderNode{kind}") for kind in ("Attribute", "ValToRGB"))
    observed.attribute_name = OBSERVED
    observed.location, colours.location = (-600, 300), (-400, 300)
    for element, colour in zip(colours.color_ramp.elements, (FILLED_IN, SEEN), strict=True):
        element.color = colour
    # By number: "Fac" is called otherwise in later versions.
    tree.links.new(observed.outputs[2], colours.inputs[0])
    tree.links.new(colours.outputs[0], surface.inputs[0])
    return material
