"""The timer: several times a second it polls the session, displays what has arrived and redraws the panels."""

import logging
import time
from collections.abc import Callable
from typing import Any, cast

import bpy
from bpy.app.handlers import persistent

from . import sliders
from .directions import prepare_directions
from .geometry import GeometryError
from .installer import Stage as Installation
from .job_status import status_of
from .launcher import Stage
from .preferences import OFFLINE, connect_to, is_offline, preferences, start_local_backend
from .session import error_sentence, session
from .shapes import remove_previews
from .translations import translated
from .unfinished import is_blender_closing, keep_records
from .wire.client import State
from .wire.codec import WireError

# Seconds between two ticks, during jobs and otherwise; a job is sent with the tick after its submission.
BUSY_SECONDS, IDLE_SECONDS = 0.04, 0.1
# Time per tick for displaying results, so that the user interface stays responsive. A step is never divided.
DISPLAY_SECONDS = 0.02
# A script stops waiting after this time without a connection.
LOST_SECONDS = 60.0


def start() -> None:
    """Start the timer and register the handlers. A persistent timer survives loading another file."""
    for handlers, function in _handlers():
        handlers.append(function)
    if not bpy.app.background:  # there timers never fire, and operators wait instead
        bpy.app.timers.register(_tick, first_interval=IDLE_SECONDS, persistent=True)
        bpy.app.timers.register(_start_at_launch, first_interval=IDLE_SECONDS)


def stop() -> None:
    """Stop the timer, close the connection and end the local backend."""
    for function in (_tick, _start_at_launch):
        if bpy.app.timers.is_registered(function):
            bpy.app.timers.unregister(function)
    for handlers, function in _handlers():
        handlers.remove(function)
    session.close(leaving=is_blender_closing())
    session.recorded.clear()
    session.deliveries.extend(session.poll())  # abandoned jobs, to remove their previews
    _display(float("inf"))
    session.sliders.clear()
    session.launcher.close()
    session.installer.close()
    _set_status_text("")


def work() -> None:
    """Poll backend and connection, and display what has arrived for up to `DISPLAY_SECONDS`."""
    if session.launcher.poll():
        _react_to_launcher()
    if session.installer.poll():
        _react_to_installer()
    session.deliveries.extend(session.poll())
    if session.address and is_offline(session.address):
        session.drop_connection(OFFLINE)
    held_back = _held_back()
    for delivery in session.deliveries:
        delivery.job.held_back = held_back
    if not held_back:
        sliders.follow_moves()
        _display(time.monotonic() + DISPLAY_SECONDS)
    keep_records()


def finish(seconds: float) -> list[str]:
    """Work until all jobs have ended and are displayed; for background mode. Returns the errors."""
    session.unreported.clear()
    connected_at = time.monotonic()

    def ended() -> bool:
        nonlocal connected_at
        if session.state is State.CONNECTED:
            connected_at = time.monotonic()
        lost = time.monotonic() - connected_at > LOST_SECONDS
        return lost or (not session.jobs and not session.deliveries)

    in_time = wait(ended, seconds)
    errors, session.unreported = session.unreported, []
    if session.jobs:
        errors.append(session.reason if in_time else f"The jobs did not end within {seconds:.0f} s; request less")
        session.abandon_jobs()
    return errors


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Work until a condition holds, for at most `seconds`; returns whether it holds."""
    give_up = time.monotonic() + seconds
    while not condition() and time.monotonic() < give_up:
        work()
        time.sleep(0.01)
    return condition()


def _held_back() -> str:
    """Why nothing can be displayed yet, in words; empty if it can be."""
    if bpy.context.mode != "OBJECT":  # other modes do not allow another mesh or active object
        return "Finished, waits until you return to Object Mode"
    if any(is_of_blender(operator) for window in _windows() for operator in window.modal_operators):
        return "Finished, waits until you let go"  # a result in the middle of a drag would become part of its undo step
    return ""


def is_of_blender(operator: bpy.types.Operator) -> bool:
    """Whether an operator is one of Blender's own; some of other add-ons run as long as Blender does."""
    written_in_python = getattr(bpy.types, operator.bl_idname, None)
    return written_in_python is None or written_in_python.__module__.startswith("bl_")


def _react_to_launcher() -> None:
    launcher = session.launcher
    if launcher.stage is Stage.RUNNING:
        connect_to(launcher.address, None, is_local=True)
    elif launcher.stage is Stage.FAILED and session.is_local:
        session.drop_connection(launcher.reason)
    elif launcher.stage is Stage.FAILED:
        session.notify(launcher.reason)


