"""`--metrics-port` of search and retrain; what is served: tests/search/test_exporter.py."""

import socket
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner

from greensv.cli.main import cli
from greensv.errors import ConfigError


def test_a_port_that_is_taken_ends_a_search_before_a_study_is_made(tmp_path: Path):
    storage = f"sqlite:///{tmp_path / 'greensv.db'}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["search", "--budget-kwh", "0.002", "--storage", storage, "--metrics-port", port]
        result = CliRunner().invoke(cli, arguments)
    assert isinstance(result.exception, ConfigError)
    assert f"cannot be served on 127.0.0.1 port {port}" in str(result.exception)
    assert optuna.get_all_study_names(storage) == []


@pytest.mark.parametrize("command", ["search", "retrain"])
def test_a_port_is_a_port(command: str):
    result = CliRunner().invoke(cli, [command, "--budget-kwh", "1", "--metrics-port", "70000"])
    assert result.exit_code == 2
    assert "0<=x<=65535" in result.output
