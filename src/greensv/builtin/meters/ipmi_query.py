"""Asks a BMC for its power by running ipmitool or ipmi-dcmi; the password goes by no command line and into no file."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen

from greensv.builtin.meters.ipmi_text import QueryFailed, explain, parse_power_w

Tool = Literal["ipmitool", "ipmi-dcmi"]
REMOTE_TOOLS: tuple[Tool, ...] = ("ipmi-dcmi", "ipmitool")
LOCAL_TOOLS: tuple[Tool, ...] = ("ipmitool", "ipmi-dcmi")
"""In the order in which they are tried. Over the network, ipmi-dcmi takes 4 ms of processor time and ipmitool 21."""
PASSWORD_VARIABLE = "IPMI_PASSWORD"
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""Where ipmi-dcmi lies; not in everyone's PATH."""
LAST_WORDS_S = 1.0
"""How long a tool that was killed is waited for."""
FREEIPMI_DRIVERS = {"lan": "LAN", "lanplus": "LAN_2_0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class IpmiOptions:
    """Options of the meter `ipmi`. The password is that of the environment variable IPMI_PASSWORD."""

    includes_gpu: bool | None = None
    """Whether the BMC's power holds that of the GPUs: the power supplies' input does, that of the board alone does not.
    Nothing tells greensv, so it has to be stated where GPUs are used."""
    tool: Literal["auto", "ipmitool", "ipmi-dcmi"] = "auto"
    """What asks the BMC. auto: of those installed, ipmi-dcmi (FreeIPMI) for `host`, as it takes a fifth of ipmitool's
    processor time; ipmitool for the machine's own driver."""
    host: Annotated[str, MinLen(1)] | None = None
    """Address of this machine's BMC; none: the machine's own driver is used, /dev/ipmi0."""
    port: Annotated[int, Ge(1), Le(65_535)] = 623
    """UDP port of `host`."""
    interface: Literal["lan", "lanplus"] = "lanplus"
    """How `host` is talked to: lan for IPMI 1.5, lanplus for 2.0."""
    user: str = ""
    """User of the BMC at `host`; none: the BMC's anonymous user."""
    privilege: Literal["user", "operator", "administrator"] = "user"
    """Privilege asked for at `host`; DCMI lets any user read the power, some BMCs do not."""
    interval_s: Annotated[float, Gt(0), Le(60)] = 1.0
    """Seconds from one reading to the next."""
    resolution_s: Annotated[float, Gt(0), Le(60)] = 1.0
    """How often the BMC renews its reading, in seconds; 1 s is usual, and nothing tells."""
    timeout_s: Annotated[float, Gt(0), Le(60)] = 5.0
    """Seconds after which a BMC that has not answered is given up."""
    trust_deactivated: bool = False
    """Take watts of a BMC that calls its measurement deactivated, as OpenBMC does of good ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTool:
    """A tool that is installed here."""

    name: Tool
    path: str


def find_tool(options: IpmiOptions) -> FoundTool:
    """Returns the tool that asks the BMC.

    Raises:
        QueryFailed: none is installed, or not the one asked for.
    """
    best_first = LOCAL_TOOLS if options.host is None else REMOTE_TOOLS
    wanted = best_first if options.tool == "auto" else (options.tool,)
    folders = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS))
    for name in wanted:
        if path := shutil.which(name, path=folders):
            return FoundTool(name=name, path=path)
    raise QueryFailed(
        f"{' and '.join(wanted)} {'are' if len(wanted) > 1 else 'is'} not installed",
        "install ipmitool or FreeIPMI (on Debian: apt-get install ipmitool)",
    )


class PowerQuery:
    """Asks one BMC, one question at a time. `cancel`, from any thread, ends the one under way."""

    def __init__(self, options: IpmiOptions) -> None:
        self._options = options
        self._tool = find_tool(options)
        self._password = os.environ.get(PASSWORD_VARIABLE)
        if options.host and options.user and self._password is None:
            raise QueryFailed(
                f"no password for user {options.user!r} of the BMC at {options.host}",
                f"set the environment variable {PASSWORD_VARIABLE}",
            )
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_cancelled = False

    @property
    def tool(self) -> FoundTool:
        """What asks."""
        return self._tool

    def power_w(self) -> float:
        """Returns the power in watts. Takes as long as the BMC does, and at most `timeout_s`.

        Raises:
            QueryFailed: there is no reading.
        """
        with self._secrets() as (arguments, files):
            return_code, output, complaints = self._run([self._tool.path, *arguments], files)
        if return_code != 0:
            raise explain(self._tool.name, return_code=return_code, output=self._redacted(f"{complaints}\n{output}"))
        return parse_power_w(output, trust_deactivated=self._options.trust_deactivated)

    def cancel(self) -> None:
        """Ends the question under way, and lets no other begin."""
        with self._lock:
            self._is_cancelled = True
            if self._process is not None:
                self._process.kill()

    @contextmanager
    def _secrets(self) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """Yields the tool's arguments, and the open files that hold what no command line may show."""
        if self._tool.name == "ipmitool":
            yield ipmitool_arguments(self._options, has_password=self._password is not None), ()
        elif self._options.host is None or self._password is None:
            yield freeipmi_arguments(self._options, has_password=False), ()
        else:
            # FreeIPMI takes a password from a terminal or a file only; this file is in memory and has no name.
            file = os.memfd_create("greensv-ipmi")
            try:
                os.write(file, f"password {freeipmi_word(self._password)}\n".encode())
                arguments = freeipmi_arguments(self._options, has_password=True)
                yield [f"--config-file=/dev/fd/{file}", *arguments], (file,)
            finally:
                os.close(file)

    def _run(self, command: Sequence[str], files: tuple[int, ...]) -> tuple[int, str, str]:
        environment = {**os.environ, "LC_ALL": "C"}
        if self._tool.name == "ipmitool":
            environment[PASSWORD_VARIABLE] = self._password or ""
        else:
            environment.pop(PASSWORD_VARIABLE, None)
        with self._started(command, environment, files) as process:
            try:
                output, complaints = process.communicate(timeout=self._options.timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                # Its own children may hold its output open, and a driver that hangs keeps it from dying.
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=LAST_WORDS_S)
                raise QueryFailed(
                    f"no answer of the BMC within {self._options.timeout_s:g} s ({self._tool.name} was stopped)",
                    "check that the BMC is reachable, or raise energy.options.ipmi.timeout_s",
                ) from None
        return process.returncode, output, complaints

    @contextmanager
    def _started(
        self, command: Sequence[str], environment: dict[str, str], files: tuple[int, ...]
    ) -> Iterator[subprocess.Popen[str]]:
        with self._lock:
            if self._is_cancelled:
                raise QueryFailed("the meter was closed", "open it again")
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env=environment,
                    pass_fds=files,
                    start_new_session=True,  # Ctrl-C is for us; and without a terminal it cannot ask for a password
                )
            except OSError as error:
                raise QueryFailed(
                    f"{command[0]} cannot be started: {error.strerror}", "mend its installation"
                ) from error
            self._process = process
        try:
            yield process
        finally:
            with self._lock:
                self._process = None
            if process.poll() is None:
                process.kill()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=LAST_WORDS_S)

    def _redacted(self, text: str) -> str:
        return text.replace(self._password, "***") if self._password else text


