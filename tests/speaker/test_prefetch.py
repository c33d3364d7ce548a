import threading

import pytest

from greensv.speaker.prefetch import prefetched


def test_results_come_in_order_each_once() -> None:
    with prefetched(lambda item: item * item, range(5)) as results:
        assert list(results) == [0, 1, 4, 9, 16]
    with prefetched(lambda item: item, []) as results:
        assert list(results) == []


def test_the_next_item_is_made_in_another_thread_while_one_is_worked_on() -> None:
    made = [threading.Event() for _ in range(3)]

    def make(item: int) -> str:
        made[item].set()
        return threading.current_thread().name

    with prefetched(make, range(3)) as results:
        assert next(results).startswith("greensv-prefetch")
        assert made[1].wait(timeout=10)
        assert not made[2].is_set()


def test_so_many_items_are_made_ahead_as_told_and_no_more() -> None:
    made = [threading.Event() for _ in range(6)]
    with prefetched(lambda item: made[item].set(), range(6), num_ahead=3) as results:
        next(results)
        assert made[3].wait(timeout=10)
        assert not made[4].is_set()
        assert list(results) == [None] * 5


def test_an_exception_is_raised_where_its_item_is_due() -> None:
    with prefetched(lambda item: 1 // item, [1, 0, 1]) as results:
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_leaving_early_waits_for_the_thread() -> None:
    made = []
    with prefetched(made.append, range(100)) as results:
        next(results)
    assert len(made) <= 2
    assert not any(thread.name.startswith("greensv-prefetch") for thread in threading.enumerate())
