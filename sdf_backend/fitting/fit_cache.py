"""The cache of encodings and chosen models: by the source, the models, and every setting that decides a fit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from sdf_backend.content_cache import ContentCache, content_key
from sdf_backend.fitting.encoding import Encoding
from sdf_backend.fitting.fit_settings import solid_settings, surface_settings
from sdf_backend.fitting.hypotheses import HypothesisSettings
from sdf_backend.fitting.model_choice import ModelChoice, ModelChoiceSettings
from sdf_backend.fitting.pose_search import PoseSearchSettings
from sdf_backend.geometry.signed_distance import DEFAULT_SIGN_SETTINGS
from sdf_backend.geometry.signed_samples import SignedSampleSettings
from sdf_backend.geometry.similarity import Similarity
from sdf_backend.observation.cuts import CutSettings
from sdf_backend.observation.noise import NoiseSettings
from sdf_backend.observation.normals import NormalSettings
from sdf_backend.observation.observations import AssumedFreeSpaceSettings, ObservationSettings
from sdf_backend.observation.outliers import GroundPlaneSettings, OutlierSettings, StraySettings
from sdf_backend.observation.sensor_position import SensorSearchSettings, VisibilitySettings
from sdf_backend.observation.sources import Observe, Source
from sdf_backend.settings import TaskSettings
from sdf_backend.shapes.residual_field import EXACT_SETTINGS, SOLID_SETTINGS, SURFACE_SETTINGS

# Raise it when the stored arrays change, or an algorithm changes without any of its settings.
FIT_FORMAT = 12


def relevant_settings(settings: TaskSettings) -> tuple[object, ...]:
    """The settings on which the fit of a source depends; a task's resolution, seed and candidates are not among them.

    Whether a source is fitted as a solid or as a surface is known only after it was observed, so both are included.
    """
    return (
        [settings.pose, settings.up, settings.front],
        solid_settings(settings.quality),
        surface_settings(settings.quality, freedom=settings.pose),
        ObservationSettings(),
        SignedSampleSettings(),
        DEFAULT_SIGN_SETTINGS,
        SensorSearchSettings(),
        VisibilitySettings(),
        GroundPlaneSettings(),
        OutlierSettings(),
        StraySettings(),
        NormalSettings(),
        AssumedFreeSpaceSettings(),
        CutSettings(),
        PoseSearchSettings(),
        HypothesisSettings(),
        SOLID_SETTINGS,
        SURFACE_SETTINGS,
        EXACT_SETTINGS,
        NoiseSettings(),
    )


def fit_key(source: Source, settings: TaskSettings, observe: Observe, model_digest: str, device_type: str) -> str:
    """Cache key of the encoding of a source.

    Parameters
    ----------
    observe : the function that observes the source; its name is part of the key
    model_digest : hash of the model's file
    device_type : devices differ in rounding
    """
    geometry = source.geometry
    return content_key(
        "fit",
        FIT_FORMAT,
        model_digest,
        device_type,
        observe.__name__,
        *relevant_settings(settings),
        geometry.vertices,
        geometry.faces,
        geometry.normals,
        source.sensor,
    )


def choice_key(
    sources: Sequence[Source],
    settings: TaskSettings,
    observe: Observe,
    model_digests: Mapping[str, str],
    device_type: str,
) -> str:
    """Cache key of the model that is chosen for some sources.

    model_digests : hash of each model's file by its name
    """
    digests = json.dumps(model_digests, sort_keys=True)
    return content_key(
        "choice", ModelChoiceSettings(), *(fit_key(one, settings, observe, digests, device_type) for one in sources)
    )


def load_choice(cache: ContentCache | None, key: str) -> ModelChoice | None:
    """The choice stored under `key`; None where there is none, or no cache."""
    arrays = cache.get(key) if cache else None
    return None if arrays is None else ModelChoice(**json.loads(arrays["choice"].tobytes()))


def store_choice(cache: ContentCache | None, key: str, choice: ModelChoice) -> None:
    """Store a choice under `key`, where there is a cache."""
    if cache is not None:
        cache.put(key, {"choice": np.frombuffer(json.dumps(asdict(choice)).encode(), dtype=np.uint8)})


def load_encoding(cache: ContentCache | None, key: str) -> Encoding | None:
    """The encoding stored under `key`; None where there is none, or no cache."""
    arrays = cache.get(key) if cache else None
    if arrays is None:
        return None
    best, *alternatives = (_from_arrays(arrays, f"{number}.") for number in range(int(arrays["count"][0])))
    return replace(best, alternatives=tuple(alternatives))


def store_encoding(cache: ContentCache | None, key: str, encoding: Encoding) -> None:
    """Store an encoding with its alternatives under `key`, where there is a cache."""
    if cache is None:
        return
    encodings = [encoding, *encoding.alternatives]
    arrays = {"count": np.array([len(encodings)])}
    for number, one in enumerate(encodings):
        arrays |= _to_arrays(one, f"{number}.")
    cache.put(key, arrays)


def _to_arrays(encoding: Encoding, prefix: str) -> dict[str, np.ndarray]:
    numbers = [
        encoding.pose.scale,
        encoding.residual,
        encoding.explained,
        encoding.steps,
        np.nan if encoding.noise is None else encoding.noise,
        encoding.solid,
        encoding.confidence,
    ]
    arrays = {
        "code": encoding.code,
        "covariance_root": encoding.covariance_root,
        "rotation": encoding.pose.rotation,
        "translation": encoding.pose.translation,
        "numbers": np.array(numbers, dtype=np.float64),
        "surface": encoding.surface,
        "refinement": encoding.refinement,
        "notes": np.frombuffer("\n".join(encoding.notes).encode(), dtype=np.uint8),
    }
    return {prefix + name: array for name, array in arrays.items()}


def _from_arrays(arrays: Mapping[str, np.ndarray], prefix: str) -> Encoding:
    scale, residual, explained, steps, noise, solid, confidence = arrays[f"{prefix}numbers"].tolist()
    return Encoding(
        arrays[f"{prefix}code"],
        arrays[f"{prefix}covariance_root"],
        Similarity(scale, arrays[f"{prefix}rotation"], arrays[f"{prefix}translation"]),
        residual,
        explained,
        int(steps),
        arrays[f"{prefix}surface"],
        arrays[f"{prefix}refinement"],
        None if np.isnan(noise) else noise,
        bool(solid),
        confidence,
        tuple(arrays[f"{prefix}notes"].tobytes().decode().splitlines()),
    )
