"""Similarity transforms, mesh files, signed distances of meshes, isosurface extraction."""
