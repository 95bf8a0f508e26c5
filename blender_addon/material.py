"""A material that shows what was seen, and what was filled in."""

from typing import Any

import bpy

from .geometry import OBSERVED

NAME = "SDF observed"
SEEN, FILLED_IN = (0.55, 0.58, 0.62, 1.0), (1.0, 0.32, 0.05, 1.0)


def observed_material() -> bpy.types.Material:
    """The one of that name, made where there is none."""
    return bpy.data.materials.get(NAME) or _made()


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
