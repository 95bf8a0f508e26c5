"""The timer: a few times a second it lets the session work, shows what has come, and has the panels drawn again."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, cast

import bpy
from bpy.app.handlers import persistent

from . import live
from .geometry import GeometryError
from .launcher import Stage
from .preferences import OFFLINE, connect_to, is_offline
from .session import Arrived, Job, explained, session
from .shapes import remove_previews
from .wire.client import State
from .wire.codec import WireError
from .wire.messages import Preview, Result

# Between two ticks, while something is under way and otherwise; a job that is asked for waits for the next.
BUSY_SECONDS, IDLE_SECONDS = 0.04, 0.1
# What one tick may take: Blender's user has the mouse in hand. The mesh of one shape is not divided.
BUDGET_SECONDS = 0.02
# Without a connection for so long, a script does not wait on.
LOST_SECONDS = 60.0

# What is to be shown and has not been yet, in the order in which it came.
_coming: deque[tuple[Job, bool, Iterator[None]]] = deque()
_status = ""
_drawn: tuple[object, ...] = ()


def start() -> None:
    """Tick from now on; a timer that is persistent survives the loading of another file."""
    for handlers, function in _handlers():
        handlers.append(function)
    if not bpy.app.background:  # where timers never fire; there, operators wait
        bpy.app.timers.register(_tick, first_interval=IDLE_SECONDS, persistent=True)


def stop() -> None:
    """Tick no more, and end the connection and the backend."""
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    for handlers, function in _handlers():
        handlers.remove(function)
    session.close()
    for arrived in session.tick():  # previews go, where Blender itself stays
        _coming.append(_begun(arrived))
    _show(float("inf"))
    live.forget()
    session.launcher.close()
    _show_status("")


def work() -> None:
    """Let backend and connection work a little, and show what has come."""
    if session.launcher.poll():
        _launched()
    for arrived in session.tick():
        _coming.append(_begun(arrived))
    if session.address and is_offline(session.address):
        session.lose(OFFLINE)
    if bpy.context.mode == "OBJECT":  # in others Blender does not take another mesh, nor another active object
        live.tick()
        _show(time.monotonic() + BUDGET_SECONDS)


def finish(seconds: float) -> list[str]:
    """Work until all jobs have ended; for background mode, where nobody sits and waits. Returns what went wrong."""
    session.untold.clear()
    connected_at = time.monotonic()

    def over() -> bool:
        nonlocal connected_at
        if session.state is State.CONNECTED:
            connected_at = time.monotonic()
        lost = time.monotonic() - connected_at > LOST_SECONDS
        return lost or (not session.jobs and not _coming)

    ended = wait(over, seconds)
    wrong, session.untold = session.untold, []
    if session.jobs:
        wrong.append(session.reason if ended else f"the jobs have not ended within {seconds:.0f} s; ask for less")
        _forget_jobs()
    return wrong


def wait(reached: Callable[[], bool], seconds: float) -> bool:
    """Work until something is so, or for `seconds`; whether it came to be so."""
    give_up = time.monotonic() + seconds
    while not reached() and time.monotonic() < give_up:
        work()
        time.sleep(0.01)
    return reached()


def _launched() -> None:
    """The backend of this Blender has come further."""
    launcher = session.launcher
    if launcher.stage is Stage.RUNNING:
        connect_to(launcher.address, None, is_local=True)
    elif launcher.stage is Stage.FAILED and session.is_local:
        session.lose(launcher.reason)
    elif launcher.stage is Stage.FAILED:
        session.say(launcher.reason)


def _begun(arrived: Arrived) -> tuple[Job, bool, Iterator[None]]:
    """A job, whether it is done with this, and the steps in which what has arrived of it is shown."""
    job, content = arrived.job, arrived.content
    match content:
        case Preview():
            return job, False, job.purpose.preview(content)
        case Result():
            return job, True, job.purpose.finish(content)
        case None:
            return job, False, job.purpose.fail()


def _show(until: float) -> None:
    """Go on showing; a step or more, until the time is over."""
    while _coming:
        job, done, steps = _coming[0]
        try:
            next(steps)
        except StopIteration:
            _coming.popleft()
            if done and job.purpose.undoable:
                bpy.ops.ed.undo_push(message=job.label)
        except (GeometryError, WireError) as error:  # of a job that another would have followed
            _coming.popleft()
            session.say(f"{job.label}: {explained(error)}")
        except Exception as error:  # a result that cannot be shown must not stop the timer
            _coming.popleft()
            logging.getLogger(__name__).exception("what came for %s cannot be shown", job.label)
            session.say(f"{job.label}: its result cannot be shown ({error}); the console says more")
        if time.monotonic() >= until:
            return


def _tick() -> float:
    global _drawn
    try:
        work()
        _tell()
    except Exception as error:  # Blender would take the timer away
        logging.getLogger(__name__).exception("the add-on has a defect")
        sentence = f"The add-on has a defect ({error}); the console says more"
        if sentence != session.notice:  # once, though it may come with every tick
            session.say(sentence)
    visible = _visible()
    if visible != _drawn:
        _drawn = visible
        _show_status(_summary())
        _redraw()
    starting = session.launcher.stage in (Stage.LOOKING, Stage.STARTING)
    return BUSY_SECONDS if session.jobs or _coming or live.waiting() or starting else IDLE_SECONDS


def _visible() -> tuple[object, ...]:
    """All that the panel and the status bar show and that changes by itself."""
    jobs = [(job.label, job.phase, job.fraction) for job in session.jobs.values() if not job.quiet]
    launcher = session.launcher
    return session.state, session.notice, session.welcome, launcher.stage, launcher.reason, jobs


def _tell() -> None:
    """Write to the Info log what went wrong since."""
    if bpy.context.window:  # a Blender whose last window is being closed has none
        untold, session.untold = session.untold, []
        for notice in untold:
            cast(Any, bpy.ops).sdf.tell("INVOKE_DEFAULT", text=notice)


def _summary() -> str:
    shown = [job for job in session.jobs.values() if not job.quiet]
    return "   ".join(f"{job.label}: {job.phase} {job.fraction:.0%}" for job in shown)


def _show_status(text: str) -> None:
    """Put the jobs into the status bar; nothing gives it back to Blender."""
    global _status
    if text != _status:
        _status = text
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
def _leave_file(*_: object) -> None:
    """Another file has been opened: what was asked for in the one before has no place in it."""
    given_up = ", ".join(job.label for job in session.jobs.values() if not job.quiet)
    _forget_jobs()
    remove_previews()  # of a Blender that ended while it saved by itself
    if given_up:
        session.say(f"Another file was opened, so these jobs were cancelled: {given_up}")


@persistent
def _save_file(*_: object) -> None:
    """Previews are not for files; the next, or the result, comes into the scene again."""
    remove_previews()


@persistent
def _undone(*_: object) -> None:
    """An undo or redo has brought back what was there: previews of jobs that have ended, meshes that are outdated."""
    remove_previews(session.jobs)
    live.catch_up()


def _handlers() -> list[tuple[list[Any], Callable[..., None]]]:
    handlers: Any = bpy.app.handlers
    return [
        (handlers.load_post, _leave_file),
        (handlers.save_pre, _save_file),
        (handlers.undo_post, _undone),
        (handlers.redo_post, _undone),
    ]


def _forget_jobs() -> None:
    for name in list(session.jobs):
        session.forget(name)
    _coming.clear()
    live.forget()
