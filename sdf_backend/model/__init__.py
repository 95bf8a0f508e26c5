"""The decoder network, model files, devices."""
