"""Meshes of a model's shapes, of a code or between two shapes; a content cache keeps earlier ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import torch

from sdf_backend.content_cache import ContentCache, content_key
from sdf_backend.geometry.isosurface import Extraction, ExtractSettings, Field, extract_surface
from sdf_backend.model.decoder import FoldedDecoder
from sdf_backend.model.devices import EXTRACTION_BATCH
from sdf_backend.model.store import Model
from sdf_backend.progress import Phase, Progress, of_phase, parts
from sdf_backend.shapes.interpolation import ImplicitShape, ShapeInterpolation
from sdf_backend.shapes.interpolation_settings import InterpolationSettings
from sdf_backend.shapes.residual_field import (
    SURFACE_SETTINGS,
    ResidualFieldSettings,
    corrected_field,
    new_surface_points,
)
from sdf_backend.shapes.residual_lattice import LATTICE_SIDE

# To be raised with a change of the algorithm that leaves all settings as they are; changed settings change the keys of
# the cache by themselves.
MESH_FORMAT = 2


@dataclass(frozen=True)
class MesherSettings:
    """All settings that decide a mesh; the cache keys are hashes that include them."""

    extraction: ExtractSettings = field(default_factory=ExtractSettings)
    """resolution, clamp and batch are replaced by those of the task, the model and the device"""
    interpolation: InterpolationSettings = field(default_factory=InterpolationSettings)
    residual_field: ResidualFieldSettings = SURFACE_SETTINGS


@dataclass(frozen=True)
class Mesher:
    """Extracts closed meshes, in the canonical frame, of one model's shapes.

    digest : of the model's file, which identifies it in the cache
    """

    model: Model
    digest: str
    cache: ContentCache | None
    settings: MesherSettings = MesherSettings()

    def mesh_code(
        self,
        latent: torch.Tensor,
        resolution: int,
        progress: Callable[[float], None],
        refinement: np.ndarray | None = None,
    ) -> Extraction:
        """The mesh of a code, (1, code_length), and its residual field, (m, 2).

        Raises `EmptySurfaceError` if there is no surface.
        """
        key = self.cache_key("mesh", resolution, latent.cpu().numpy(), refinement) if self.cache else ""
        known = self.cache.get(key) if self.cache else None
        if known is not None:
            return Extraction(known["vertices"], known["faces"], 0)
        mesh = self._extract(
            lambda decoder: corrected_field(decoder, latent, refinement), resolution, progress, refinement
        )
        if self.cache:
            self.cache.put(key, {"vertices": mesh.vertices, "faces": mesh.faces})
        return mesh

    def interpolate(
        self,
        first: ImplicitShape,
        last: ImplicitShape,
        shares: Sequence[float],
        resolution: int,
        progress: Progress,
    ) -> Iterator[tuple[Extraction, np.ndarray]]:
        """The meshes at shares, 0 to 1, of the path between two shapes, and their codes, (code_length,).

        Raises `EmptySurfaceError` if there is no surface on the path between the ends.
        """
        ends = [first.code, first.refinement, last.code, last.refinement]
        path_key = self.cache_key("interpolation", resolution, *ends) if self.cache else ""
        keyframes, *extractions = (of_phase(one, Phase.EXTRACTING) for one in parts(progress, 1 + len(shares)))
        interpolation = ShapeInterpolation(self.model, first, last, keyframes, self.settings.interpolation)
        for share, extracting in zip(shares, extractions, strict=True):
            key = content_key(path_key, share)
            known = self.cache.get(key) if self.cache else None
            if known is not None:
                yield Extraction(known["vertices"], known["faces"], 0), known["code"]
                continue
            shape = interpolation.shape_at(share)
            # Surfaces that only corrections create are looked for at the ends only; in between they would be floaters.
            refinement = shape.refinement if share in (0, 1) else None
            mesh = self._extract(shape.field, resolution, extracting, refinement)
            mesh = interpolation.remove_floaters(share, mesh)
            if self.cache:
                self.cache.put(key, {"vertices": mesh.vertices, "faces": mesh.faces, "code": shape.code})
            yield mesh, shape.code

    def cache_key(self, kind: str, resolution: int, *content: np.ndarray | None) -> str:
        """The cache's key of a mesh of some content; it changes with every setting that decides the mesh."""
        deciding = asdict(self.settings)
        # The resolution is the task's and the clamp the model's; the batch is the device's and decides rounding at
        # most.
        for name in ("resolution", "clamp", "batch"):
            del deciding["extraction"][name]
        return content_key(kind, MESH_FORMAT, LATTICE_SIDE, deciding, self.digest, resolution, *content)

    def _extract(
        self,
        shape: Callable[[FoldedDecoder], Field],
        resolution: int,
        progress: Callable[[float], None],
        refinement: np.ndarray | None,
    ) -> Extraction:
        """The mesh of a shape's field; a residual field, (m, 2), says where a surface may be that the decoder lacks."""
        # In bfloat16 a processor with matrix units takes a quarter of the time; it is off by up to a quarter of a cell.
        estimate, exact = (shape(self.model.folded(dtype)) for dtype in (torch.bfloat16, torch.float32))
        device = self.model.device
        settings = replace(
            self.settings.extraction,
            resolution=resolution,
            clamp=self.model.card.clamp,
            batch=EXTRACTION_BATCH[device.type],
        )
        steep = None if refinement is None else new_surface_points(refinement, self.settings.residual_field)
        return extract_surface(estimate, settings, device, progress, steep, exact)
