"""Packs the Blender add-on."""
