"""What fits found, kept and recalled."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from sdf_backend.content_cache import ContentCache
from sdf_backend.fitting.fit_cache import Encoded, recall, remember
from sdf_backend.geometry.similarity import Similarity


def encoded(seed: int) -> Encoded:
    rng = np.random.default_rng(seed)
    return Encoded(
        rng.normal(size=4).astype(np.float32),
        rng.normal(size=(4, 4)).astype(np.float32),
        Similarity(float(rng.uniform(0.1, 9)), Rotation.random(rng=rng).as_matrix(), rng.normal(size=3)),
        0.01,
        0.9,
        22,
        rng.normal(size=(30, 3)),
        np.stack([np.arange(5), rng.normal(size=5)], axis=1).astype(np.float32),
        solid=bool(seed % 2),
        confidence=float(rng.uniform()),
    )


def same(one: Encoded, other: Encoded) -> bool:
    arrays = ("code", "deviations", "surface", "refinement")
    numbers = ("residual", "explained", "steps", "solid", "confidence")
    return (
        all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
        and all(getattr(one, name) == getattr(other, name) for name in numbers)
        and np.array_equal(one.pose.apply(np.eye(3)), other.pose.apply(np.eye(3)))
    )


def test_an_answer_comes_back_with_its_rivals(tmp_path: Path) -> None:
    cache = ContentCache(tmp_path)
    kept = replace(encoded(0), rivals=(encoded(1), encoded(2)))
    remember(cache, "a" * 40, kept)
    found = recall(cache, "a" * 40)
    assert found is not None and same(found, kept) and len(found.rivals) == 2
    assert all(same(one, other) for one, other in zip(found.rivals, kept.rivals, strict=True))
    assert recall(cache, "b" * 40) is None


def test_without_a_cache_nothing_is_kept() -> None:
    remember(None, "a" * 40, encoded(0))
    assert recall(None, "a" * 40) is None
