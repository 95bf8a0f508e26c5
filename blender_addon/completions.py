"""Complete and Reconstruct: their jobs, and how a result takes the place of its input."""

from collections.abc import Sequence
from dataclasses import replace

import bpy
import numpy as np

from .fit_request import FitRequest, earlier_results, other_up_axes
from .geometry import GeometryError, new_mesh
from .keeping import add_vertex_group, completed_mesh, deviation_of, hide, is_unchanged
from .session import NO_MORE_STEPS, Job, Steps, session
from .shapes import (
    PREVIEW,
    StoredShape,
    add_object,
    find_object,
    hidden_notice,
    mark_as_made,
    pack_refinement,
    remove_object,
    remove_objects,
    replace_mesh,
    store_shape,
)
from .translations import translated
from .trials import Outcome, start_trials
from .verdict import VERDICT, Verdict
from .wire.messages import Preview, Result, Shape

# Between candidates of one input, relative to the depth of the best; chosen by eye, so that they do not touch.
CANDIDATE_SPACING = 1.25
# A custom property: the results of one job have the same value.
CANDIDATES = "sdf_candidates_of"


def submit_fit(request: FitRequest, note: str = "") -> None:
    """Submit a completion or reconstruction.

    Parameters
    ----------
    note : a sentence for the user, to be shown with the result

    Raises
    ------
    GeometryError : if the same is running already
    WireError : as `Session.submit` does
    """
    handlers = (job.handler for job in session.jobs.values())
    if any(isinstance(one, InPlace) and one.request.is_repeated_by(request) for one in handlers):
        raise GeometryError(f"{request.source} is being {request.name.split()[-1]} already; cancel that to start over")
    submit = request.submit(request.task)
    session.submit(submit, Job(submit.job, request.source, InPlace(submit.job, request, note)))


