"""The processes of one training run: one on its own, or the many that torchrun starts.

    torchrun --nproc-per-node 8 -m training train DATASET -o RUN

Each process is a rank. All hold the same decoder, whose gradients are summed over the ranks; each owns the shapes whose
number is its rank modulo the number of ranks, with their codes and samples. What is common to all, such as statistics,
errors and the checkpoint, travels through the memory of the machines (gloo), gradients between GPUs through NCCL.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import psutil
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sdf_backend.errors import InputError
from sdf_backend.model.decoder import Decoder
from sdf_backend.model.devices import choose_device
from training.rendezvous import meet

# The other ranks wait this long, while the first draws pictures or writes a large checkpoint to a slow disk.
TIMEOUT = timedelta(minutes=30)
# Bytes of an error that travel to the other ranks.
MESSAGE_BYTES = 2048
# What gloo and its store say of a peer that is gone; they raise bare RuntimeErrors.
LOST = ("onnection closed by peer", "onnection reset by peer", "onnection refused", "roken pipe")
Rows = TypeVar("Rows", Tensor, list[Any])


class SharedError(InputError):
    """An error that all ranks know of, so that all of them may go on after it."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of its run; the defaults are those of a run of one process.

    rank, world : number of this process, from 0, and of all
    local_rank, local_world : the same on this machine
    launch : names this launch of torchrun, its restarts too; empty for a process that torchrun did not start
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1
    launch: str = ""

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and talks to the user."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this rank: auto and cuda give each rank of a machine a GPU of its own.

        Raises `InputError` where this machine has fewer GPUs than ranks, and for one GPU that is named for all.
        """
        if self.world == 1:
            return choose_device(name)
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name != "cuda":
            device = choose_device(name)
            if device.type == "cuda":
                raise InputError(
                    f"the device {name} is one for {self.world} processes; use cuda, which gives each its own"
                )
            return device
        if (found := torch.cuda.device_count()) < self.local_world:
            raise InputError(
                f"torchrun started {self.local_world} processes on a machine where torch finds {found} CUDA devices; "
                f"use --nproc-per-node {found or 1}, or train with --device cpu"
            )
        torch.cuda.set_device(self.local_rank)
        return choose_device(f"cuda:{self.local_rank}")

    def own(self, rows: Rows) -> Rows:
        """Those of all shapes' rows that this rank owns. Raises `InputError` where a rank would own none."""
        if len(rows) < self.world:
            raise InputError(
                f"{self.world} processes are too many for {len(rows)} training shapes, of which each owns some; "
                f"start at most {len(rows)}"
            )
        return rows[self.rank :: self.world]

    def shares(self, count: int, a_step: int) -> Iterator[tuple[int, int]]:
        """How many shapes of each step of an epoch are this rank's, and how many there are in all.

        A step has `a_step` shapes, the last one the rest. The counts of two ranks differ by one at most; with more
        ranks than shapes a step, some have none in some steps.

        count : training shapes of all ranks
        """
        for begin in range(0, count, a_step):
            end = min(begin + a_step, count)
            yield len(range(begin + (self.rank - begin) % self.world, end, self.world)), end - begin

    def parallel(self, decoder: Decoder) -> nn.Module:
        """The decoder as it is called in training: each rank gets the sum over all ranks of its gradients.

        A sum, because the loss of a rank is its share of the mean over all shapes of a step.
        """
        if self.world == 1:
            return decoder
        device = next(decoder.parameters()).device
        parallel = DistributedDataParallel(decoder, [device] if device.type == "cuda" else None)
        parallel.register_comm_hook(None, _sum_gradients)
        return parallel

    def decide(self, answer: bool) -> bool:
        """The answer of the first rank."""
        return bool(self.sum([answer and self.is_first])[0])

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sums over all ranks of these values."""
        if self.world == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def gather(self, rows: Tensor, count: int) -> Tensor | None:
        """The rows of all shapes, on the CPU, in their order.

        Parameters
        ----------
        rows : (s, ...), those of the shapes that this rank owns
        count : shapes of all ranks

        Returns
        -------
        (count, ...) on the first rank; None on the others
        """
        rows = rows.detach().cpu().contiguous()
        if self.world == 1:
            return rows
        if not self.is_first:
            dist.send(rows, 0)
            return None
        whole = torch.empty((count, *rows.shape[1:]), dtype=rows.dtype)
        whole[:: self.world] = rows
        for other in range(1, self.world):
            received = torch.empty_like(whole[other :: self.world])
            dist.recv(received, other)
            whole[other :: self.world] = received
        return whole

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise the `InputError` of a rank on all of them, as `SharedError`; all ranks enter the block.

        Nothing in it may wait for another rank.
        """
        if self.world == 1:
            yield
            return
        message = ""
        try:
            yield
        except InputError as error:
            message = str(error)
        messages = self._exchange(message)
        failed = [rank for rank, text in enumerate(messages) if text]
        if failed:
            everywhere = len(set(messages)) == 1
            raise SharedError(("" if everywhere else f"process {failed[0]}: ") + messages[failed[0]])

    def _exchange(self, message: str) -> list[str]:
        """The messages of all ranks."""
        encoded = message.encode()[:MESSAGE_BYTES].ljust(MESSAGE_BYTES, b"\0")
        received = [torch.empty(MESSAGE_BYTES, dtype=torch.uint8) for _ in range(self.world)]
        dist.all_gather(received, torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
        return [bytes(text.numpy()).rstrip(b"\0").decode(errors="ignore") for text in received]


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started; without torchrun, be one process on its own.

    In the block an error that all ranks share is raised on the first and ends the others with exit code 1. One of a
    single rank is raised with its number, and a lost connection to another as `InputError`.
    """
    ranks = _started_ranks()
    if ranks.world == 1:
        yield ranks
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, world = meet(TIMEOUT)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        yield ranks
    except SharedError:
        if ranks.is_first:
            raise
        # torchrun ends all ranks when one has ended: the first needs time for its line.
        with suppress(RuntimeError):
            dist.barrier()
        raise SystemExit(1) from None
    except InputError as error:
        raise InputError(f"process {ranks.rank}: {error}") from error
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not any(sign in str(error) for sign in LOST):
            raise
        raise InputError(
            f"process {ranks.rank} of {ranks.world} lost its connection to another, which has ended or died; "
            "the last checkpoint is whole: go on with --resume, or start with torchrun --max-restarts"
        ) from error
    dist.destroy_process_group()


def _started_ranks() -> Ranks:
    """This process by the variables that torchrun sets."""
    if not dist.is_available() or not dist.is_torchelastic_launched():
        return Ranks()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    launch = os.environ["TORCHELASTIC_RUN_ID"]
    if launch == "none":  # torchrun with --master-addr gives all its launches this name
        launch = f"{os.getppid()} {psutil.Process(os.getppid()).create_time()}"
    return Ranks(*(int(os.environ[name]) for name in names), launch=launch)


def _sum_gradients(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # pyright: ignore[reportPrivateImportUsage]
    """What DDP does with a bucket of gradients, (n,); by itself it would average."""
    work = cast(dist.Work, dist.all_reduce(bucket.buffer(), async_op=True))
    return work.get_future().then(lambda done: done.value()[0])
