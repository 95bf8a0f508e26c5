"""SDF Shapes in Blender."""