def best_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome that explains most of the input."""
    return max(outcomes, key=lambda outcome: outcome.explained)


class InPlace:
    """Displays a completion or reconstruction at the location of its source, named after the source."""

    undoable = True

    def __init__(self, job: str, request: FitRequest, note: str = "") -> None:
        self._job, self.request, self._note = job, request, note
        self._preview_uid = 0
        self._added: list[int] = []
        self._notices: list[str] = []

    def preview(self, preview: Preview) -> Steps:
        """Display a coarse mesh until the result arrives."""
        seen, name = self.request.observation, f"{self.request.source} preview"
        mesh = new_mesh(name, seen.to_result(preview.vertices), preview.faces)
        item = find_object(self._preview_uid)
        if item:
            replace_mesh(item, mesh)
        else:
            item = add_object(name, mesh, seen.result_matrix, self.request.asked.scene)
            item[PREVIEW], self._preview_uid = self._job, item.session_uid
        return NO_MORE_STEPS

    def finish(self, result: Result) -> Steps:
        """Display the result, or first try the other up axes if this one was a guess and explains little."""
        if self.request.guesses_up and result.shapes[0].explained < VERDICT.weak:
            self.undoable = False
            self._try_up_axes(result)
            return NO_MORE_STEPS
        return self._show(result)

    def fail(self) -> Steps:
        """Remove the preview."""
        remove_object(find_object(self._preview_uid))
        return NO_MORE_STEPS

    def _try_up_axes(self, result: Result) -> None:
        first = Outcome(self.request, result.shapes[0].explained)

        def then(outcomes: list[Outcome]) -> Steps:
            best = best_of(outcomes)
            if best.explained < first.explained + VERDICT.better:
                self._note = translated("No other up axis explains more.")
                return self._show(result)
            self.fail()
            share = f"{first.explained:.0%} with {first.request.settings.up.upper()}"
            note = f"{best.request.settings.up.upper()} is taken as up: that explains {best.explained:.0%}, {share}."
            submit_fit(replace(best.request, guesses_up=False), note)
            return NO_MORE_STEPS

        start_trials(other_up_axes(self.request), then, lambda: self._show(result))

    def _show(self, result: Result) -> Steps:
        """Replace the preview by the best candidate, selected, and display the alternatives in front of it.

        The result is a new object: undo and redo would confuse two states of one object.
        """
        asked, matrix = self.request.asked, self.request.observation.result_matrix
        select = asked.is_current
        remove_objects([self._preview_uid, *self._added])
        for item in earlier_results(self.request):
            select = select or item.select_get()
            remove_object(item)
        best, *alternatives = result.shapes
        self._notices = [note for note in (self._note, best.note) if note]
        self._added = [self._add(self.request.name, best, matrix)]
        depth = float(np.ptp(best.vertices[:, 1]))
        for number, shape in enumerate(alternatives, start=1):
            yield
            moved = matrix.copy()
            moved[1, 3] -= number * CANDIDATE_SPACING * depth
            self._added.append(self._add(f"{self.request.name} {number + 1:02}", shape, moved))
        if select:
            asked.select(self._added[:1])
        self._report(best, bool(alternatives))

    def _report(self, best: Shape, has_alternatives: bool) -> None:
        """Say in the panel what the user should know; it is no error, and a script reads it from the object."""
        verdict = Verdict(best.explained, best.confidence, best.model or self.request.model)
        if verdict.is_weak:
            self._notices.append(verdict.warning)
        elif verdict.is_ambiguous:
            ambiguous = (
                "The pose of {name} is ambiguous; the alternative is in front of it"
                if has_alternatives
                else "The pose of {name} is ambiguous; set Candidates to 2 to see both answers"
            )
            self._notices.append(translated(ambiguous, name=self.request.name))
        if hidden := hidden_notice(self._added):
            self._notices.append(hidden)
        if self._notices:
            session.notice = " ".join(dict.fromkeys(self._notices))

    def _add(self, name: str, shape: Shape, matrix: np.ndarray) -> int:
        """Add an object that stores the shape; returns its session UID."""
        seen, original = self.request.observation, self._original() if shape.kept_faces else None
        if original:
            item = self._add_kept(name, shape, matrix, original)
        else:
            deviation = deviation_of(shape, seen)
            vertices = seen.to_result(shape.vertices)
            mesh = new_mesh(name, vertices, shape.faces, shape.observed, deviation, shape.colors, shape.quads)
            item = add_object(name, mesh, matrix, self.request.asked.scene)
        pose, refinement = seen.pose_in_result(shape.pose[0]), pack_refinement(shape.refinement)
        model = shape.model or self.request.model
        stored = StoredShape(model, shape.code, pose[None], shape.code[0], pose, refinement=refinement)
        verdict = {"explained": shape.explained, "confidence": shape.confidence, "candidates_of": self._job}
        store_shape(item, stored, {**self.request.stored, **verdict})
        mark_as_made(item)
        return item.session_uid

    def _original(self) -> bpy.types.Object | None:
        """The object whose mesh is kept; None, with a notice, if it is gone or has changed since it was read."""
        original = find_object(self.request.kept_uid)
        if original and is_unchanged(original, self.request.observation):
            return original
        changed = "{name} has changed meanwhile, so the result lacks its UV maps and materials."
        self._notices.append(translated(changed, name=self.request.source))
        return None

    def _add_kept(self, name: str, shape: Shape, matrix: np.ndarray, original: bpy.types.Object) -> bpy.types.Object:
        """Add an object with the mesh of the original and what completes it, in its place; the original is hidden."""
        seen = self.request.observation
        place = np.array(original.matrix_world, dtype=np.float64)
        place[:3, 3] += matrix[:3, 3] - seen.result_matrix[:3, 3]
        mesh = completed_mesh(name, original, seen, shape)
        item = add_object(name, mesh, place, self.request.asked.scene)
        add_vertex_group(item, shape)
        hide(original)
        return item
