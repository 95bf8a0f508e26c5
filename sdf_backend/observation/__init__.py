"""Meshes and point clouds to what a code is fitted to."""
