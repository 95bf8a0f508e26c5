"""Preparing on a Ray cluster: a task for each mesh, on whichever node has a free core.

    python -m training prepare MESHES -o DATASET --ray HEAD:6379

All nodes share the folders of meshes and dataset, and have this package. A task writes the file of its mesh, as a
worker process of one machine does, and nothing else: what a lost node or a lost head has not done, the next run does.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from sdf_backend.errors import InputError
from training.catalog import CatalogEntry
from training.prepare import (
    Job,
    MeshOutcome,
    PrepareSettings,
    find_unpacked,
    finish_dataset,
    in_processes,
    sample_meshes,
)

# Tasks that are submitted at once: more than the cores that a shared folder can feed, and few enough to wait for.
WINDOW = 1000
# How often Ray starts a task again whose node has died. A mesh that ends its process is not tried again.
RETRIES = 3
# Seconds between looks at the head, and how many it may be silent for: a restart of its machine takes longer.
LOOK, PATIENCE = 2.0, 10.0


def prepare_on_cluster(
    entries: list[CatalogEntry],
    output: Path,
    settings: PrepareSettings,
    address: str,
    progress: Callable[[MeshOutcome, int], None] | None = None,
) -> list[MeshOutcome]:
    """As `prepare_dataset`, with the meshes sampled by the nodes of a Ray cluster and packed by this process.

    address : HOST:PORT of the head; "auto" for the cluster that this machine belongs to; "local" for a new one of this
        machine, for as long as the call takes

    Raises
    ------
    InputError : as `prepare_dataset`; Ray is not installed, there is no cluster at `address`, or its head was lost
    """
    # Nodes work in folders of their own, where a relative path leads elsewhere.
    entries, output = [replace(entry, path=entry.path.resolve()) for entry in entries], output.resolve()
    outcomes = sample_meshes(entries, output, settings, partial(_on_cluster, address=address), progress)
    return finish_dataset(output, outcomes)


def _on_cluster(work: list[Job], address: str) -> Iterator[MeshOutcome]:
    """Run jobs on a cluster; yields their outcomes as they come."""
    with _connected(address) as ray:
        task = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_sample)
        waiting, pending, heard = iter(work), {}, time.monotonic()
        while True:
            pending |= {task.remote(job): job for job in islice(waiting, WINDOW - len(pending))}
            if not pending:
                return
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=LOOK)
            for reference in ready:
                yield _outcome(ray, reference, pending.pop(reference))
            if _answers(ray.get_runtime_context().gcs_address):
                heard = time.monotonic()
            elif time.monotonic() - heard > PATIENCE:
                raise InputError(
                    f"the head of the Ray cluster at {address} was lost; what is sampled is kept: start the cluster "
                    "again, and run the same command again"
                )


def _sample(job: Job) -> MeshOutcome:
    """Sample one mesh in a process of its own, which may hang or die; runs on a node.

    A task whose node died may have been done: then its outcome is found, and nothing is sampled twice.
    """
    return find_unpacked(job) or next(in_processes(1)([job]))


def _outcome(ray: Any, reference: Any, job: Job) -> MeshOutcome:
    """The outcome of a task; one whose nodes died time and again rejects its mesh, until the next run."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return MeshOutcome(job.name, f"its node died, {RETRIES + 1} times ({reason})", 0.0)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster."""
    # Ray reports to its makers otherwise; must be set before Ray is loaded.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        ray = import_module("ray")  # by its name, for type checkers without it: few install this extra
    except ImportError as error:
        raise InputError("--ray needs a package that is not installed; pip install 'sdf-shapes[cluster]'") from error
    if address not in ("auto", "local") and not _answers(address):
        raise InputError(f"no Ray cluster answers at {address}; start one with: ray start --head --disable-usage-stats")
    try:
        ray.init(address, log_to_driver=False, logging_level="error", include_dashboard=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"cannot join the Ray cluster {address}: {reason}; run this on one of its nodes, or start one with: "
            "ray start --head --disable-usage-stats"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _answers(address: str) -> bool:
    """Whether something listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, ValueError):
        return False
    return True
