"""What an evaluation runs: the tasks, their settings, and the variants of each shape. Loads no torch."""

from dataclasses import dataclass
from enum import Enum, auto

from sdf_backend.settings import Quality, TaskSettings, bounds_of, help_of
from sdf_backend.wire.settings import LARGEST_SEED, Choice, Settings, option
from training.evaluation.scanning import CameraSettings


class Task(Choice):
    """The task that a model is evaluated on."""

    KNOWN = "known", "training shapes, decoded from their own latent codes"
    UNKNOWN = "unknown", "test shapes, fitted to all of their signed distance samples"
    COMPLETE = "complete", "test shapes, completed from one depth scan in a known pose"
    NOISE = "noise", "complete, at several levels of depth noise"
    POSE = "pose", "complete, at an unknown rotation about the up axis, scale and position"
    OUTLIERS = "outliers", "complete, with points of a ground plane added"
    BROKEN = "broken", "test shapes, completed from meshes with a part cut away, in a known pose"
    BROKEN_POSE = "broken-pose", "broken, at an unknown rotation about the up axis, scale and position"
    INTERPOLATE = "interpolate", "interpolation between all pairs of a few test shapes"
    SAMPLE = "sample", "shapes drawn at random, compared with the test split and with the training split"

    @property
    def scans(self) -> bool:
        """Whether the input is a depth scan."""
        return self in (Task.COMPLETE, Task.NOISE, Task.POSE, Task.OUTLIERS)

    @property
    def breaks(self) -> bool:
        """Whether the input is a mesh with a part cut away."""
        return self in (Task.BROKEN, Task.BROKEN_POSE)

    @property
    def moves(self) -> bool:
        """Whether the input is at an unknown pose."""
        return self in (Task.POSE, Task.BROKEN_POSE)

    @property
    def has_entry(self) -> bool:
        """Whether a model card keeps its figures."""
        return self is not Task.INTERPOLATE

    @property
    def scores_shapes(self) -> bool:
        """Whether each shape is scored against a ground truth of its own."""
        return self not in (Task.INTERPOLATE, Task.SAMPLE)


class Damage(Choice):
    """What is missing of a broken object."""

    HALF = "half", "cut in half by an upright plane"
    END = "end", "an end is off: a wing, a tail, legs, a top"
    HOLE = "hole", "a hole in the surface"
    CORNER = "corner", "a corner is off, cut obliquely"
    SCATTERED = "scattered", "eight small holes"


@dataclass(frozen=True)
class EvaluationSettings(Settings):
    """What is evaluated, and how: the options of `evaluate`, and keys of its JSON report."""

    task: Task = option(Task.COMPLETE, "; ".join(f"{task}: {task.help}" for task in Task))
    resolution: int = option(TaskSettings.resolution, help_of("resolution"), *bounds_of("resolution"))
    shapes: int | None = option(
        None, "number of shapes, evenly spaced over the split; default: 16 training shapes, all test shapes", 1
    )
    views: int = option(1, "scans of each shape from random directions, or breaks of it, each completed separately", 1)
    quality: Quality = option(TaskSettings.quality, help_of("quality"))
    seed: int = option(
        0, "seed of view directions, depth noise, sampled shapes and surface samples of the metrics", 0, LARGEST_SEED
    )
    refine: float = option(TaskSettings.refine, help_of("refine"), *bounds_of("refine"))
    seeds: int = option(1, "scans of each view, which differ in depth noise alone (pose: in the pose too)", 1)
    samples: int | None = option(None, "shapes drawn by the task sample; default: as many as each split has", 2)
    before: str | None = option(None, "another model of the category, name or file, to measure on the same inputs")
    reference: bool = option(False, "also run the released DeepSDF reconstruction; half a minute per shape")


# What the tasks that score no single shapes read of the settings; the others use all but `samples`.
SETTINGS_USED = {
    Task.INTERPOLATE: {"task", "resolution", "quality"},
    Task.SAMPLE: {"task", "resolution", "seed", "samples"},
}


@dataclass(frozen=True)
class EvaluationProtocol:
    """Fixed choices of the evaluation. They are conventions of the reports; none was tuned."""

    known_shapes: int = 16
    """training shapes of the task `known`, where no number is given"""
    observed_distance: float = 0.02
    """a point of the true surface this near to the scan counts as observed, canonical units"""
    noise_levels: tuple[float, ...] = (0.0, 0.01, 0.02, 0.03, 0.05)
    """standard deviations of the depth, canonical units: the noise curve of the DeepSDF paper"""
    rotation_tolerance: float = 10.0
    """largest rotation error of a correct pose, degrees"""
    scale_tolerance: float = 0.1
    """largest relative scale error of a correct pose"""
    extent_tolerance: float = 0.05
    """largest relative error of height and length of a whole result"""
    scan_points: int = 5_000
    """points of a broken mesh that are compared with training shapes, as many as a scan has"""
    pictured_samples: int = 24
    """sampled shapes on the contact sheet, the first ones drawn"""
    coarse_references: int = 50
    """fewer references than these make coarse figures of `sample`: the standard error of a 1-NNA of one half,
    sqrt(0.25 / 2n), is above 5 points"""


PROTOCOL = EvaluationProtocol()


class VariantKind(Enum):
    """How the results of one shape and view differ."""

    SINGLE = auto()
    """there is one result per view"""
    NOISE = auto()
    """in the level of the depth noise"""
    SEED = auto()
    """in the seed of the depth noise"""
    DAMAGE = auto()
    """in what is cut away"""


@dataclass(frozen=True)
class Variant:
    """One result of a shape: its view, the depth noise in canonical units and its seed, and the damage.

    Views of a broken shape differ in where the damage is.
    """

    view: int = 0
    noise: float = CameraSettings().noise
    seed: int = 0
    kind: VariantKind = VariantKind.SINGLE
    damage: Damage | None = None

    @property
    def label(self) -> str:
        """Names the variant among those of the same view; a key of the JSON report."""
        match self.kind:
            case VariantKind.NOISE:
                return f"noise {self.noise:g}"
            case VariantKind.SEED:
                return f"seed {self.seed}"
            case VariantKind.DAMAGE:
                return str(self.damage)
            case VariantKind.SINGLE:
                return ""


def list_variants(settings: EvaluationSettings) -> list[Variant]:
    """All variants that are evaluated for each shape."""
    views = range(settings.views if settings.task.scans or settings.task.breaks else 1)
    if settings.task is Task.NOISE:
        levels = PROTOCOL.noise_levels
        return [Variant(view, noise, kind=VariantKind.NOISE) for view in views for noise in levels]
    if settings.task.breaks:
        return [Variant(view, kind=VariantKind.DAMAGE, damage=damage) for view in views for damage in Damage]
    kind = VariantKind.SEED if settings.seeds > 1 else VariantKind.SINGLE
    return [Variant(view, seed=seed, kind=kind) for view in views for seed in range(settings.seeds)]
