"""`python -m sdf_backend`."""

from sdf_backend.cli import app

app(prog_name="python -m sdf_backend")
