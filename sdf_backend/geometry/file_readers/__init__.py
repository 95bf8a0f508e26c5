"""Readers of mesh and point files: bytes to the parts that a file holds, before anything is checked."""
