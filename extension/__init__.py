"""Builds the Blender extension."""
