"""The name and version of this software, as it tells clients and machines."""

from importlib.metadata import PackageNotFoundError, version

try:
    SOFTWARE = f"sdf-shapes {version('sdf-shapes')}"
except PackageNotFoundError:  # run from its folder, not installed
    SOFTWARE = "sdf-shapes"
