"""The `greensv` command itself: what it loads, and the exit code it ends with."""

import os
import subprocess
import sys

import pytest

from greensv import __version__
from greensv.cli.main import COMMANDS

HEAVY = ("torch", "torchaudio", "optuna", "sqlalchemy", "pydantic", "rich", "numpy", "pluggy", "matplotlib")
LOADED = f"""
import sys
from greensv.cli.main import main
try:
    main()
finally:
    print("loaded:", *(m for m in {HEAVY} if m in sys.modules))
"""
INTERRUPTED = """
import signal, sys
from greensv.cli.main import main

def press_ctrl_c(event, arguments):
    if event == "open" and "components" in str(arguments[0]):
        signal.raise_signal(signal.SIGINT)

sys.addaudithook(press_ctrl_c)
main()
"""


def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    program = ["-m", "greensv"] if code is None else ["-c", code]
    environment = {**os.environ, "GREENSV_LOAD_PLUGINS": "", "COLUMNS": "120"}
    command = [sys.executable, *program, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("--version",)])
def test_help_and_version_load_click_and_nothing_heavy(arguments: tuple[str, ...]):
    result = run(*arguments, code=LOADED)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("loaded:\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_is_quick_too(command: str):
    result = run(command, "--help", code=LOADED)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"Usage: -c {command}")
    assert result.stdout.endswith("loaded:\n")


def test_help_lists_every_command():
    result = run("--help")
    assert result.returncode == 0
    for command, (_, summary) in COMMANDS.items():
        assert f"  {command} " in result.stdout
        assert summary in " ".join(result.stdout.split())


def test_version_is_printed():
    assert run("--version").stdout == f"greensv, version {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("serch",), "No such command 'serch'"),
        (("--no-plugin",), "--no-plugins"),
        (("plugins", "--jsno"), "--jsno"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], message: str):
    result = run(*arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_users_error_ends_with_1_and_without_a_traceback():
    result = run("describe", "ResNet-51-D")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "did you mean" in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_ends_with_130_and_without_a_traceback():
    result = run("plugins", code=INTERRUPTED)
    assert result.returncode == 130
    assert "Traceback" not in result.stderr


def test_a_reader_that_has_gone_is_told_nothing():
    read_end, write_end = os.pipe()
    os.close(read_end)
    environment = {**os.environ, "GREENSV_LOAD_PLUGINS": ""}
    command = [sys.executable, "-m", "greensv", "plugins", "--json"]
    result = subprocess.run(
        command, env=environment, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False, timeout=120
    )
    os.close(write_end)
    assert result.stderr == ""


def test_verbose_raises_the_level_of_the_log():
    code = "import logging\nfrom greensv.cli.main import main\ntry:\n  main()\nfinally:\n  print(logging.root.level)"
    levels = [run(*flags, "plugins", "--json", code=code).stdout.splitlines()[-1] for flags in ((), ("-v",), ("-vv",))]
    assert levels == ["30", "20", "10"]
