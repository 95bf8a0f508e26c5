"""The material that colours the observed region and the completed region of a shape."""

from typing import Any

import bpy
import numpy as np

from .geometry import OBSERVED

NAME = "SDF observed"
# A face attribute: the material index that each face had before.
SAVED_INDICES = "sdf_material_index"
OBSERVED_COLOUR, COMPLETED_COLOUR = (0.55, 0.58, 0.62, 1.0), (1.0, 0.32, 0.05, 1.0)


def has_observed_material(mesh: bpy.types.Mesh) -> bool:
    """Whether the mesh shows that material."""
    return len(mesh.materials) > 0 and mesh.materials[0] == _existing_material()


def add_observed_material(mesh: bpy.types.Mesh) -> None:
    """Assign that material to all faces. The mesh keeps its other materials behind it, and their assignment."""
    if has_observed_material(mesh):
        return
    indices = np.empty(len(mesh.polygons), dtype=np.int32)
    mesh.polygons.foreach_get("material_index", indices)
    if indices.any():
        saved: Any = mesh.attributes.get(SAVED_INDICES) or mesh.attributes.new(SAVED_INDICES, "INT", "FACE")
        saved.data.foreach_set("value", indices)
    before = list(mesh.materials)
    mesh.materials.clear()
    for material in (_existing_material() or _new_material(), *before):
        mesh.materials.append(material)
    mesh.polygons.foreach_set("material_index", np.zeros(len(indices), dtype=np.int32))
    mesh.update()


def remove_observed_material(mesh: bpy.types.Mesh) -> None:
    """Remove that material and restore the materials of all faces."""
    if not has_observed_material(mesh):
        return
    mesh.materials.pop(index=0)
    saved: Any = mesh.attributes.get(SAVED_INDICES)
    if saved:
        indices = np.empty(len(mesh.polygons), dtype=np.int32)
        saved.data.foreach_get("value", indices)
        mesh.attributes.remove(saved)
        mesh.polygons.foreach_set("material_index", indices)
    mesh.update()


def _existing_material() -> bpy.types.Material | None:
    return next((item for item in bpy.data.materials if item.name == NAME and item.library is None), None)


def _new_material() -> bpy.types.Material:
    material = bpy.data.materials.new(NAME)
    if bpy.app.version < (5, 0, 0):  # later versions always use nodes
        material.use_nodes = True
    # The stubs declare few properties of nodes.
    tree: Any = material.node_tree
    surface = next(node for node in tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    attribute, ramp = (tree.nodes.new(f"ShaderNode{kind}") for kind in ("Attribute", "ValToRGB"))
    attribute.attribute_name = OBSERVED
    attribute.location, ramp.location = (-600, 300), (-400, 300)
    for element, colour in zip(ramp.color_ramp.elements, (COMPLETED_COLOUR, OBSERVED_COLOUR), strict=True):
        element.color = colour
    # By index: the socket "Fac" has another name in later versions.
    tree.links.new(attribute.outputs[2], ramp.inputs[0])
    tree.links.new(ramp.outputs[0], surface.inputs[0])
    return material
