import contextlib
import signal
import threading

import pytest

from greensv.search.control import Interrupted, StopRequest, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_to_stop_and_lets_the_work_go_on_to_a_safe_point(number: signal.Signals):
    stop = StopRequest()
    with stop_on_signals(stop):
        stop.check()
        signal.raise_signal(number)
        assert stop.is_set
        with pytest.raises(Interrupted):
            stop.check()


def test_a_second_ctrl_c_interrupts_at_once():
    stop = StopRequest()
    with stop_on_signals(stop):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_second_sigterm_is_still_patient():
    stop = StopRequest()
    with stop_on_signals(stop):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert stop.is_set


def test_the_handlers_from_before_are_put_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with contextlib.suppress(ValueError), stop_on_signals(StopRequest()):
        assert signal.getsignal(signal.SIGINT) not in before
        raise ValueError("work failed")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_signals_are_left_alone():
    before, seen = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with stop_on_signals(StopRequest()):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
