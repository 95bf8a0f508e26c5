"""The outcome of one evaluated shape: scores, or the reason why there are none."""

from dataclasses import asdict, dataclass, field

import numpy as np

from sdf_backend.engine import Shape
from training.evaluation.baselines import Baseline
from training.evaluation.breaking import Region
from training.evaluation.metrics import ShapeScores
from training.evaluation.tasks import Variant
from training.triangle_mesh import Mesh

# Fields that `ShapeOutcome.measures` reports under their own names.
PLAIN_MEASURES = (
    "scan",
    "residual",
    "explained",
    "turn",
    "size",
    "right",
    "seen",
    "ucd",
    "uhd",
    "cut",
    "extent",
    "whole",
)


@dataclass(frozen=True)
class ShapeOutcome:
    """One variant of one shape. Field names are keys of the JSON report and of the model card.

    scan : Chamfer distance of the bare scan, or broken mesh, to the ground truth, squared canonical units; None for
        other input
    residual : mean absolute residual of the fit, canonical units; None without a fit
    explained : inlier share, the share of the input within 0.02 of the result; None without a fit
    seconds : of each phase of the engine
    reason : why the shape failed; empty where it was measured
    turn : rotation error, degrees, up to the rotational symmetry of the object; of the task `pose`
    size : estimated scale over true scale; right : whether rotation and scale are within tolerance; of the task `pose`
    confidence : of the estimated pose, 0 to 1; of the task `pose`
    seen : observed share of the true surface, the share within 0.02 of the scan
    reference : the released DeepSDF reconstruction, where it was requested and did not fail
    before : the result of the other model on the same input, where one is compared and did not fail
    nearest : the training shape nearest to the ground truth
    snapped : the training shape nearest to the scan, scaled to its bounding box and snapped to it
    ucd, uhd : mean and largest distance from the scan to the result, canonical units; None without a scan

    cut : Chamfer distance in the region that was cut away, squared canonical units; of broken meshes, like the next two
    extent : largest relative error of height and length; whole : whether it is within tolerance

    Baselines, `ucd` and `uhd` are computed for the canonical pose and without the ground plane, whatever the task.
    """

    name: str
    variant: Variant = Variant()
    scores: ShapeScores | None = None
    scan: float | None = None
    residual: float | None = None
    explained: float | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    turn: float | None = None
    size: float | None = None
    right: bool | None = None
    confidence: float | None = None
    seen: float | None = None
    reference: Baseline | None = None
    before: Baseline | None = None
    nearest: Baseline | None = None
    snapped: Baseline | None = None
    ucd: float | None = None
    uhd: float | None = None
    cut: float | None = None
    extent: float | None = None
    whole: bool | None = None

    @property
    def failed(self) -> bool:
        """Whether there are no scores."""
        return self.scores is None

    @property
    def beats_scan(self) -> bool:
        """Whether the result is nearer to the ground truth than the scan."""
        return self.scores is not None and self.scan is not None and self.scores.chamfer < self.scan

    @property
    def worse_than_scan(self) -> bool:
        """Whether there are a result and a scan, and the scan is at least as near to the ground truth."""
        return self.scores is not None and self.scan is not None and not self.beats_scan

    @property
    def title(self) -> str:
        """Name, view unless it is the first, and variant."""
        parts = [self.name, f"view {self.variant.view}" if self.variant.view else "", self.variant.label]
        return ", ".join(part for part in parts if part)

    def measures(self) -> dict[str, float]:
        """All numbers that can be averaged, by name; those that do not apply are left out."""
        values = asdict(self.scores) if self.scores else {}
        values |= {name: getattr(self, name) for name in PLAIN_MEASURES}
        values["seconds"] = sum(self.seconds.values()) if self.scores else None
        if self.reference:
            values |= {"reference": self.reference.chamfer, "reference_exact": self.reference.exact}
            values["reference_seconds"] = self.reference.seconds
        for name, baseline in (("before", self.before), ("nearest", self.nearest), ("snapped", self.snapped)):
            values[name] = baseline.chamfer if baseline else None
        return {name: float(value) for name, value in values.items() if value is not None}

    def to_json(self) -> dict:
        """The outcome as an entry of the JSON report."""
        content = asdict(self)
        del content["variant"]
        head = {"name": self.name, "view": self.variant.view, "variant": self.variant.label}
        return head | content


@dataclass(frozen=True)
class ShapeResult:
    """An outcome with what is needed to draw it, in the canonical frame; a failed shape lacks what was not computed.

    points : (n, 3), the input: scan points, or the samples inside for `unknown`; None for `known`
    scan : (m, 3), those of them that are the object's; None without a scan
    broken : the input where it is a mesh with a part cut away, and `region` what was cut away
    """

    outcome: ShapeOutcome
    truth: Mesh | None = None
    points: np.ndarray | None = None
    shape: Shape | None = None
    scan: np.ndarray | None = None
    broken: Mesh | None = None
    region: Region | None = None
