"""Prepares the next item in the background while the present one is worked on."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def prefetched(make: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Iterator[Result]]:
    """Yields an iterator over `make(item)`, in order; one background thread works one item ahead.

    What `make` raises is raised where its item is due. Leaving the context stops the thread, waiting for the item in
    its hands, so that no thread outlives its work.
    """
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="greensv-prefetch")
    try:
        yield _one_ahead(pool, make, items)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_ahead(pool: ThreadPoolExecutor, make: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    ahead: Future[Result] | None = None
    for item in items:
        following = pool.submit(make, item)
        if ahead is not None:
            yield ahead.result()
        ahead = following
    if ahead is not None:
        yield ahead.result()
