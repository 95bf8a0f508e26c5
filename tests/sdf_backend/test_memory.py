"""Memory held is told, and what was freed is given back."""

import sys

import pytest

from sdf_backend.memory import give_back, resident_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_what_was_freed_between_what_is_kept_is_given_back() -> None:
    before = resident_bytes()
    # Small enough to lie on the heap, and the last is kept: glibc by itself gives none of it back.
    blocks = [bytearray(50_000) for _ in range(2_000)]
    kept = blocks[-1]
    full = resident_bytes()
    assert full - before > 80e6
    del blocks
    give_back()
    assert full - resident_bytes() > 80e6
    assert len(kept) == 50_000


def test_where_there_is_no_glibc_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    give_back()
