import logging
import threading
from collections.abc import Sequence

import pytest
from sqlalchemy import Engine, create_engine, select

from greensv.energy.books.accrual import Use
from greensv.energy.books.schema import create_tables, transaction
from greensv.energy.books.tables import metadata
from greensv.energy.books.tables import telemetry as table
from greensv.energy.devices.device_state import DeviceReader, DeviceState
from greensv.energy.devices.telemetry import MAX_UNWRITTEN, Telemetry
from greensv.energy.devices.telemetry_book import TelemetryRecord, lowest_power_w, record_telemetry, telemetry_summaries
from greensv.errors import MeterError

GPU = "gpu:GPU-1"


class Reader(DeviceReader):
    """Reads what it is told to, or fails."""

    def __init__(self, *states: DeviceState) -> None:
        self.states: Sequence[DeviceState] = states
        self.failure: Exception | None = None
        self.num_closed = 0
        self.was_read = threading.Event()

    def read(self) -> Sequence[DeviceState]:
        self.was_read.set()
        if self.failure is not None:
            raise self.failure
        return self.states

    def close(self) -> None:
        self.num_closed += 1


@pytest.fixture
def books(engine: Engine) -> Engine:
    create_tables(engine)
    return engine


def watch(engine: Engine, *readers: DeviceReader, interval_s: float = 3600.0, trial: int | None = 4) -> Telemetry:
    return Telemetry(
        readers,
        engine,
        study_id="s",
        account="search",
        use=lambda: Use(lease=None, purpose="training", trial_number=trial),
        interval_s=interval_s,
        clock=lambda: 1_700_000_000.0,
    )


def rows(engine: Engine) -> list[dict]:
    with transaction(engine) as connection:
        return [dict(row) for row in connection.execute(select(table).order_by(table.c.id)).mappings()]


def test_a_record_per_device_says_what_it_worked_for_and_leaves_open_what_is_not_known(books: Engine):
    reader = Reader(DeviceState(device=GPU, utilisation=0.5, power_w=300.0), DeviceState(device="cpu"))
    telemetry = watch(books, reader)
    telemetry.read()
    telemetry.write()
    gpu, cpu = rows(books)
    assert (gpu["device"], gpu["utilisation"], gpu["power_w"], gpu["clock_mhz"]) == (GPU, 0.5, 300.0, None)
    assert (gpu["trial_number"], gpu["purpose"], gpu["account"], gpu["at"]) == (4, "training", "search", 1_700_000_000)
    assert cpu["utilisation"] is None
    assert cpu["temperature_c"] is None


def test_a_reader_that_fails_is_told_of_once_and_keeps_no_other_from_being_read(books: Engine, caplog):
    broken, good = Reader(), Reader(DeviceState(device="cpu", utilisation=0.25))
    broken.failure = MeterError("GPU is lost")
    telemetry = watch(books, broken, good)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            telemetry.read()
    telemetry.write()
    assert len(rows(books)) == 3
    assert [record.getMessage() for record in caplog.records] == ["telemetry, Reader: GPU is lost (said once)"]


def test_a_readers_mistake_is_no_failure_of_the_search(books: Engine, caplog):
    broken = Reader()
    broken.failure = ZeroDivisionError("a plugin's")
    telemetry = watch(books, broken)
    telemetry.read()
    telemetry.write()
    assert rows(books) == []
    assert "ZeroDivisionError" in caplog.text


def test_what_could_not_be_written_is_written_later(tmp_path, open_engine, caplog):
    engine = open_engine(f"sqlite:///{tmp_path / 'study.db'}")
    create_tables(engine)
    metadata.tables["greensv_telemetry"].drop(engine)
    telemetry = watch(engine, Reader(DeviceState(device="cpu", utilisation=0.25)))
    telemetry.read()
    telemetry.write()
    assert "telemetry, writing" in caplog.text
    metadata.tables["greensv_telemetry"].create(engine)
    telemetry.read()
    telemetry.write()
    telemetry.write()
    assert len(rows(engine)) == 2


def test_what_can_never_be_written_does_not_fill_the_memory(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path / 'without-tables.db'}")
    telemetry = watch(engine, Reader(*[DeviceState(device="cpu")] * 4_000))
    for _ in range(4):
        telemetry.read()
        telemetry.write()
    engine.dispose()
    assert len(telemetry._unwritten) == MAX_UNWRITTEN


def test_the_thread_reads_by_itself_and_leaves_nothing_unwritten(books: Engine):
    reader = Reader(DeviceState(device="cpu", utilisation=0.25))
    with watch(books, reader, interval_s=0.001):
        assert reader.was_read.wait(30)
    assert len(rows(books)) >= 1
    assert reader.num_closed == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "greensv-telemetry"]


def records(*states: DeviceState, trial: int | None, purpose: str = "training") -> list[TelemetryRecord]:
    return [TelemetryRecord(at=0.0, host="h", purpose=purpose, trial_number=trial, state=state) for state in states]


def test_a_trials_summary_is_of_its_training_and_knows_what_was_never_told(books: Engine):
    with transaction(books) as connection:
        training = records(
            DeviceState(device=GPU, utilisation=0.5, clock_mhz=1_000.0, temperature_c=60.0, memory_used_bytes=2 << 30),
            DeviceState(device=GPU, utilisation=0.9, clock_mhz=1_500.0, temperature_c=71.0, memory_used_bytes=3 << 30),
            DeviceState(device=GPU),
            trial=4,
        )
        record_telemetry(connection, "s", "search", training)
        aside = [DeviceState(device=GPU, utilisation=0.0, temperature_c=99.0)]
        record_telemetry(connection, "s", "search", records(*aside, trial=4, purpose="evaluation"))
        record_telemetry(connection, "s", "search", records(*aside, trial=None))
        record_telemetry(connection, "s", "retrain", records(*aside, trial=4))
        record_telemetry(connection, "t", "search", records(*aside, trial=4))
        (found,) = telemetry_summaries(connection, "s", "search")
    assert (found.trial_number, found.device, found.num_records) == (4, GPU, 3)
    assert found.mean_utilisation == pytest.approx(0.7)
    assert found.mean_clock_mhz == pytest.approx(1_250.0)
    assert found.max_temperature_c == 71.0
    assert found.max_memory_used_bytes == 3 << 30
    assert found.mean_power_w is None
    assert found.mean_memory_utilisation is None


def test_the_lowest_power_seen_is_no_zero(books: Engine):
    with transaction(books) as connection:
        assert lowest_power_w(connection, "s", GPU) is None
        states = [DeviceState(device=GPU, power_w=power_w) for power_w in (0.0, 68.0, 300.0, None)]
        record_telemetry(connection, "s", "search", records(*states, trial=None, purpose="preparation"))
        record_telemetry(connection, "t", "search", records(DeviceState(device=GPU, power_w=5.0), trial=None))
        assert lowest_power_w(connection, "s", GPU) == 68.0
