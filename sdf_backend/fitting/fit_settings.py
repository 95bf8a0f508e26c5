"""What may be chosen of a fit: its stages, when it starts once more, and how its solver works."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Stage:
    """Some steps of a fit on one draw of the observations."""

    steps: int
    """Levenberg-Marquardt steps"""
    points: int
    """observations drawn, evenly over where they lie"""
    prior: float
    """weight of the code's squared Mahalanobis distance from the training codes' mean"""
    within_clamp: bool = False
    """leave out observations where the decoder is beyond the clamp. The loss is flat there, and the slope is hearsay;
    but as long as a part is missing, as a biplane's second wing at first, that slope alone leads to it."""


@dataclass(frozen=True)
class Restart:
    """When and how a fit starts once more.

    From the mean of the training codes some fits come to a shape that is likely and wrong, and stay there. The defaults
    are for surfaces, and were chosen on 200 scans of 88 bodies drawn for it (`python -m training humans --seed 1`, and
    2), of which 66 started once more: where less was unexplained it brought nothing; 16 starts with half the
    observations, 4 with twice as many, and 16 steps bring no more.
    """

    after: int = 0
    """the number of the stage after which it does"""
    unexplained: float = 0.02
    """it does where the model is wrong at more than this share of the drawn observations whose distance is known"""
    codes: int = 512
    """training codes that are looked at, evenly over all"""
    glance: int = 256
    """observations by which those codes are compared"""
    starts: int = 8
    """how many of them are started from, those that explain the glance best"""
    steps: int = 10
    """Levenberg-Marquardt steps that each gets"""
    points: int = 512
    """observations that each gets"""
    better: float = 0.8
    """where even so too much is unexplained in the end, the first start is taken to its end too, and counts if its cost
    is this share or less"""


@dataclass(frozen=True)
class FitSettings:
    """How a code is fitted by Levenberg-Marquardt."""

    stages: tuple[Stage, ...]
    """from coarse to fine, and from what is likely to what is seen"""
    floor: float = 2e-3
    """residuals below this are weighted as in least squares, canonical units"""
    damping: float = 1.0
    """first Levenberg-Marquardt damping, as a share of the diagonal; smaller ones leap to codes unlike any shape"""
    scale_sigma: float = 0.08
    """standard deviation of the log of the scale about its first estimate, where the scale is solved for"""
    shift_sigma: float = 0.1
    """standard deviation of the position about its first estimate, canonical units"""
    depth_sigma: float = 0.2
    """the same along the line of sight, where it is known: of 184 scans of training aircraft, seen from one side, the
    first estimate is 0.06 too near on average and up to 0.36"""
    pose_prior: float = 2e-3
    """weight of the pose's squared deviations from its first estimate, in standard deviations; the same in all stages,
    since what is seen of an object's part says less of its size than of its shape"""
    dtype: torch.dtype = torch.bfloat16
    """precision of the decoder's matrix products"""
    restart: Restart | None = None
    """when it starts once more; None: never"""
    described: bool = True
    """find out too what each fit explains of all that was observed, and which other codes are about as likely"""
