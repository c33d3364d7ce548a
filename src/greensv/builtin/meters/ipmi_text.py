"""What ipmitool and ipmi-dcmi print of a DCMI power reading, and what their complaints mean."""

import re
from dataclasses import dataclass

from greensv.errors import MeterError

POWER = re.compile(r"(?:Instantaneous power reading|Current Power)\s*:\s*(\d+)\s*Watts?\b", re.IGNORECASE)
STATE = re.compile(r"(?:Power reading state is|Power Measurement)\s*:[ \t]*([^\n]*)", re.IGNORECASE)
ACTIVE_STATES = frozenset({"activated", "active"})
NO_READINGS = frozenset({0, 0xFFFF})
"""Watts that firmware gives when it has none: a machine that answers draws something, and 65535 is all 16 bits."""
LONGEST_QUOTE = 200


class QueryFailed(MeterError):
    """The BMC's power is not known: why, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """A complaint of either tool, what it means, and what to do."""

    pattern: str
    reason: str
    remedy: str


SLOWER = "raise energy.options.ipmi.interval_s; the BMC may also be busy with an update or a reset"
COMPLAINTS = (
    Complaint(
        pattern=r"permission denied|must be root|operation not permitted",
        reason="no permission to talk to this machine's BMC",
        remedy="allow it, as root: chmod a+rw /dev/ipmi0 (with a udev rule, to last), or run as root",
    ),
    Complaint(
        pattern=r"could not open device|could not find inband device|no such (?:file|device)|device not found",
        reason="this machine shows no BMC",
        remedy=(
            "load its drivers, as root: modprobe ipmi_si ipmi_devintf (virtual machines and containers mostly have "
            "none), or name the BMC's address in energy.options.ipmi.host"
        ),
    ),
    Complaint(
        pattern=r"\(d4\)|insufficient privilege|privilege level (?:insufficient|cannot be obtained)",
        reason="this user may not read the power",
        remedy='set energy.options.ipmi.privilege to "operator" or "administrator", as the BMC demands',
    ),
    Complaint(
        pattern=r"\(c1\)|invalid command|command invalid or unsupported|\(c9\)|dcmi not supported",
        reason="the BMC knows no DCMI power reading",
        remedy="enable DCMI or power monitoring in its settings, update its firmware, or use another meter",
    ),
    Complaint(
        pattern=r"\(ff\)|unspecified error|bad completion code",
        reason="the BMC refused without saying why, as many do when they are asked too often",
        remedy=SLOWER,
    ),
    Complaint(pattern=r"\(c0\)|node busy|bmc busy|\(c3\)", reason="the BMC is busy", remedy=SLOWER),
    Complaint(
        pattern=(
            r"(?:user ?name|password|k_g) invalid|invalid user name|unauthorized name|password verification timeout|"
            r"activate session command failed|activate session error|rakp|hmac|authentication type unavailable"
        ),
        reason="the BMC did not accept the user or the password",
        remedy="check energy.options.ipmi.user and the environment variable IPMI_PASSWORD",
    ),
    Complaint(
        pattern=r"timeout|timed out|unable to establish|no route|unreachable|refused|address lookup|resolve|hostname",
        reason="the BMC does not answer",
        remedy=(
            "check host, port and interface in energy.options.ipmi (lan for IPMI 1.5, lanplus for 2.0), and whether "
            "IPMI over LAN is enabled"
        ),
    ),
)
"""The first that fits counts: a refused password is also a session that could not be established."""


def parse_power_w(output: str, *, trust_deactivated: bool) -> float:
    """Returns the instantaneous power in watts, from what either tool printed.

    Never the average: the period it is taken over is the BMC's choice, and may be days.

    Args:
        output: standard output of `ipmitool dcmi power reading` or `ipmi-dcmi --get-system-power-statistics`.
        trust_deactivated: take the watts although the BMC says that its measurement is not active.

    Raises:
        QueryFailed: there is no reading in it, or one that cannot be.
    """
    powers, states = POWER.findall(output), STATE.findall(output)
    if len(powers) != 1 or len(states) != 1:
        raise QueryFailed(
            f"the output is not that of one power reading: {quoted(output) or 'nothing'}",
            "name a single host; with one, report this output to greensv",
        )
    power_w, state = int(powers[0]), states[0].strip().lower()
    if power_w in NO_READINGS:
        raise QueryFailed(
            f"the BMC reports {power_w} W ({state or 'no state'}), which means that it does not know",
            "enable power monitoring in the BMC's settings; some know nothing in the first minutes after a reset",
        )
    if state not in ACTIVE_STATES and not trust_deactivated:
        raise QueryFailed(
            f"the BMC reports {power_w} W, but that its measurement is {state or 'in no known state'!r}",
            "enable power monitoring in its settings; or, where the watts are known to follow the load (OpenBMC says "
            "this of good readings), set energy.options.ipmi.trust_deactivated",
        )
    return float(power_w)


def explain(tool: str, *, return_code: int, output: str) -> QueryFailed:
    """Returns what a failing tool's output means.

    Args:
        tool: its name.
        return_code: its exit status.
        output: all that it printed.
    """
    words = quoted(output)
    for complaint in COMPLAINTS:
        if re.search(complaint.pattern, output, re.IGNORECASE):
            return QueryFailed(f"{complaint.reason} ({tool}: {words})", complaint.remedy)
    return QueryFailed(
        f"{tool} ended with exit code {return_code}: {words or 'it printed nothing'}", f"run {tool} by hand to see why"
    )


def quoted(output: str) -> str:
    """Returns output on one line, cut where it is long."""
    text = " / ".join(line.strip() for line in output.splitlines() if line.strip())
    return text if len(text) <= LONGEST_QUOTE else f"{text[:LONGEST_QUOTE]}…"
