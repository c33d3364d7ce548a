"""Outputs of ipmitool and ipmi-dcmi, as their versions and as users of other projects have shown them."""

import pytest

from greensv.builtin.meters.ipmi_query import IpmiOptions, freeipmi_arguments, ipmitool_arguments
from greensv.builtin.meters.ipmi_text import QueryFailed, explain, parse_power_w

IPMITOOL_1_8_19 = """
    Instantaneous power reading:                  2578 Watts
    Minimum during sampling period:               2118 Watts
    Maximum during sampling period:               4294 Watts
    Average power reading over sample period:     2567 Watts
    IPMI timestamp:                           11/21/26 01:08:09 UTC    Sampling period:                          00000300 Seconds.
    Power reading state is:                   activated


"""  # noqa: E501
IPMITOOL_1_8_18 = """
    Instantaneous power reading:                   215 Watts
    Minimum during sampling period:                162 Watts
    Maximum during sampling period:                276 Watts
    Average power reading over sample period:      176 Watts
    IPMI timestamp:                           Wed Feb 15 12:49:51 2017
    Sampling period:                          01131466 Seconds.
    Power reading state is:                   activated

"""
FREEIPMI_1_6 = """\
Current Power                        : 332 Watts
Minimum Power over sampling duration : 68 watts
Maximum Power over sampling duration : 504 watts
Average Power over sampling duration : 348 watts
Time Stamp                           : 11/21/2026 - 01:08:56
Statistics reporting time period     : 2685198000 milliseconds
Power Measurement                    : Active
"""
OPENBMC = IPMITOOL_1_8_18.replace("215 Watts", "319 Watts").replace("activated", "deactivated")


@pytest.mark.parametrize(
    ("output", "power_w"), [(IPMITOOL_1_8_19, 2578.0), (IPMITOOL_1_8_18, 215.0), (FREEIPMI_1_6, 332.0)]
)
def test_the_present_power_is_read_from_every_form(output, power_w):
    assert parse_power_w(output, trust_deactivated=False) == power_w


def test_openbmc_calls_good_readings_deactivated():
    with pytest.raises(QueryFailed, match=r"319 W, but that its measurement is 'deactivated'.*trust_deactivated"):
        parse_power_w(OPENBMC, trust_deactivated=False)
    assert parse_power_w(OPENBMC, trust_deactivated=True) == 319.0


@pytest.mark.parametrize(
    "output",
    [
        "",
        "Power: 300 Watts",
        IPMITOOL_1_8_19.replace("Instantaneous", "Momentary"),
        IPMITOOL_1_8_19.replace("2578 Watts", "n/a"),
        IPMITOOL_1_8_19.replace("Power reading state is", "State"),
        FREEIPMI_1_6 + FREEIPMI_1_6,  # of two hosts
    ],
)
def test_an_output_that_is_not_understood_is_a_failure_that_quotes_it(output):
    with pytest.raises(QueryFailed, match="not that of one power reading: ") as caught:
        parse_power_w(output, trust_deactivated=True)
    assert (output.strip().splitlines() or ["nothing"])[0].strip() in caught.value.reason


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "Could not open device at /dev/ipmi0 or /dev/ipmi/0 or /dev/ipmidev/0: No such file or directory",
            "this machine shows no BMC (ipmitool: Could not open device",
        ),
        ("Could not open device at /dev/ipmi0 or /dev/ipmi/0: Permission denied", "no permission to talk to"),
        ("could not find inband device", "this machine shows no BMC"),
        ("ipmi_ctx_find_inband: permission denied", "no permission to talk to"),
        ("    DCMI request failed because: Invalid command (c1)", "the BMC knows no DCMI power reading"),
        ("Address lookup for bmc.invalid failed", "the BMC does not answer"),
        ("Error: Unable to establish IPMI v2 / RMCP+ session", "the BMC does not answer"),
        (
            "Activate Session command failed\nError: Unable to establish LAN session",
            "the BMC did not accept the user or the password (ipmitool: Activate Session command failed / Error: U",
        ),
        ("Segmentation fault", "ipmitool ended with exit code 1: Segmentation fault"),
        ("", "ipmitool ended with exit code 1: it printed nothing"),
    ],
)
def test_complaints_are_explained(output, reason):
    failure = explain("ipmitool", return_code=1, output=output)
    assert failure.reason.startswith(reason)
    assert failure.remedy


def test_a_long_complaint_is_cut():
    assert len(explain("ipmitool", return_code=1, output="x" * 5000).reason) < 300


def test_the_bmc_of_this_machine_is_asked_without_an_address():
    assert ipmitool_arguments(IpmiOptions(user="bob"), has_password=True) == ["dcmi", "power", "reading"]
    assert freeipmi_arguments(IpmiOptions(), has_password=False) == ["--get-system-power-statistics"]


def test_ipmi_2_is_the_default_over_the_network():
    options = IpmiOptions(host="fe80::1", user="bob", privilege="operator")
    question = ipmitool_arguments(options, has_password=True)
    assert " ".join(question) == "-I lanplus -H fe80::1 -p 623 -U bob -L OPERATOR -N 1 -R 2 -E dcmi power reading"
    question = freeipmi_arguments(options, has_password=True)
    assert " ".join(question[:8]) == "-D LAN_2_0 -h [fe80::1]:623 -l OPERATOR -u bob"
    assert question[8:] == ["--session-timeout=2500", "--retransmission-timeout=833", "--get-system-power-statistics"]
