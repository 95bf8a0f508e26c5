"""Turns a folder of meshes, or ShapeNet, into a category decoder that `sdf_backend` can load."""
