"""Readers of mesh formats that trimesh does not know."""
