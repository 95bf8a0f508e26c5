"""Ranks meet at a store that earlier starts of the same run have used."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore, Store

from sdf_backend.errors import InputError
from training.rendezvous import agree_on_name

MINUTE = timedelta(minutes=1)


def meet(store: Store, world: int) -> list[str]:
    with ThreadPoolExecutor(world) as threads:
        return list(threads.map(lambda rank: agree_on_name(store, rank, world, MINUTE), range(world)))


def test_all_ranks_get_one_name_and_at_each_start_another() -> None:
    store = HashStore()
    names = [meet(store, world) for world in (3, 3, 2, 4)]  # machines come and go
    assert [len(set(one)) for one in names] == [1] * 4
    assert len({one[0] for one in names}) == 4


@pytest.mark.parametrize("died", [0, 1])
def test_a_start_that_died_before_all_ranks_had_come_does_no_harm(died: int) -> None:
    store = HashStore()
    with pytest.raises(InputError, match="1 of 2 processes did not come"):
        agree_on_name(store, 1 - died, 2, timedelta(seconds=0.1))
    first, second = meet(store, 2)
    assert first == second
