"""Prepares the next items in the background while the present one is worked on."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def prefetched(
    make: Callable[[Item], Result], items: Iterable[Item], *, num_ahead: int = 1
) -> Iterator[Iterator[Result]]:
    """Yields an iterator over `make(item)`, in order; one background thread works up to `num_ahead` items ahead.

    What `make` raises is raised where its item is due. Leaving the context stops the thread, waiting for the item in
    its hands, so that no thread outlives its work.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="greensv-prefetch")
    try:
        yield _ahead(pool, make, items, num_ahead=num_ahead)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, make: Callable[[Item], Result], items: Iterable[Item], *, num_ahead: int
) -> Iterator[Result]:
    remaining = iter(items)
    waiting: deque[Future[Result]] = deque(pool.submit(make, item) for item in islice(remaining, num_ahead))
    while waiting:
        waiting.extend(pool.submit(make, item) for item in islice(remaining, 1))
        yield waiting.popleft().result()
