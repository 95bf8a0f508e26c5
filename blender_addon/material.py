"""Materials that colour a shape by a vertex attribute: what was observed, and how certain the rest is."""

from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from .geometry import DEVIATION, OBSERVED

# A face attribute: the material index that each face had before.
SAVED_INDICES = "sdf_material_index"
# A custom property of objects: the length of a canonical unit, by which deviations are divided.
UNIT = "sdf_unit"


@dataclass(frozen=True)
class AttributeMaterial:
    """A material that maps a vertex attribute to colours.

    name : of the material; attribute : the vertex attribute
    colours : (red, green, blue, alpha) at evenly spaced values of the attribute from 0 to `most`
    relative : whether the attribute is a length, which counts in units of `UNIT`
    """

    name: str
    attribute: str
    colours: tuple[tuple[float, float, float, float], ...]
    most: float = 1.0
    relative: bool = False


OBSERVED_MATERIAL = AttributeMaterial("SDF observed", OBSERVED, ((1.0, 0.32, 0.05, 1.0), (0.55, 0.58, 0.62, 1.0)))
# From blue, certain, over yellow to red: a standard deviation of a twentieth of the radius of the object or more.
UNCERTAINTY_MATERIAL = AttributeMaterial(
    "SDF uncertainty",
    DEVIATION,
    ((0.05, 0.15, 0.6, 1.0), (0.9, 0.8, 0.2, 1.0), (0.7, 0.03, 0.02, 1.0)),
    most=0.05,
    relative=True,
)
MATERIALS = (OBSERVED_MATERIAL, UNCERTAINTY_MATERIAL)


def shown_material(mesh: bpy.types.Mesh) -> AttributeMaterial | None:
    """Which of the materials the mesh shows; None for none of them."""
    first = mesh.materials[0] if len(mesh.materials) else None
    return next((one for one in MATERIALS if first is not None and first == _existing(one)), None)


def show_material(mesh: bpy.types.Mesh, chosen: AttributeMaterial) -> None:
    """Assign a material to all faces. The mesh keeps its other materials behind it, and their assignment."""
    shown = shown_material(mesh)
    if shown is not None:
        mesh.materials[0] = _existing(chosen) or _new_material(chosen)
        return
    indices = np.empty(len(mesh.polygons), dtype=np.int32)
    mesh.polygons.foreach_get("material_index", indices)
    if indices.any():
        saved: Any = mesh.attributes.get(SAVED_INDICES) or mesh.attributes.new(SAVED_INDICES, "INT", "FACE")
        saved.data.foreach_set("value", indices)
    before = list(mesh.materials)
    mesh.materials.clear()
    for material in (_existing(chosen) or _new_material(chosen), *before):
        mesh.materials.append(material)
    mesh.polygons.foreach_set("material_index", np.zeros(len(indices), dtype=np.int32))
    mesh.update()


def hide_material(mesh: bpy.types.Mesh) -> None:
    """Remove the material that is shown and restore the materials of all faces."""
    if shown_material(mesh) is None:
        return
    mesh.materials.pop(index=0)
    saved: Any = mesh.attributes.get(SAVED_INDICES)
    if saved:
        indices = np.empty(len(mesh.polygons), dtype=np.int32)
        saved.data.foreach_get("value", indices)
        mesh.attributes.remove(saved)
        mesh.polygons.foreach_set("material_index", indices)
    mesh.update()


def _existing(chosen: AttributeMaterial) -> bpy.types.Material | None:
    return next((item for item in bpy.data.materials if item.name == chosen.name and item.library is None), None)


def _new_material(chosen: AttributeMaterial) -> bpy.types.Material:
    material = bpy.data.materials.new(chosen.name)
    if bpy.app.version < (5, 0, 0):  # later versions always use nodes
        material.use_nodes = True
    # The stubs declare few properties of nodes.
    tree: Any = material.node_tree
    surface = next(node for node in tree.nodes if node.bl_idname == "ShaderNodeBsdfPrincipled")
    attribute, scaled, ramp = (tree.nodes.new(f"ShaderNode{kind}") for kind in ("Attribute", "Math", "ValToRGB"))
    attribute.attribute_name, scaled.operation = chosen.attribute, "DIVIDE"
    attribute.location, scaled.location, ramp.location = (-800, 300), (-600, 300), (-400, 300)
    elements = ramp.color_ramp.elements
    for _ in chosen.colours[2:]:
        elements.new(0.5)
    for number, (element, colour) in enumerate(zip(elements, chosen.colours, strict=True)):
        element.position, element.color = number / (len(elements) - 1), colour
    # By index: the socket "Fac" has another name in later versions.
    tree.links.new(attribute.outputs[2], scaled.inputs[0])
    scaled.inputs[1].default_value = chosen.most
    if chosen.relative:
        tree.links.new(_unit(tree, chosen.most), scaled.inputs[1])
    tree.links.new(scaled.outputs[0], ramp.inputs[0])
    tree.links.new(ramp.outputs[0], surface.inputs[0])
    return material


def _unit(tree: Any, most: float) -> Any:
    """The socket of the object's canonical unit times `most`."""
    unit, product = (tree.nodes.new(f"ShaderNode{kind}") for kind in ("Attribute", "Math"))
    unit.attribute_type, unit.attribute_name, product.operation = "OBJECT", UNIT, "MULTIPLY"
    unit.location, product.location = (-1000, 100), (-800, 100)
    tree.links.new(unit.outputs[2], product.inputs[0])
    product.inputs[1].default_value = most
    return product.outputs[0]
