"""Memory held is told, and what was freed is given back."""

import subprocess
import sys

import pytest

from sdf_backend.serving.memory import give_back

# Blocks small enough to lie on the heap, of which the last is kept: glibc by itself gives none of it back. In a process
# of its own, since the heap of one that has run tests has room for them already.
SCRIPT = """
from sdf_backend.serving.memory import give_back, resident_bytes

before = resident_bytes()
blocks = [bytearray(50_000) for _ in range(2_000)]
kept, full = blocks[-1], resident_bytes()
del blocks
give_back()
print(full - before, full - resident_bytes(), len(kept))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_what_was_freed_between_what_is_kept_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    taken, given, kept = map(int, done.stdout.split())
    assert taken > 80e6
    assert given > 80e6
    assert kept == 50_000


def test_where_there_is_no_glibc_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    give_back()
