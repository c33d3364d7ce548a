"""`greensv measure`: the command's own business is left alone, and its energy is reported whatever happens."""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from greensv.builtin.meters.estimate import EstimateSession
from greensv.cli.main import cli
from greensv.errors import MeterError
from simulated.namespace import run_with_powercap
from simulated.nvml import UUIDS, FakeGpus, build_stub
from simulated.powercap_tree import PowercapTree

MEASURE = (sys.executable, "-m", "greensv", "--no-plugins", "measure")
ESTIMATE = ("--meter", "estimate")
JSON = (*ESTIMATE, "--json")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _interruptible() -> Iterator[None]:
    """A shell starts its background jobs deaf to Ctrl-C, and what is ignored stays so in all children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def run(capfd: pytest.CaptureFixture) -> Run:
    """Runs `greensv measure ARGUMENTS` in this process; returns its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main(["--no-plugins", "measure", *map(str, arguments)], standalone_mode=False)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


def last_line(text: str) -> dict[str, Any]:
    return json.loads(text.splitlines()[-1])


def test_streams_and_exit_code_are_the_commands_own():
    script = 'read line; echo "out $line"; echo "err $line" >&2; exit 7'
    command = [*MEASURE, *JSON, "--", "sh", "-c", script]
    done = subprocess.run(command, input="hello\n", capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (7, "out hello\n")
    assert done.stderr.startswith("err hello\n{")
    assert done.stderr.count("\n") == 2
    record = last_line(done.stderr)
    assert (record["command"], record["exit_code"]) == (["sh", "-c", script], 7)


def test_the_report_says_what_was_used_where_and_how_well_that_is_known(run: Run):
    code, out, err = run(*JSON, "--", "sleep", "0.1")
    record = last_line(err)
    assert (code, out, record["problem"]) == (0, "", None)
    assert record["started_at"].endswith("+00:00")
    assert record["duration_s"] >= 0.1
    assert {d["domain"] for d in record["domains"]} == {"cpu", "dram"}
    assert record["energy_j"] == pytest.approx(sum(domain["energy_j"] for domain in record["domains"]))
    assert record["energy_j"] > 0
    for part in (record, *record["domains"]):
        assert 0 < part["uncertainty_j"] < 10 * part["energy_j"]
    for domain in record["domains"]:
        assert (domain["meter"], domain["quality"], domain["role"]) == ("estimate", "estimated", "charged")
    assert any(note.startswith("estimate: dram: ") for note in record["notes"])


def test_pue_multiplies_the_total_and_leaves_the_domains_as_measured(run: Run):
    record = last_line(run(*JSON, "--pue", "1.5", "--", "sleep", "0.05")[2])
    assert record["pue"] == 1.5
    assert record["energy_j"] == pytest.approx(1.5 * sum(domain["energy_j"] for domain in record["domains"]))


def test_the_estimate_counts_the_cpu_time_of_the_command_and_of_its_children(run: Run):
    """At 10 W for a busy CPU and 0 W for one at rest, 0.3 s of CPU time are 3 J; the clock ticks each 10 ms."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    watts = [f"estimate.{key}" for key in ("min_w_per_cpu=0", "max_w_per_cpu=10", "num_cpus=1", 'kinds=["cpu"]')]
    settings = [argument for setting in watts for argument in ("--meter-option", setting)]
    shell = f"{sys.executable} -c '{burn}'; true"
    record = last_line(run(*JSON, *settings, "--", "sh", "-c", shell)[2])
    assert [domain["domain"] for domain in record["domains"]] == ["cpu"]
    assert 2.9 < record["energy_j"] < 10


def test_a_command_that_a_signal_ends_has_the_exit_code_that_a_shell_gives(run: Run):
    code, _, err = run(*JSON, "--", "sh", "-c", "kill -KILL $$")
    assert code == 128 + signal.SIGKILL
    assert last_line(err)["exit_code"] == 137


def test_options_behind_the_command_are_the_commands(run: Run):
    assert run(*JSON, "echo", "--json", "-n", "--meter")[1] == "--json -n --meter\n"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("no-such-program", 127, "no-such-program: command not found: no folder in PATH holds it"),
        ("./no-such-program", 127, "command not found: there is no such file"),
        (".", 127, "command not found"),
        ("./folder", 126, "is a folder"),
        ("./text", 126, "may not be executed; chmod +x it"),
        ("./script", 126, "cannot be executed (No such file or directory); is its interpreter there?"),
    ],
)
def test_a_command_that_cannot_be_run_ends_as_in_a_shell(
    run: Run, name: str, code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("echo\n")
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    found, _, err = run(*JSON, "--", name)
    assert found == code
    assert message in err
    assert "{" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--meter", "estimat"), "no meter named 'estimat'; did you mean 'estimate'?"),
        (("--meter", "nvml"), "meter 'nvml' is not available"),
        (("--also-meter", "auto"), "'auto' chooses what is charged"),
        (("--meter-option", "estimate.watts=3"), "watts"),
        (("--meter-option", "watts=3"), "--meter-option 'watts=3' is not like estimate.num_cpus=4"),
        (("--output", "no/such/folder/file"), "--output no/such/folder/file cannot be written"),
    ],
)
def test_a_command_that_cannot_be_measured_is_not_run(
    run: Run, arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    code, _, err = run(*arguments, "--", "touch", "ran")
    assert code == 125
    assert message in err
    assert err.endswith("; the command was not run\n")
    assert list(tmp_path.iterdir()) == []


def test_output_takes_the_json_and_leaves_the_table_to_people(run: Run, tmp_path: Path):
    _, _, err = run(*ESTIMATE, "--output", tmp_path / "energy.json", "--", "sleep", "0.05")
    record = json.loads((tmp_path / "energy.json").read_text())
    assert record["energy_j"] > 0
    lines = [line.split() for line in err.splitlines()]
    rows = {tuple(line[:2]): line for line in lines if line[:1] == ["estimate"] and line[-1] == "estimated"}
    assert set(rows) == {("estimate", "cpu"), ("estimate", "dram")}
    (total,) = [line for line in lines if line[:1] == ["total"]]
    assert float(total[1]) == pytest.approx(record["energy_j"], rel=1e-3)
    assert float(total[3]) == pytest.approx(record["energy_j"] / 3.6e6, rel=1e-2)
    (told,) = re.findall(r"^sleep 0\.05: (\S+) s, exit code 0;", err, re.MULTILINE)
    assert float(told) == pytest.approx(record["duration_s"], rel=1e-2)
    assert "estimate is used: asked for by name" in err


def test_json_to_a_file_leaves_standard_error_empty(run: Run, tmp_path: Path):
    assert run(*JSON, "--output", tmp_path / "energy.json", "--", "true")[2] == ""


def test_an_output_that_breaks_while_the_command_runs_is_printed_instead(run: Run, tmp_path: Path):
    path = tmp_path / "energy.json"
    code, _, err = run(*ESTIMATE, "--output", path, "--", "sh", "-c", f"rm {path} && mkdir {path}; exit 4")
    assert code == 4
    assert "here is what it was to hold" in err
    assert last_line(err)["exit_code"] == 4


PATIENT = """
trap 'echo got "$1"; exit 9' INT TERM USR1
echo ready
while :; do sleep 0.02; done
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_from_another_process_is_passed_on_and_the_energy_reported(signum: signal.Signals):
    command = [*MEASURE, *JSON, "--", "sh", "-c", PATIENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signum)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (9, "got \n")
    assert last_line(err)["energy_j"] > 0


def test_a_signal_that_the_command_does_not_catch_ends_it_and_the_energy_is_reported():
    command = [*MEASURE, *JSON, "--", "sh", "-c", "echo ready; exec sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert last_line(err)["exit_code"] == 143


def take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_ctrl_c_at_a_terminal_reaches_the_command_once():
    """The terminal sends it to both; were it passed on as well, a program that cleans up would be hit in the middle."""
    script = "n=0; trap 'n=$((n+1))' INT; echo ready; while [ $n = 0 ]; do sleep 0.02; done; sleep 0.3; exit $((40+n))"
    ours, theirs = pty.openpty()
    command = [*MEASURE, *JSON, "--", "sh", "-c", script]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=take_terminal,  # noqa: PLW1509 - this process has no other thread
    )  # fmt: skip
    with process:
        os.close(theirs)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.write(ours, b"\x03")
        _, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 41
    assert last_line(err)["energy_j"] > 0


def test_measuring_loads_neither_torch_nor_optuna_nor_the_ledger(tmp_path: Path):
    code = """
    import sys
    from greensv.cli.main import cli
    arguments = ["--no-plugins", "measure", "--meter", "estimate", "--json", "--output", sys.argv[1], "--", "true"]
    assert cli.main(arguments, standalone_mode=False) == 0
    heavy = ("torch", "torchaudio", "optuna", "sqlalchemy", "pydantic", "rich", "matplotlib", "scipy")
    print([name for name in heavy if name in sys.modules])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "energy.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_simulated_processor_is_measured_to_the_joule(tmp_path: Path):
    tree = PowercapTree(tmp_path / "powercap")
    package = tree.add_package(0)
    tree.add_part(package, 0)
    write = f"sleep 0.1; printf '%012d\\n' 12500000 1<> {package}/energy_uj"  # 125 W, not a wrapped counter
    done = run_with_powercap(tree.root, [*MEASURE, "--json", "--", "sh", "-c", write])
    assert done.returncode == 0, done.stderr
    record = last_line(done.stderr)
    found = {(d["meter"], d["domain"], d["quality"]): d["energy_j"] for d in record["domains"]}
    assert found == {("rapl", "cpu:0", "measured"): 12.5, ("rapl", "dram:0", "measured"): 0.0}
    assert record["energy_j"] == 12.5


def test_a_meter_that_dies_makes_the_energy_unknown_and_leaves_the_exit_code(tmp_path: Path):
    tree = PowercapTree(tmp_path / "powercap")
    package = tree.add_package(0)
    done = run_with_powercap(
        tree.root, [*MEASURE, "--meter", "rapl", "--json", "--", "sh", "-c", f": > {package}/energy_uj; exit 6"]
    )
    assert done.returncode == 6
    record = last_line(done.stderr)
    assert (record["energy_j"], record["uncertainty_j"], record["domains"]) == (None, None, [])
    assert "the energy of this command is not known" in record["problem"]
    assert record["problem"] in done.stderr.splitlines()[-2]


def test_meters_that_cannot_be_closed_leave_the_result_and_the_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch):
    def fail(self: object) -> None:
        raise MeterError("it hangs")

    monkeypatch.setattr(EstimateSession, "close", fail)
    code, _, err = run(*JSON, "--", "sh", "-c", "exit 7")
    record = last_line(err)
    assert (code, record["exit_code"], record["problem"]) == (7, 7, None)
    assert record["energy_j"] > 0
    assert "the meters could not be stopped: it hangs" in record["notes"]
    assert "was not run" not in err


def test_a_gpu_that_is_there_and_whose_library_is_missing_is_not_left_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "0000:01:00.0").mkdir()
    monkeypatch.setattr("greensv.builtin.meters.visible_gpus.DRIVER_FOLDER", tmp_path)
    monkeypatch.setattr("greensv.builtin.meters.visible_gpus.CONTROL_FILE", tmp_path)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    code, out, err = run("--json", "--", "echo", "ran")
    assert (code, out) == (125, "")
    assert "no meter measures gpu, which is in use" in err
    assert "install nvidia-ml-py" in err
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert run("--json", "--", "echo", "ran")[:2] == (0, "ran\n")


def measure_with_gpus(tmp_path: Path, gpus: FakeGpus, *command: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `greensv measure --json -- COMMAND` where the driver is the stand-in, and shows the GPUs named."""
    library = build_stub(tmp_path / "library")
    given = {"LD_LIBRARY_PATH": str(library), "FAKE_NVML_DIR": str(gpus.folder), **environment}
    return subprocess.run(
        [*MEASURE, "--json", "--", *command],
        env={**os.environ, **given}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_the_gpus_are_those_that_cuda_would_show_the_command(tmp_path: Path):
    gpus = FakeGpus(tmp_path / "gpus")
    for number in (0, 1):
        gpus.add(number, energy_mj=1000)
    write = f"echo 8500 > {gpus.folder}/0/energy_mj; echo 3000 > {gpus.folder}/1/energy_mj"
    done = measure_with_gpus(tmp_path, gpus, "sh", "-c", write, CUDA_VISIBLE_DEVICES="GPU-6666")
    assert done.returncode == 0, done.stderr
    found = {d["domain"]: d["energy_j"] for d in last_line(done.stderr)["domains"] if d["meter"] == "nvml"}
    assert found == {f"gpu:{UUIDS[1]}": 2.0}


def test_a_visible_gpu_that_nothing_can_measure_is_not_left_out(tmp_path: Path):
    gpus = FakeGpus(tmp_path / "gpus")
    gpus.add(0, energy_mj="E15", power_mw="E15")
    done = measure_with_gpus(tmp_path, gpus, "echo", "ran", CUDA_VISIBLE_DEVICES="0")
    assert (done.returncode, done.stdout) == (125, "")
    assert "no meter measures gpu, which is in use" in done.stderr
    assert "is lost" in done.stderr
