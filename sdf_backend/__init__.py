"""Completes, reconstructs, interpolates and samples shapes with DeepSDF decoders.

Importing the package loads neither torch nor any model; `sdf_backend.engine` is the Python API.
"""
