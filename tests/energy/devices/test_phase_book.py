import pytest
from sqlalchemy import Engine, select

from greensv.energy.books.schema import create_tables, transaction
from greensv.energy.books.tables import phases
from greensv.energy.devices.phase_book import PhaseEnergy, phase_totals, record_phases
from greensv.units import uj_from_j


def energy(phase: str, domain: str, energy_j: float, *, duration_s: float = 1.0, uncertainty_j: float = 0.0):
    return PhaseEnergy(
        phase=phase, domain=domain, duration_s=duration_s, energy_j=energy_j, uncertainty_j=uncertainty_j
    )


@pytest.fixture
def books(engine: Engine) -> Engine:
    create_tables(engine)
    return engine


def test_the_microjoules_of_a_domains_phases_add_up_to_its_energy(books: Engine):
    thirds = [energy(phase, "cpu:0", 2.7182818284) for phase in ("data-wait", "forward", "other")]
    with transaction(books) as connection:
        record_phases(connection, "s", "search", thirds, pue=1.3, trial_number=0)
        stored = connection.execute(select(phases.c.energy_uj)).scalars().all()
    assert sum(stored) == uj_from_j(1.3 * sum(e.energy_j for e in thirds))
    assert len(stored) == 3


def test_totals_are_summed_over_domains_and_trainings(books: Engine):
    with transaction(books) as connection:
        for trial in (0, 1):
            found = [
                energy("data-wait", "cpu:0", 1.0, duration_s=2.0, uncertainty_j=0.3),
                energy("forward", "cpu:0", 5.0, duration_s=7.0),
                energy("data-wait", "gpu:A", 10.0, duration_s=2.0, uncertainty_j=0.4),
                energy("forward", "gpu:A", 50.0, duration_s=7.0),
            ]
            record_phases(connection, "s", "search", found, trial_number=trial)
        record_phases(connection, "s", "retrain", [energy("forward", "cpu:0", 1e3)], trial_number=0)
        record_phases(connection, "t", "search", [energy("forward", "cpu:0", 1e4)], trial_number=0)
        all_trials = phase_totals(connection, "s", "search")
        one_trial = phase_totals(connection, "s", "search", trial_number=1)
    assert [(t.phase, t.duration_s, t.energy_j) for t in all_trials] == [
        ("data-wait", 4.0, pytest.approx(22.0)),
        ("forward", 14.0, pytest.approx(110.0)),
    ]
    # 0.6 J and 0.8 J: what is unknown about one domain is alike in all trainings, and apart from the other domain.
    assert all_trials[0].uncertainty_j == pytest.approx(1.0)
    assert [(t.phase, t.energy_j) for t in one_trial] == [
        ("data-wait", pytest.approx(11.0)),
        ("forward", pytest.approx(55.0)),
    ]


def test_a_study_without_trainings_has_no_totals(books: Engine):
    with transaction(books) as connection:
        record_phases(connection, "s", "search", [])
        assert phase_totals(connection, "s", "search") == ()
