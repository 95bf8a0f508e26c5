"""The meshes of a model's shapes, of a code and on the way between two; what was made before comes from a cache."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sdf_backend.content_cache import ContentCache, content_key
from sdf_backend.geometry.isosurface import Extraction, ExtractSettings, Field, extract_surface
from sdf_backend.model.decoder import FoldedDecoder
from sdf_backend.model.devices import EXTRACTION_BATCH
from sdf_backend.model.store import Model
from sdf_backend.progress import Phase, Progress, of_phase, parts
from sdf_backend.shapes.interpolation import Stop, Way
from sdf_backend.shapes.residual_field import changed_places, refined_field


@dataclass(frozen=True)
class Meshes:
    """Canonical meshes, closed, of one model.

    digest : of the model's file, by which the cache knows it
    """

    model: Model
    digest: str
    cache: ContentCache | None

    def of_code(
        self,
        latent: torch.Tensor,
        resolution: int,
        progress: Callable[[float], None],
        refinement: np.ndarray | None = None,
    ) -> Extraction:
        """The mesh of a code, (1, code_length), corrected by a refinement, (m, 2).

        Raises `EmptySurfaceError` where there is none.
        """
        key = content_key("mesh 4", self.digest, latent.cpu().numpy(), resolution, refinement) if self.cache else ""
        known = self.cache.get(key) if self.cache else None
        if known is not None:
            return Extraction(known["vertices"], known["faces"], 0)
        mesh = self._extracted(
            lambda decoder: refined_field(decoder, latent, refinement), resolution, progress, refinement
        )
        if self.cache:
            self.cache.put(key, {"vertices": mesh.vertices, "faces": mesh.faces})
        return mesh

    def between(
        self, first: Stop, last: Stop, shares: Sequence[float], resolution: int, progress: Progress
    ) -> Iterator[tuple[Extraction, np.ndarray]]:
        """The meshes at shares, 0 to 1, of the way between two shapes, and their codes, (code_length,).

        Raises `EmptySurfaceError` where the line between the two leaves all surfaces.
        """
        ends = [first.code, first.refinement, last.code, last.refinement]
        leg = content_key("way 5", self.digest, resolution, *ends) if self.cache else ""
        looking, *walking = (of_phase(one, Phase.EXTRACTING) for one in parts(progress, 1 + len(shares)))
        way = Way(self.model, first, last, looking)
        for share, heard in zip(shares, walking, strict=True):
            key = content_key(leg, share)
            known = self.cache.get(key) if self.cache else None
            if known is not None:
                yield Extraction(known["vertices"], known["faces"], 0), known["code"]
                continue
            stop = way.stop(share)
            # Only the ends may have surfaces where nothing hints at them; in between they would hang in the air.
            hidden = stop.refinement if share in (0, 1) else None
            mesh = way.without_crumbs(share, self._extracted(stop.field, resolution, heard, hidden))
            if self.cache:
                self.cache.put(key, {"vertices": mesh.vertices, "faces": mesh.faces, "code": stop.code})
            yield mesh, stop.code

    def _extracted(
        self,
        shape: Callable[[FoldedDecoder], Field],
        resolution: int,
        progress: Callable[[float], None],
        refinement: np.ndarray | None,
    ) -> Extraction:
        """The mesh of a field that a decoder gives; a refinement, (m, 2), says where else to look for a surface."""
        # In bfloat16 a processor with matrix units takes a quarter of the time; it is off by up to a quarter of a cell.
        quick, exact = (shape(self.model.folded(dtype)) for dtype in (torch.bfloat16, torch.float32))
        device = self.model.device
        return extract_surface(
            quick,
            ExtractSettings(resolution, clamp=self.model.card.clamp, batch=EXTRACTION_BATCH[device.type]),
            device,
            progress,
            None if refinement is None else changed_places(refinement),
            exact,
        )
