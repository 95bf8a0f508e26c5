"""Procedural meshes to train on: Infinigen's factories and generators of our own."""