def _react_to_installer() -> None:
    match session.installer.stage:
        case Installation.DONE:
            start_local_backend()
        case Installation.FAILED:
            session.notify(session.installer.reason)


def _display(deadline: float) -> None:
    """Display deliveries: at least one step, and more until the deadline.

    The undo step is pushed together with the last step: an undo in between would discard a result that no redo brings
    back.
    """
    while session.deliveries:
        delivery = session.deliveries[0]
        label = delivery.job.label
        try:
            done = delivery.step()
        except (GeometryError, WireError) as error:  # from submitting the next job of several
            session.deliveries.popleft()
            session.notify(f"{label}: {error_sentence(error)}")
        except Exception as error:  # must not stop the timer
            session.deliveries.popleft()
            logging.getLogger(__name__).exception("The result of %s cannot be displayed", label)
            session.notify(f"{label}: its result cannot be displayed ({error}); see the console for details")
        else:
            if done:
                session.deliveries.popleft()
            if done and delivery.is_undo_step:
                bpy.ops.ed.undo_push(message=label)
        if time.monotonic() >= deadline:
            return


def _tick() -> float:
    try:
        work()
        prepare_directions()
        _report_errors()
    except Exception as error:  # Blender would remove the timer
        logging.getLogger(__name__).exception("Internal error in the add-on")
        notice = f"Internal error in the add-on ({error}); see the console for details"
        if notice != session.notice:  # once, although it may recur with every tick
            session.notify(notice)
    visible = _displayed_state()
    if visible != session.drawn:
        session.drawn = visible
        _set_status_text(_job_summary())
        _redraw()
    starting = session.launcher.stage in (Stage.SEARCHING, Stage.STARTING)
    busy = session.installer.is_active or session.jobs or session.deliveries or session.sliders.moved_at or starting
    return BUSY_SECONDS if busy else IDLE_SECONDS


def _start_at_launch() -> None:
    """Start a local backend if the preferences say so; once the add-on is registered, when Blender's data is there."""
    if preferences().start_at_launch and session.state is State.CLOSED and not session.launcher.is_active:
        start_local_backend()


def _displayed_state() -> tuple[object, ...]:
    """All that the panel and the status bar show and that changes without the user."""
    jobs = [(job.label, status_of(job), job.fraction) for job in session.listed_jobs]
    launcher = session.launcher
    return (
        session.state,
        session.notice,
        session.welcome,
        launcher.stage,
        launcher.reason,
        session.installer.reason,
        tuple(session.offered),
        tuple(session.sliders.directions),
        jobs,
    )


def _report_errors() -> None:
    """Write new errors to the Info log."""
    if bpy.context.window:  # there is none while the last window is being closed
        unreported, session.unreported = session.unreported, []
        for notice in unreported:
            cast(Any, bpy.ops).sdf.tell("INVOKE_DEFAULT", text=notice)


def _job_summary() -> str:
    return "   ".join(f"{job.label}: {status_of(job)} {job.fraction:.0%}" for job in session.listed_jobs)


def _set_status_text(text: str) -> None:
    """Show a text in the status bar; an empty one restores Blender's own."""
    if text != session.status_text:
        session.status_text = text
        for window in _windows():
            window.workspace.status_text_set(text or None)


def _redraw() -> None:
    for window in _windows():
        for area in window.screen.areas:
            if area.type in ("VIEW_3D", "STATUSBAR"):
                area.tag_redraw()


def _windows() -> list[bpy.types.Window]:
    manager = bpy.context.window_manager
    return list(manager.windows) if manager else []


@persistent
def _after_load(*_: object) -> None:
    """Cancel the jobs of the previous file, and remove previews that an auto-save has kept."""
    cancelled = ", ".join(job.label for job in session.jobs.values() if not job.hidden)
    session.abandon_jobs()
    remove_previews()
    if cancelled:
        session.notify(translated("Another file was opened, so these jobs were cancelled: {names}", names=cancelled))


@persistent
def _before_save(*_: object) -> None:
    """Keep previews out of the file; the next preview or the result is displayed again."""
    remove_previews()


@persistent
def _after_undo(*_: object) -> None:
    """Remove restored previews of ended jobs, remesh outdated shapes, start half-displayed results over."""
    remove_previews(session.jobs)
    sliders.mark_outdated()
    for delivery in session.deliveries:
        delivery.restart()


def _handlers() -> list[tuple[list[Any], Callable[..., None]]]:
    handlers: Any = bpy.app.handlers
    return [
        (handlers.load_post, _after_load),
        (handlers.save_pre, _before_save),
        (handlers.undo_post, _after_undo),
        (handlers.redo_post, _after_undo),
    ]
