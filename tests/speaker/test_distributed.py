"""Two real processes that train one network, against one process with the same batches."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import tiny
from greensv.errors import ConfigError, DataError, TeamBroken
from greensv.speaker import distributed
from greensv.speaker.dataset import Utterances
from greensv.speaker.distributed import Team
from greensv.speaker.training import loop as training
from tiny import lockstep
from tiny.lockstep import MISSING, RECIPES, STOP_AFTER, make_training, run, with_one_missing

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def team(tones: Utterances, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the leader and its follower found, by rank."""
    folder = tmp_path_factory.mktemp("team")
    (folder / "utterances.pickle").write_bytes(pickle.dumps(tones))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tiny.__file__).parents[1])}
    command = [*TORCHRUN, str(Path(lockstep.__file__)), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"found-{rank}.pt", weights_only=False) for rank in range(2)]


def weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {f"{part}.{key}": value for part in ("network", "head") for key, value in state[part].items()}


def assert_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    found, expected = weights(found), weights(expected)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4, msg=key)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one_with_the_same_global_batch(
    name: str, team: list[dict[str, Any]], tones: Utterances
) -> None:
    alone = make_training(tones, RECIPES[name])
    assert team[0][name]["losses"] == pytest.approx(run(alone), abs=1e-5)
    assert_close(team[0][name]["state"], alone.state_dict())


@pytest.mark.parametrize("name", RECIPES)
def test_both_processes_hold_the_same_bits(name: str, team: list[dict[str, Any]]) -> None:
    leader, follower = (weights(found[name]["state"]) for found in team)
    for key, value in leader.items():
        assert torch.equal(follower[key], value), key


@pytest.mark.parametrize("name", RECIPES)
def test_a_training_stopped_in_two_processes_goes_on_in_one_to_the_same_weights(
    name: str, team: list[dict[str, Any]], tones: Utterances
) -> None:
    resumed = make_training(tones, RECIPES[name])
    resumed.load_state_dict(team[0][f"{name} stopped"]["state"])
    assert resumed.step == STOP_AFTER
    losses = team[0][f"{name} stopped"]["losses"][:STOP_AFTER] + run(resumed)
    assert losses == pytest.approx(team[0][name]["losses"], abs=1e-5)
    assert_close(resumed.state_dict(), team[0][name]["state"])


def test_what_stops_the_leader_stops_the_others_after_the_same_step(team: list[dict[str, Any]]) -> None:
    leader, follower = (found["plain stopped"] for found in team)
    assert leader["losses"][STOP_AFTER:] == [float("inf")], "what was raised passed through"
    assert len(follower["losses"]) == 1, "on_step is called on the leader only; the follower's run was stopped"
    assert follower["state"]["step"] == leader["state"]["step"] == STOP_AFTER


def test_a_file_that_only_one_process_wanted_is_known_to_all(team: list[dict[str, Any]], tones: Utterances) -> None:
    utterances = with_one_missing(tones)
    alone = make_training(utterances, RECIPES["plain"])
    assert team[0]["missing"]["losses"] == pytest.approx(run(alone), abs=1e-5)
    assert list(alone.skipped) == [utterances.paths[MISSING]]
    for found in team:
        assert found["missing"]["state"]["skipped"].keys() == alone.skipped.keys()


def test_the_state_does_not_know_how_many_processes_there_were(team: list[dict[str, Any]], tones: Utterances) -> None:
    alone = make_training(tones, RECIPES["plain"])
    run(alone)
    assert team[0]["plain"]["state"]["identity"] == alone.state_dict()["identity"]
    assert team[0]["plain"]["state"]["network"].keys() == alone.network.state_dict().keys()


def test_processes_hear_their_leader_and_each_other(team: list[dict[str, Any]]) -> None:
    for rank, found in enumerate(team):
        assert found["rank"] == rank
        assert found["told"] == ("told", 0)
        assert found["gathered"] == [0, 1]
        assert found["news"] == (0, 0, 1, 1)
        assert not found["is_broken"]


def test_what_fails_in_one_process_stops_all_and_the_leader_says_it(team: list[dict[str, Any]]) -> None:
    assert team[0]["failure"] == ("DataError", "process 1 of 2 (counted from 0): no such file")
    assert team[1]["failure"] == ("DataError", "no such file")
    assert team[0]["leader's failure"] == ("DataError", "nothing here")
    assert team[1]["leader's failure"][0] == "TeamStopped"


