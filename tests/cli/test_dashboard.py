"""`greensv dashboard`: the real optuna-dashboard, on this machine only."""

import json
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest

pytestmark = pytest.mark.slow


def fetch(url: str, *, within_s: float) -> bytes:
    """Waits for the server, which says its address just before it listens."""
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.read()
        except urllib.error.URLError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.1)


def test_the_dashboard_serves_the_studies_on_loopback_until_ctrl_c(start, searched):
    process = start("dashboard", "--port", "0")
    said = process.stdout.readline()
    assert said.startswith("optuna-dashboard on http://127.0.0.1:")
    url = said.split()[2]
    studies = json.loads(fetch(f"{url}api/studies", within_s=30.0))
    assert [study["study_name"] for study in studies["study_summaries"]] == ["tiny"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode in (0, 130)
    assert "Traceback" not in err


def test_a_port_in_use_is_an_error_that_says_what_to_do(greensv, searched):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = greensv("dashboard", "--port", port)
    assert found.code == 1
    assert f"port {port} of 127.0.0.1 cannot be used" in found.err
    assert "choose another with --port" in found.err


def test_the_dashboard_of_no_study_is_an_error(greensv, tmp_path):
    found = greensv("dashboard")
    assert found.code == 1
    assert "no study database" in found.err
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_none_is_wrong_usage(greensv):
    assert greensv("dashboard", "--port", "65536").code == 2
