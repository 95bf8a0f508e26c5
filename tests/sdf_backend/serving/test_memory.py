"""Resident memory is measured, and freed memory is returned to the system."""

import subprocess
import sys

import pytest

from sdf_backend.serving.memory import release_free_memory

# Blocks small enough for the heap, of which the last is kept: glibc itself returns none of them. In a process of its
# own, since the heap of a process that has run tests has free space already.
SCRIPT = """
from sdf_backend.serving.memory import release_free_memory, resident_bytes

before = resident_bytes()
blocks = [bytearray(50_000) for _ in range(2_000)]
kept, full = blocks[-1], resident_bytes()
del blocks
release_free_memory()
print(full - before, full - resident_bytes(), len(kept))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_freed_memory_below_a_kept_block_is_returned() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    taken, given, kept = map(int, done.stdout.split())
    assert taken > 80e6
    assert given > 80e6
    assert kept == 50_000


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    release_free_memory()
