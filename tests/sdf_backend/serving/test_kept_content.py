"""Server and machine agree on what the machine keeps, within its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdf_backend.serving import kept_content
from sdf_backend.serving.kept_content import SMALLEST_BYTES, KeptContent, digest_of

SIZES = {"a": 10, "b": 20, "c": 40, "d": 60, "e": 200}


@given(st.lists(st.sampled_from(sorted(SIZES)), max_size=40), st.integers(0, 40))
def test_both_sides_keep_the_same_and_no_more_than_the_limit(uses: list[str], reconnects_after: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_content, "KEPT_BYTES", 100)
        patch.setattr(kept_content, "KEPT_ENTRIES", 3)
        server, machine = KeptContent[bool](), KeptContent[str]()
        for number, digest in enumerate(uses):
            if number == reconnects_after:  # the machine tells a new connection what it keeps
                server = KeptContent[bool]((name, size, True) for name, size in machine.sizes().items())
            if server.use(digest):
                assert machine.use(digest) == digest
            else:
                assert machine.use(digest) is None
                server.add(digest, SIZES[digest], True)
                machine.add(digest, SIZES[digest], digest)
            assert list(server.sizes().items()) == list(machine.sizes().items())
            assert sum(machine.sizes().values()) <= 100
            assert len(machine.sizes()) <= 3


def test_the_most_recently_used_entries_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_content, "KEPT_ENTRIES", 2)
    kept = KeptContent([("a", 1, "A"), ("b", 1, "B")])
    assert kept.use("a") == "A"
    kept.add("c", 1, "C")
    assert list(kept.sizes()) == ["a", "c"]


def test_every_byte_counts_and_small_frames_have_no_digest() -> None:
    content = bytearray(1 << 20)
    before = digest_of(content)
    content[500_001] = 1
    assert len(before) == 40
    assert digest_of(content) != before
    assert digest_of(bytes(SMALLEST_BYTES - 1)) == ""
