"""Latent codes and their residual fields to meshes, and interpolation between shapes."""
