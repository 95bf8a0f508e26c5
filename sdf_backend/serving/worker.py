"""A process that owns one device and runs jobs: `python -m sdf_backend.serving.worker`, started by a server.

The main thread computes, a second one communicates with the server (`worker_link.py`). The process ends when its
standard input is closed, so that none outlives its server.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sdf_backend import log
from sdf_backend.errors import Cancelled, InputError
from sdf_backend.log import line, logger
from sdf_backend.serving.memory import limit_memory, release_free_memory, resident_bytes
from sdf_backend.serving.worker_link import CANCELLED_MESSAGE, ServerLink
from sdf_backend.serving.worker_messages import STOP_SIGNALS, Heartbeat, WorkerConfig, WorkerHello
from sdf_backend.wire.codec import Frame, WireError, decode, encode, encode_error, read_header
from sdf_backend.wire.errors import ErrorCode
from sdf_backend.wire.messages import Limits, Submit

if TYPE_CHECKING:  # torch takes seconds to load; errors while it loads are reported to the server
    from sdf_backend.serving.task_runner import TaskRunner

# Interval at which an idle worker looks for new models, seconds.
MODELS_SECONDS = 2.0
# Most jobs of one batch, by type of device. On a CPU a batch of eight takes as long as eight single jobs.
DEFAULT_BATCH = {"cpu": 1, "cuda": 8}


def main() -> int:
    """Run jobs until standard input is closed."""
    # These signals are for the server, which gives running jobs time to end.
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    log.configure()
    config = WorkerConfig.from_line(sys.stdin.buffer.readline())
    threading.Thread(target=_exit_on_closed_stdin, name="stdin", daemon=True).start()
    link = ServerLink(config)
    signal.signal(signal.SIGINT, link.interrupt)
    link.start()
    try:
        runner = _make_runner(config)
    except Exception as error:
        code = ErrorCode.BAD_INPUT if isinstance(error, InputError) else ErrorCode.FAILED
        if code is ErrorCode.FAILED:
            logger.error(line("worker failed", worker=config.name, traceback=traceback.format_exc()))
        link.send(encode_error(code, str(error) or type(error).__name__))
        link.close()
        return 1
    return _work(config, link, runner)


def _exit_on_closed_stdin() -> None:
    """End the process when the server ends, whatever it is doing."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(0)


def _make_runner(config: WorkerConfig) -> "TaskRunner":
    from pathlib import Path

    import numpy as np
    import torch

    from sdf_backend.content_cache import ContentCache
    from sdf_backend.engine import Engine
    from sdf_backend.model.store import ModelStore
    from sdf_backend.serving.task_runner import TaskRunner

    if config.threads:
        torch.set_num_threads(config.threads)
    folder = Path(config.models) if config.models else None
    cache = ContentCache(Path(config.cache), config.cache_bytes) if config.cache else None
    engine = Engine(ModelStore(folder, config.models_may_be_missing), config.device, cache)
    if engine.device.type == "cpu":  # drivers of GPUs map far more than they use
        # BLAS ends the process where it cannot have its buffers, so it gets them first.
        np.dot(np.ones((512, 512)), np.ones((512, 512)))
        limit_memory(config.memory_bytes)
    return TaskRunner(engine)


def _work(config: WorkerConfig, link: ServerLink, runner: "TaskRunner") -> int:
    """Run batches until the device is lost; returns the exit status."""
    import torch

    from sdf_backend.serving.task_runner import device_bytes

    device = runner.engine.device
    link.heartbeat = lambda: Heartbeat(runner.loaded, resident_bytes(), device_bytes(device))
    capacity = config.batch or DEFAULT_BATCH[device.type]
    hello = _with_models(WorkerHello(str(device), torch.cuda.device_count(), capacity), runner)
    checked_at = time.monotonic()
    # The heartbeat comes first, so that no status shows a ready worker without memory.
    link.send(encode(link.heartbeat()))
    link.send(encode(hello))
    while True:
        batch = link.next_batch(MODELS_SECONDS)
        if batch and not _run_batch(config, link, runner, batch):
            link.close()
            return 1
        if batch:
            release_free_memory()
        if time.monotonic() - checked_at >= MODELS_SECONDS:
            checked_at, current = time.monotonic(), _with_models(hello, runner)
            if current != hello:
                hello = current
                link.send(encode(hello))


