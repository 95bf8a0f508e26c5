"""Kept for scripts written for version 0.1; new ones import from `sdf_backend.geometry.mesh_files`."""

from sdf_backend.geometry.mesh_files import Geometry, read_geometry, write_mesh

__all__ = ["Geometry", "read_geometry", "write_mesh"]
