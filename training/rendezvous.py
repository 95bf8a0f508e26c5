"""Where the ranks of a run meet: the store of torchrun, under a name that no earlier start of the same run has used.

torchrun keeps one store while it starts its processes again and again, and does not tell them which start it is: its
count of restarts is of one machine alone. With the keys of an earlier start, addresses of dead processes among them,
the new ranks would fail or wait for ever (seen with torch 2.13). So they agree on a new name first.
"""

import time
import uuid
from datetime import timedelta

from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from sdf_backend.errors import InputError

POLL = 0.02  # seconds; the store answers in less than one thousandth


def meet(timeout: timedelta) -> tuple[Store, int, int]:
    """The store of this start of the run, this process's rank and the number of ranks, for `init_process_group`.

    Raises `InputError` where not all ranks come within `timeout`.
    """
    store, rank, world = next(iter(rendezvous("env://", timeout=timeout)))
    return PrefixStore(agree_on_name(PrefixStore("meeting", store), rank, world, timeout), store), rank, world


def agree_on_name(store: Store, rank: int, world: int, timeout: timedelta) -> str:
    """A name that all ranks of this start get, and none of an earlier one; whatever the earlier ones left in `store`.

    Each rank says a word of its own. The first answers every word that it finds with its own, which is the name, until
    each rank has repeated that; a rank believes only an answer to its own word.

    Raises `InputError` where not all ranks come within `timeout`.
    """
    own, deadline = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    if rank:
        store.set(f"{rank} says", own)
    missing = set(range(1, world)) if rank == 0 else {rank}
    name = own
    while missing:
        for other in sorted(missing):
            said, answer = _get(store, f"{other} says"), _get(store, f"{other} is answered")
            if rank:
                word, _, name = answer.partition(" ")
                if word == own:
                    store.set(f"{rank} repeats", name)
                    missing.remove(rank)
            elif _get(store, f"{other} repeats") == own:
                missing.remove(other)
            elif said and answer != f"{said} {own}":
                store.set(f"{other} is answered", f"{said} {own}")
        if time.monotonic() > deadline:
            raise InputError(f"{len(missing)} of {world} processes did not come; look at what torchrun says of them")
        time.sleep(POLL)
    return name


def _get(store: Store, key: str) -> str:
    """A value of the store; empty where there is none."""
    return store.get(key).decode() if store.check([key]) else ""