def _with_models(hello: WorkerHello, runner: "TaskRunner") -> WorkerHello:
    models = runner.models()
    return replace(hello, models=models, digests=runner.digests(models))


def _run_batch(config: WorkerConfig, link: ServerLink, runner: "TaskRunner", batch: list[Sequence[Frame]]) -> bool:
    """Run the jobs of a batch and send their ends; returns False if the device is lost.

    If a batch fails its jobs are run one by one, so that an error ends only the job that causes it.
    """
    from sdf_backend.serving.task_runner import free_memory, is_device_lost

    names = [read_header(frames, config.limits).job or "" for frames in batch]
    link.begin(names)
    if len(batch) > 1:
        try:
            for job, reply in _compute(config, link, runner, batch).items():
                link.end(job, reply)
            return True
        except Cancelled:
            pass
        except Exception as error:
            logger.warning(line("batch failed", worker=config.name, jobs=len(batch), reason=error))
            if is_device_lost(error):
                return False  # the server retries each job alone
        free_memory(runner.engine.device)
    return all(
        _run_single(config, link, runner, job, frames)
        for job, frames in zip(names, batch, strict=True)
        if link.is_running(job)
    )


def _run_single(
    config: WorkerConfig, link: ServerLink, runner: "TaskRunner", job: str, frames: Sequence[Frame]
) -> bool:
    """Run one job and send its end; returns False if the device is lost."""
    from sdf_backend.serving.task_runner import OUT_OF_MEMORY, free_memory, is_device_lost, is_out_of_memory

    usable = True
    try:
        [reply] = _compute(config, link, runner, [frames]).values()
    except WireError as error:
        reply = encode_error(error.code, str(error), job)
    except Cancelled:
        reply = encode_error(ErrorCode.CANCELLED, CANCELLED_MESSAGE, job)
    except InputError as error:
        reply = encode_error(ErrorCode.BAD_INPUT, str(error), job)
    except Exception as error:
        if is_out_of_memory(error):
            logger.warning(line("out of memory", worker=config.name, job=job, reason=error))
            reply = encode_error(ErrorCode.OUT_OF_MEMORY, OUT_OF_MEMORY, job)
        else:
            logger.error(line("job failed", worker=config.name, job=job, traceback=traceback.format_exc()))
            reply = encode_error(ErrorCode.FAILED, f"{type(error).__name__}: {error}", job)
            usable = not is_device_lost(error)
        del error
        if usable:
            free_memory(runner.engine.device)
    link.end(job, reply)
    return usable


def _compute(
    config: WorkerConfig, link: ServerLink, runner: "TaskRunner", batch: list[Sequence[Frame]]
) -> dict[str, Sequence[Frame]]:
    """Run jobs together; returns the frames of their results by name of the job."""
    kinds = {Submit.kind: Submit}
    jobs = [decode(frames, kinds, config.limits) for frames in batch]
    link.set_current([job.job for job in jobs])
    with link.interruptible():
        results = runner.run(jobs, link.report, link.send_preview)
    return {result.job: _check_limits(encode(result), config.limits, result.job) for result in results}


def _check_limits(frames: list, limits: Limits, job: str) -> list:
    """Return the frames of a result; raises `WireError` if a client would reject them as too large."""
    sizes = [memoryview(frame).nbytes for frame in frames[2:]]
    if sum(sizes) > limits.message_bytes or max(sizes, default=0) > limits.frame_bytes or len(sizes) > limits.frames:
        raise WireError(
            ErrorCode.TOO_LARGE,
            f"the result has {len(sizes)} arrays of {sum(sizes) >> 20} MiB; lower the resolution or ask for less",
            job,
        )
    return frames


if __name__ == "__main__":
    sys.exit(main())