def test_while_processes_wait_for_others_the_leader_can_be_stopped(team: list[dict[str, Any]]) -> None:
    assert [found["looks"] for found in team] == [[1, 1], []]
    assert [found["waiting"] for found in team] == ["KeyboardInterrupt", "TeamStopped"]


def test_the_rows_of_all_processes_are_the_batch_each_once() -> None:
    rows = [row for rank in range(3) for row in range(12)[Team(rank=rank, size=3).rows(12)]]
    assert rows == list(range(12))


def test_a_batch_that_cannot_be_shared_is_refused(tones: Utterances) -> None:
    with pytest.raises(ConfigError, match=r"batch of 8 cannot be shared by 3 .*; so use 1 or 2 or 4 processes"):
        make_training(tones, RECIPES["plain"], Team(rank=0, size=3))


def test_what_fails_in_one_process_does_so_before_the_others_wait_for_its_gradients(
    tones: Utterances, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[nn.Module] = []
    monkeypatch.setattr(Team, "prepare", lambda self, module: prepared.append(module) or module)

    def out_of_memory(*arguments: Any, **settings: Any) -> None:
        raise MemoryError

    make_training(tones, RECIPES["plain"])
    assert len(prepared) == 1
    for last_made in ("FrontEnd", "BatchMaker", "SkippedUtterances"):
        with monkeypatch.context() as patch:
            patch.setattr(training, last_made, out_of_memory)
            with pytest.raises(MemoryError):
                make_training(tones, RECIPES["plain"])
    assert len(prepared) == 1


def test_alone_nothing_is_exchanged() -> None:
    alone, module, value = Team.alone(), nn.Linear(1, 1), torch.tensor(3.0)
    assert alone.prepare(module) is module
    assert alone.mean(value) is value
    assert alone.broadcast("x") == "x"
    assert alone.gather("x") == ["x"]
    assert alone.agree(news=[1, 2]) == (1, 2)
    assert alone.lost() == ()
    alone.barrier()
    with pytest.raises(DataError, match="gone"):
        alone.agree(DataError("gone"))
    with pytest.raises(ZeroDivisionError), alone.computing():
        1 / 0  # noqa: B018
    assert not alone.is_broken


def test_a_failure_inside_a_step_is_blamed_on_a_process_that_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "DEATH_S", 0.0)
    sleeper = subprocess.Popen(["sleep", "60"])
    two = Team(rank=0, size=2)
    two.process_ids = (os.getpid(), sleeper.pid)
    with pytest.raises(RuntimeError, match="out of memory"), two.computing():
        raise RuntimeError("out of memory")
    assert two.is_broken, "the other process waits inside the step"
    sleeper.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet buried
    assert two.lost() == (1,)
    with pytest.raises(TeamBroken, match=r"process 1 of 2 .* has died"), two.computing():
        raise RuntimeError("connection closed by peer")
    sleeper.wait()
    assert two.lost() == (1,)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="SyncBatchNorm needs two GPUs, and torch finds fewer")
def test_batch_normalisation_on_gpus_sees_the_whole_batch(tmp_path: Path) -> None:
    script = tmp_path / "norm.py"
    script.write_text(
        "import sys, torch\n"
        "from torch import nn\n"
        "from greensv.search.crew import num_launched, torchrun_rank\n"
        "from greensv.speaker.distributed import joined_team\n"
        "with joined_team(rank=torchrun_rank(), size=num_launched()) as team:\n"
        "    device = team.place('cuda')\n"
        "    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).to(device)\n"
        "    prepared = team.prepare(network)\n"
        "    batch = torch.arange(32.0, device=device).reshape(8, 4).sin()[team.rows(8)]\n"
        "    prepared(batch).sum().backward()\n"
        "    if team.rank == 0: torch.save({k: v.cpu() for k, v in network.state_dict().items()}, sys.argv[1])\n"
    )
    command = [*TORCHRUN, str(script), str(tmp_path / "state.pt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "state.pt")
    alone = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    alone.load_state_dict({**found, "1.running_mean": torch.zeros(3), "1.running_var": torch.ones(3)})
    alone(torch.arange(32.0).reshape(8, 4).sin())
    torch.testing.assert_close(found["1.running_mean"], alone[1].running_mean)
    torch.testing.assert_close(found["1.running_var"], alone[1].running_var)
