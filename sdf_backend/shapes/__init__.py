"""A code and its residual field to meshes, and interpolation between shapes."""
