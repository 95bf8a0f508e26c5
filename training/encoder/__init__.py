"""Training of encoders, which propose codes and poses to a fit."""
