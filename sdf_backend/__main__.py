"""`python -m sdf_backend`."""

import os

from sdf_backend.threads import PATIENT_THREADS

os.environ.update(PATIENT_THREADS | os.environ)

# Torch reads the environment when a command loads it.
from sdf_backend.cli import app

app(prog_name="python -m sdf_backend")