def ipmitool_arguments(options: IpmiOptions, *, has_password: bool) -> list[str]:
    """Returns the arguments of ipmitool; `-E` makes it read the password from the environment."""
    question = ["dcmi", "power", "reading"]
    if options.host is None:
        return question
    address = ["-I", options.interface, "-H", options.host, "-p", str(options.port)]
    login = ["-U", options.user, "-L", options.privilege.upper()]
    patience = ["-N", "1", "-R", str(max(1, int(_patience_s(options))))]
    is_open = options.interface == "lan" and not options.user and not has_password
    return [*address, *login, *patience, *(["-A", "NONE"] if is_open else ["-E"]), *question]


def freeipmi_arguments(options: IpmiOptions, *, has_password: bool) -> list[str]:
    """Returns the arguments of ipmi-dcmi."""
    question = ["--get-system-power-statistics"]
    if options.host is None:
        return question
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = ["-D", FREEIPMI_DRIVERS[options.interface], "-h", f"{host}:{options.port}"]
    login = ["-l", options.privilege.upper(), *(["-u", options.user] if options.user else [])]
    patience_ms = round(1000 * max(1.0, _patience_s(options)))
    patience = [f"--session-timeout={patience_ms}", f"--retransmission-timeout={patience_ms // 3}"]
    is_open = options.interface == "lan" and not options.user and not has_password
    return [*address, *login, *patience, *(["-a", "NONE"] if is_open else []), *question]


def _patience_s(options: IpmiOptions) -> float:
    """Seconds after which the tool itself is to give up: it knows better than we do what it was waiting for."""
    return options.timeout_s / 2


def freeipmi_word(text: str) -> str:
    """Returns text as a quoted word of a FreeIPMI configuration file (freeipmi.conf(5))."""
    return '"' + "".join(f"\\{letter}" if letter in '\\"#' else letter for letter in text) + '"'
