"""Results of jobs that were running when Blender closed, in a real Blender with a scripted backend."""

import os
from pathlib import Path
from typing import Any

import addon_utils
import bpy
import numpy as np
import pytest
from conftest import ADDON, Backend, cube, exact, idle, result, submissions, submit_completion, until, world

from blender_addon import preferences, timer, unfinished
from blender_addon.session import LEFT_SECONDS, session
from sdf_backend.wire.messages import Accepted, Error, Progress, Submit


def leave_a_job(backend: Backend, records: Path) -> Submit:
    """Complete a cube, and close Blender before the result is there; then start it again and connect."""
    backend.answer = lambda submit: [Accepted(submit.job), Progress(submit.job, "fitting", 0.5)]
    submit_completion()
    until(lambda: submissions(backend))
    close_and_connect(backend, records)
    return submissions(backend)[0]


def close_and_connect(backend: Backend, records: Path, age: float = 60.0) -> None:
    addon_utils.disable_all()  # as Blender does when it closes
    for path in records.iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - age))
    bpy.ops.preferences.addon_enable(module=ADDON)
    stored: Any = bpy.context.preferences.addons[ADDON].preferences
    stored.address, stored.model, session.looked_at = backend.address, "cubes", float("-inf")
    assert bpy.ops.sdf.connect() == {"FINISHED"}
    session.looked_at = float("-inf")
    timer.work()


def test_a_result_is_offered_after_blender_was_closed_and_stands_in_its_place(
    connected: Backend, records: Path
) -> None:
    source = cube(location=(3, -4, 5), rotation=(0.3, 0.5, 2), scale=(1, 2, 0.5))
    submit = leave_a_job(connected, records)
    assert connected.cancelled == []
    assert [record.source for record in session.offered] == ["Cube"]
    assert len(bpy.data.objects) == 1  # nothing is added unasked
    connected.kept[submit.job] = exact(submit)[-1]
    assert bpy.ops.sdf.fetch_results() == {"FINISHED"}
    assert result().name == "Cube completed" and result()["sdf_model"] == "cubes"
    np.testing.assert_allclose(world(result()), world(source), atol=1e-5)
    assert not session.offered and not list(records.iterdir())


def test_each_blender_of_a_user_owns_their_jobs(connected: Backend, records: Path) -> None:
    cube()
    leave_a_job(connected, records)
    assert len(connected.secrets) == 1 and connected.secrets != {""}
    if os.name == "posix":
        assert (preferences.user_folder("client") / "secret").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["moved", "deleted"])
def test_a_result_stands_where_its_input_stood(connected: Backend, records: Path, change: str) -> None:
    source = cube(location=(3, -4, 5), rotation=(0.3, 0.5, 2))
    before = world(source)
    submit = leave_a_job(connected, records)
    if change == "moved":
        source.location.x += 10
    else:
        bpy.data.objects.remove(source)
    connected.kept[submit.job] = exact(submit)[-1]
    bpy.ops.sdf.fetch_results()
    np.testing.assert_allclose(world(result()), before, atol=1e-5)


def test_a_job_that_goes_on_is_listed_until_it_ends(connected: Backend, records: Path) -> None:
    cube()
    submit = leave_a_job(connected, records)
    unfinished.fetch(session.offered[0])
    connected.say(Progress(submit.job, "extracting", 0.5))
    until(lambda: session.listed_jobs[0].phase == "extracting")
    assert [path.stem for path in records.iterdir()] == [submit.job]
    connected.say(exact(submit)[-1])
    until(idle)
    timer.work()
    assert result().name == "Cube completed" and not list(records.iterdir())


def test_a_result_that_the_backend_no_longer_has_is_said_once(connected: Backend, records: Path) -> None:
    cube()
    submit = leave_a_job(connected, records)
    connected.kept[submit.job] = Error("unknown_job", "unknown job; it may have expired", submit.job)
    with pytest.raises(RuntimeError, match="it may have expired; complete the object again"):
        bpy.ops.sdf.fetch_results()
    assert not session.offered and not list(records.iterdir())


def test_what_is_forgotten_is_offered_no_more(connected: Backend, records: Path) -> None:
    cube()
    leave_a_job(connected, records)
    assert bpy.ops.sdf.forget_results() == {"FINISHED"}
    assert not session.offered and not list(records.iterdir())


def test_what_is_too_old_or_of_another_backend_or_running_elsewhere_is_not_offered(
    connected: Backend, records: Path
) -> None:
    cube()
    leave_a_job(connected, records)
    [record], [path] = session.offered, records.iterdir()
    damaged = records / "damaged.json"
    other_version = path.read_text().replace('"quality"', '"virtue"')
    for text in ("{", "[]", '{"job": 5}', other_version, path.read_text().replace(record.address, "tcp://127.0.0.1:1")):
        damaged.write_text(text)
        os.utime(damaged, (0, path.stat().st_mtime))
        assert list(unfinished._orphans()) == [record]
    damaged.unlink()
    os.utime(path)  # by the Blender that it belongs to
    assert list(unfinished._orphans()) == []
    os.utime(path, (0, path.stat().st_mtime - LEFT_SECONDS - 1))
    assert list(unfinished._orphans()) == [] and not path.exists()


def test_a_job_has_no_record_once_it_has_ended(connected: Backend, records: Path) -> None:
    cube()
    bpy.ops.sdf.complete()
    timer.work()
    assert not list(records.iterdir())
    connected.answer = lambda submit: [Accepted(submit.job)]
    name = submit_completion()
    timer.work()
    assert [path.stem for path in records.iterdir()] == [name]
    bpy.ops.sdf.disconnect()
    timer.work()
    assert not list(records.iterdir())


def test_a_job_of_a_local_backend_has_none(connected: Backend, records: Path) -> None:
    session.is_local = True
    connected.answer = lambda submit: [Accepted(submit.job)]
    cube()
    submit_completion()
    timer.work()
    assert not list(records.iterdir())
