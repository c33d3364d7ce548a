"""What every meter must do. Subclass `MeterContract` in a test module, and pytest runs it on your meter."""

import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import pytest

from greensv.energy.meter import CounterSample, Meter, MeterRequest, MeterSession, Sample
from greensv.errors import MeterError

KEBAB_CASE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
NUM_READS = 5
CLOCK_TOLERANCE_S = 1.0
OLDEST_SAMPLE_S = 3600.0
"""What a scraper holds may be old by minutes."""


class MeterContract:
    """Tests of one meter, on hardware or on a simulation of it.

    A complete test of a meter::

        class TestWallPlug(MeterContract):
            @pytest.fixture
            def meter(self):
                return WallPlug()

            @contextmanager
            def lost_hardware(self):
                with unplugged():
                    yield

    Where the meter is unavailable the tests of its readings are skipped with its reason.
    """

    @pytest.fixture
    def meter(self) -> Meter:
        """The meter under test."""
        raise NotImplementedError("override the fixture `meter`")

    @pytest.fixture
    def meter_request(self) -> MeterRequest:
        """What the meter is asked to measure."""
        return MeterRequest()

    @contextmanager
    def lost_hardware(self) -> Iterator[None]:
        """While it lasts, the hardware cannot be read. Without an override that test is skipped."""
        pytest.skip("this meter's test has no way to take its hardware away")
        yield

    def test_name_is_kebab_case(self, meter: Meter) -> None:
        assert KEBAB_CASE.fullmatch(meter.name), f"{meter.name!r} is not like 'wall-plug'"

    def test_quality_is_one_of_the_three(self, meter: Meter) -> None:
        assert meter.quality in {"measured", "attributed", "estimated"}

    def test_construction_needs_no_hardware(self, meter: Meter) -> None:
        with self._lost_if_possible():
            type(meter)()

    def test_options_have_defaults(self, meter: Meter) -> None:
        if meter.options_type is not None:
            meter.options_type()

    def test_probe_says_what_it_measures_or_why_it_cannot(self, meter: Meter, meter_request: MeterRequest) -> None:
        about = meter.probe(meter_request)
        if about.is_available:
            assert len(set(about.domains)) == len(about.domains)
            assert not any(a.overlaps(b) for i, a in enumerate(about.domains) for b in about.domains[:i])
            assert about.max_power_w > 0
            assert about.resolution_s >= 0
            assert about.gain_uncertainty >= 0
            assert about.poll_interval_s is None or about.poll_interval_s > 0
        else:
            assert about.reason
            assert about.remedy

    def test_probe_with_lost_hardware_gives_a_reason_and_a_remedy(
        self, meter: Meter, meter_request: MeterRequest
    ) -> None:
        with self.lost_hardware():
            about = meter.probe(meter_request)
            assert not about.is_available
            assert about.reason
            assert about.remedy
            with pytest.raises(MeterError, match=re.escape(about.reason)):
                meter.open(meter_request)

    def test_probe_leaves_out_what_others_measure(self, meter: Meter, meter_request: MeterRequest) -> None:
        self._require(meter, meter_request)
        kinds = frozenset(domain.kind for domain in meter.probe(meter_request).domains)
        request = MeterRequest(gpu_uuids=meter_request.gpu_uuids, options=meter_request.options, leave_out=kinds)
        assert not meter.probe(request).is_available

    def test_samples_cover_exactly_the_announced_domains(self, meter: Meter, meter_request: MeterRequest) -> None:
        with self._opened(meter, meter_request) as session:
            announced = meter.probe(meter_request).domains
            assert sorted(sample.domain for sample in session.read()) == sorted(announced)

    def test_samples_are_possible_and_in_order_of_time(self, meter: Meter, meter_request: MeterRequest) -> None:
        with self._opened(meter, meter_request) as session:
            rounds = [session.read() for _ in range(NUM_READS)]
            for samples in rounds:
                for sample in samples:
                    self._check_sample(sample)
            for before, now in pairwise(rounds):
                self._check_order(before, now)

    def test_reads_from_another_thread(self, meter: Meter, meter_request: MeterRequest) -> None:
        with self._opened(meter, meter_request) as session:
            found: list[Sample] = []
            thread = threading.Thread(target=lambda: found.extend(session.read()))
            thread.start()
            thread.join()
            assert len(found) == len(session.read())

    def test_can_be_opened_again_after_closing(self, meter: Meter, meter_request: MeterRequest) -> None:
        for _ in range(2):
            with self._opened(meter, meter_request) as session:
                assert session.read()

    def test_reading_lost_hardware_raises_a_meter_error(self, meter: Meter, meter_request: MeterRequest) -> None:
        with self._opened(meter, meter_request) as session:
            session.read()
            with self.lost_hardware(), pytest.raises(MeterError):
                session.read()

    def _check_sample(self, sample: Sample) -> None:
        # The end of a window is compared with it: another clock than time.monotonic() would be off by days.
        assert -CLOCK_TOLERANCE_S < time.monotonic() - sample.taken_at_s < OLDEST_SAMPLE_S
        if isinstance(sample, CounterSample):
            assert isinstance(sample.count, int)
            assert sample.unit_j > 0
            assert 0 <= sample.count <= (sample.count if sample.range_count is None else sample.range_count)
        else:
            assert math.isfinite(sample.power_w)
            assert sample.power_w >= 0

    def _check_order(self, before: Sequence[Sample], now: Sequence[Sample]) -> None:
        later = {sample.domain: sample for sample in now}
        for sample in before:
            after = later[sample.domain]
            assert after.taken_at_s >= sample.taken_at_s
            if isinstance(sample, CounterSample) and isinstance(after, CounterSample):
                assert (sample.unit_j, sample.range_count) == (after.unit_j, after.range_count)
                assert after.range_count is not None or after.count >= sample.count

    def _require(self, meter: Meter, request: MeterRequest) -> None:
        about = meter.probe(request)
        if not about.is_available:
            pytest.skip(f"meter {meter.name!r} is unavailable: {about.reason}")

    @contextmanager
    def _opened(self, meter: Meter, request: MeterRequest) -> Iterator[MeterSession]:
        self._require(meter, request)
        session = meter.open(request)
        try:
            yield session
        finally:
            session.close()

    @contextmanager
    def _lost_if_possible(self) -> Iterator[None]:
        """Loses the hardware where the test knows how; without that, construction is tested all the same."""
        if type(self).lost_hardware is MeterContract.lost_hardware:
            yield
        else:
            with self.lost_hardware():
                yield
