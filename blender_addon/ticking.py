"""The timer: a few times a second it lets the session work, shows what has come, and has the panels drawn again."""

import time

import bpy

from .results import place
from .session import session
from .wire.client import State
from .wire.messages import Result

TICK_SECONDS, IDLE_SECONDS = 0.1, 0.5


def start() -> None:
    """Tick from now on; a timer that is persistent survives the loading of another file."""
    if not bpy.app.background:  # where timers never fire; there, operators wait
        bpy.app.timers.register(_tick, first_interval=TICK_SECONDS, persistent=True)


def stop() -> None:
    """Tick no more, and end the connection."""
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    session.close()


def wait_for(name: str, seconds: float) -> None:
    """Let the session work until a job has ended; for background mode, where nobody sits and waits."""
    give_up = time.monotonic() + seconds
    while name in session.jobs and time.monotonic() < give_up:
        work()
        time.sleep(0.01)


def wait_connected(seconds: float) -> bool:
    """Let the session work until it is connected, or it is plain that it will not be."""
    give_up = time.monotonic() + seconds
    while session.state not in (State.CONNECTED, State.REFUSED, State.INCOMPATIBLE) and time.monotonic() < give_up:
        work()
        time.sleep(0.01)
    return session.state is State.CONNECTED


def _tick() -> float:
    before = (session.state, session.notice, len(session.jobs))
    work()
    if session.jobs or before != (session.state, session.notice, len(session.jobs)):
        _redraw()
        return TICK_SECONDS
    return IDLE_SECONDS


def work() -> None:
    """Let the session work a little, and show what has come."""
    for arrived in session.tick():
        place(arrived)
        if isinstance(arrived.content, Result) and not bpy.app.background:
            bpy.ops.ed.undo_push(message=f"{arrived.job.task.title()} {arrived.job.source}")


def _redraw() -> None:
    manager = bpy.context.window_manager
    for window in manager.windows if manager else ():
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                area.tag_redraw()
