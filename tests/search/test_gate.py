import pytest

from greensv.energy.books.budget import Holder, Lease
from greensv.search import gate
from greensv.search.control import BudgetExhausted, TooDear
from greensv.search.gate import BudgetGate

LEASE = Lease(
    id="lease",
    study_id="study",
    account="search",
    purpose="training",
    trial_number=0,
    holder=Holder(host="here", pid=1, process_started_at=0.0),
    granted_uj=100_000_000,
    ttl_s=60.0,
)


class ScriptedMetering:
    """A clock, the joules used so far, and what the lease and the account have left."""

    def __init__(self, *, lease_j: float = 100.0, account_j: float = 0.0) -> None:
        self.now_s = 50.0
        self.used_j = 7.0
        self.lease_j, self.account_j = lease_j, account_j
        self.wanted_j: list[float] = []
        self.exhausted = False
        self.longest_step_s = 0.0

    def check(self) -> None:
        if self.exhausted:
            raise BudgetExhausted("the budget is used up")

    def cover(self, lease: Lease, energy_j: float) -> bool:
        assert lease is LEASE
        self.wanted_j.append(energy_j)
        missing_j = energy_j - (self.lease_j - self.used_j + 7.0)
        if missing_j <= 0:
            return True
        if missing_j > self.account_j:
            return False
        self.lease_j += missing_j
        self.account_j -= missing_j
        return True

    def steps(self, watcher: BudgetGate, num: int, *, joules: float = 1.0, seconds: float = 0.5) -> None:
        for _ in range(num):
            self.now_s += seconds
            self.used_j += joules
            watcher.after_step()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch):
    def make(**amounts: float) -> ScriptedMetering:
        metering = ScriptedMetering(**amounts)
        monkeypatch.setattr(gate.time, "monotonic", lambda: metering.now_s)
        return metering

    return make


def test_a_training_that_fits_runs_to_its_end(make):
    metering = make(lease_j=100.0)
    watcher = BudgetGate(metering, LEASE, afterwards_j=5.0)
    watcher.begin(num_steps=80)
    metering.steps(watcher, 80)
    assert metering.lease_j == 100.0
    # Marked after 5 s (10 steps); first projection 2 s on: 66 steps are left at 1 J, 5 % dearer, and 5 J afterwards.
    assert metering.wanted_j[0] == pytest.approx(1.05 * 66 + 5.0)
    assert len(metering.wanted_j) == 17, "one look every two seconds"


def test_the_first_steps_are_left_out_of_the_projection(make):
    metering = make(lease_j=1_000.0)
    watcher = BudgetGate(metering, LEASE)
    watcher.begin(num_steps=100)
    metering.steps(watcher, 10, joules=50.0)
    assert metering.wanted_j == []
    metering.steps(watcher, 4)
    assert metering.wanted_j == [pytest.approx(1.05 * 86)]


def test_what_the_lease_lacks_is_topped_up_from_the_account(make):
    metering = make(lease_j=50.0, account_j=80.0)
    watcher = BudgetGate(metering, LEASE)
    watcher.begin(num_steps=80)
    metering.steps(watcher, 80)
    assert metering.lease_j > 80.0
    assert metering.account_j >= 0.0


def test_a_training_that_does_not_fit_is_stopped_early_with_what_it_cost(make):
    metering = make(lease_j=50.0, account_j=10.0)
    watcher = BudgetGate(metering, LEASE)
    watcher.begin(num_steps=1_000)
    with pytest.raises(
        TooDear, match=r"the rest of this training would use 0\.288 Wh, more than the budget has left"
    ) as e:
        metering.steps(watcher, 1_000)
    assert metering.used_j == 7.0 + 14, "at the first projection, not when all is used up"
    assert e.value.joules_per_step == pytest.approx(1.0)
    assert e.value.seconds_per_step == pytest.approx(0.5)


def test_what_comes_after_the_training_counts(make):
    metering = make(lease_j=100.0)
    watcher = BudgetGate(metering, LEASE, afterwards_j=1_000.0)
    watcher.begin(num_steps=80)
    with pytest.raises(TooDear):
        metering.steps(watcher, 80)


def test_a_used_up_budget_stops_after_the_very_step(make):
    metering = make()
    for lease in (LEASE, None):
        watcher = BudgetGate(metering, lease)
        watcher.begin(num_steps=10)
        metering.exhausted = False
        metering.steps(watcher, 2)
        metering.exhausted = True
        with pytest.raises(BudgetExhausted):
            metering.steps(watcher, 1)


def test_the_longest_step_is_kept_for_the_head_room(make):
    metering = make()
    watcher = BudgetGate(metering, None)
    watcher.begin(num_steps=10)
    metering.steps(watcher, 2, seconds=0.5)
    metering.steps(watcher, 1, seconds=3.0)
    metering.now_s += 100.0  # between two trainings nobody steps
    watcher.begin(num_steps=10)
    metering.steps(watcher, 2, seconds=1.0)
    assert metering.longest_step_s == 3.0


def test_without_a_lease_nothing_is_projected(make):
    metering = make(lease_j=0.0)
    watcher = BudgetGate(metering, None)
    watcher.begin(num_steps=100)
    metering.steps(watcher, 100)
    assert metering.wanted_j == []


def test_a_meter_that_has_not_moved_tells_nothing(make):
    metering = make(lease_j=0.0)
    watcher = BudgetGate(metering, LEASE)
    watcher.begin(num_steps=100)
    metering.steps(watcher, 100, joules=0.0)
    assert metering.wanted_j == []


def test_each_training_is_projected_from_its_own_steps(make):
    metering = make(lease_j=10_000.0)
    watcher = BudgetGate(metering, LEASE)
    watcher.begin(num_steps=20)
    metering.steps(watcher, 20, joules=9.0)
    metering.wanted_j.clear()
    watcher.begin(num_steps=20)
    metering.steps(watcher, 14, joules=2.0)
    assert metering.wanted_j == [pytest.approx(1.05 * 2 * 6)]
