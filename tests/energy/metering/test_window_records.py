from datetime import UTC, datetime

from sqlalchemy import Engine, select

from greensv.energy.books.ledger import Ledger
from greensv.energy.books.tables import windows
from greensv.energy.meter import Domain
from greensv.energy.metering.reading import Reading
from greensv.energy.metering.window import EnergyWindow


def test_a_window_is_kept_with_what_was_read_beside_it(engine: Engine) -> None:
    ledger = Ledger(engine)
    charged = Reading(domain=Domain("node"), meter="ipmi", quality="measured", energy_j=100, uncertainty_j=2)
    part = Reading(domain=Domain("cpu", "0"), meter="rapl", quality="measured", energy_j=30, role="part")
    window = EnergyWindow(
        name="training", started_at=datetime.now(UTC), duration_s=1.0, readings=(charged,), others=(part,)
    )
    ledger.record_window("study", "search", window, trial_number=1)
    columns = (windows.c.meter, windows.c.role, windows.c.energy_uj, windows.c.uncertainty_uj)
    with engine.begin() as connection:
        rows = connection.execute(select(*columns).order_by(windows.c.id)).all()
    assert [tuple(row) for row in rows] == [
        ("ipmi", "charged", 100_000_000, 2_000_000),
        ("rapl", "part", 30_000_000, 0),
    ]
