"""Meshes and point clouds to observations of a signed distance field."""
