"""CUDA_VISIBLE_DEVICES as CUDA reads it: NVIDIA's own examples, and the real pynvml on the C stub."""

import pytest

from greensv.builtin.meters.nvml import NvmlMeter
from greensv.builtin.meters.visible_gpus import CannotTellError, ListedGpu, gpus_are_visible, hides_all, visible_gpus
from greensv.energy.meter import Availability, Domain, MeterRequest
from greensv.errors import MeterError
from simulated.nvml import UUIDS, FakeGpus

VISIBLE = MeterRequest(uses_visible_gpus=True)
FOUR = [ListedGpu(uuid=f"GPU-{letter * 8}-{letter * 4}", name="V100") for letter in "abcd"]
TWO_ALIKE = [ListedGpu(uuid="GPU-aa11", name="V100"), ListedGpu(uuid="GPU-aa22", name="V100")]
MIXED = [ListedGpu(uuid="GPU-aaaa", name="T400"), ListedGpu(uuid="GPU-bbbb", name="A100")]


def letters(value: str | None, listed=FOUR, **environment: str) -> str:
    given = environment if value is None else {"CUDA_VISIBLE_DEVICES": value, **environment}
    return "".join(uuid[4] for uuid in visible_gpus(listed, given).uuids)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "abcd"),
        ("", ""),
        ("-1", ""),
        ("NoDevFiles", ""),
        ("none", ""),
        ("2,1", "cb"),  # the two examples of NVIDIA's documentation
        ("0,2,-1,1", "ac"),
        ("1", "b"),
        (" 1 , 0", "ba"),
        ("+3", "d"),
        ("1gpu2,2ampere", "bc"),  # digits as far as they go: torch 2.11, _parse_visible_devices
        ("0,9,1", "a"),
        ("4", ""),
        ("0,,1", "a"),
        ("0,GPU-bbbbbbbb", "a"),
        ("1,1", ""),
        ("GPU-cccccccc-cccc", "c"),
        ("GPU-c", "c"),
        ("GPU-d,GPU-a", "da"),
        ("GPU-d,GPU-x,GPU-a", "d"),
        ("GPU-d,0", "d"),
        ("GPU-d,GPU-dd", ""),
        ("GPU-", ""),  # the beginning of all
    ],
)
def test_the_visible_gpus_are_those_that_cuda_would_show(value, expected):
    assert letters(value) == expected


def test_a_beginning_that_several_share_names_none():
    assert visible_gpus(TWO_ALIKE, {"CUDA_VISIBLE_DEVICES": "GPU-aa"}).uuids == ()
    assert visible_gpus(TWO_ALIKE, {"CUDA_VISIBLE_DEVICES": "GPU-aa2"}).uuids == ("GPU-aa22",)


@pytest.mark.parametrize(
    ("value", "note"),
    [
        ("0,9,1", "'9' names no GPU and hides those after it"),
        ("0,9", "'9' names no GPU"),
        ("GPU-a,MIG-b", "'MIG-b' names no GPU"),
        ("2,2", "names a GPU twice, which hides all"),
    ],
)
def test_what_is_hidden_by_mistake_is_told(value, note):
    found = visible_gpus(FOUR, {"CUDA_VISIBLE_DEVICES": value}).note
    assert found is not None
    assert found.startswith(f"CUDA_VISIBLE_DEVICES={value}")
    assert found.endswith(note)


@pytest.mark.parametrize("value", [None, "", "1,0", "GPU-b"])
def test_what_is_as_meant_needs_no_note(value):
    assert visible_gpus(FOUR, {} if value is None else {"CUDA_VISIBLE_DEVICES": value}).note is None


def test_a_mig_slice_is_refused():
    with pytest.raises(CannotTellError, match="names a MIG slice") as told:
        visible_gpus(FOUR, {"CUDA_VISIBLE_DEVICES": "MIG-GPU-aaaa/1/0"})
    assert "nvidia-smi -mig 0" in told.value.remedy


def test_a_number_among_several_models_is_refused_since_cuda_numbers_by_speed():
    with pytest.raises(CannotTellError, match=r"=1 cannot be told: of several models \(A100, T400\)") as told:
        letters("1", MIXED)
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in told.value.remedy


@pytest.mark.parametrize(
    ("value", "environment", "expected"),
    [
        ("1", {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "b"),
        ("GPU-b", {}, "b"),
        ("1,0", {}, "ba"),  # all of them, in whichever order
        (None, {}, "ab"),
        ("", {}, ""),
    ],
)
def test_among_several_models_what_is_certain_is_told(value, environment, expected):
    assert letters(value, MIXED, **environment) == expected


LOST = ListedGpu(uuid=None, name=None, problem="GPU is lost")
ORDERED = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


@pytest.mark.parametrize(
    "environment", [{}, {"CUDA_VISIBLE_DEVICES": "1"} | ORDERED, {"CUDA_VISIBLE_DEVICES": "GPU-b"}]
)
def test_a_visible_gpu_that_is_lost_is_told(environment):
    with pytest.raises(CannotTellError, match=r"GPU 1 does not answer \(GPU is lost\)"):
        visible_gpus([FOUR[0], LOST], environment)


@pytest.mark.parametrize("environment", [{"CUDA_VISIBLE_DEVICES": "0"} | ORDERED, {"CUDA_VISIBLE_DEVICES": "GPU-a"}])
def test_a_lost_gpu_that_is_not_visible_does_not_matter(environment):
    assert visible_gpus([FOUR[0], LOST], environment).uuids == (FOUR[0].uuid,)


@pytest.fixture
def gpus(gpus: FakeGpus, monkeypatch: pytest.MonkeyPatch) -> FakeGpus:
    """Two GPUs of one model that the real pynvml sees in this process, and no CUDA_VISIBLE_DEVICES."""
    for variable in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(variable, raising=False)
    for number in (0, 1):
        gpus.add(number, energy_mj=100 + number)
        gpus.set(number, name="Simulated GPU")
    return gpus


def probe() -> Availability:
    return NvmlMeter().probe(VISIBLE)


def uuids() -> tuple[str, ...]:
    return tuple(domain.index for domain in probe().domains)


def test_all_gpus_are_measured_where_nothing_is_said(gpus):
    assert uuids() == UUIDS
    session = NvmlMeter().open(VISIBLE)
    assert [(sample.domain.index, sample.count) for sample in session.read()] == [(UUIDS[0], 100), (UUIDS[1], 101)]
    session.close()


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", UUIDS[1:]), (UUIDS[1], UUIDS[1:]), ("GPU-1111", UUIDS[:1]), ("1,0", UUIDS[::-1])],
)
def test_the_gpus_are_those_of_the_variable_by_full_uuid(gpus, monkeypatch, value, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert uuids() == expected


@pytest.mark.parametrize("value", ["", "-1", "NoDevFiles"])
def test_without_a_visible_gpu_there_is_nothing_to_measure(gpus, monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    about = probe()
    assert not about.is_available
    assert about.unmeasured == ()
    assert "no GPU is visible" in str(about.reason)
    assert "(the driver lists 2)" in str(about.reason)


def test_a_driver_without_gpus_leaves_nothing_unmeasured(gpus):
    for number in (0, 1):
        gpus.set(number, uuid=None)
    about = probe()
    assert (about.reason, about.unmeasured) == ("the driver lists no GPU", ())


def test_an_entry_that_names_no_gpu_is_told_beside_what_is_measured(gpus, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,7")
    assert probe().notes[-1] == "CUDA_VISIBLE_DEVICES=0,7: '7' names no GPU"


@pytest.mark.parametrize(
    ("state", "value", "reason"),
    [
        ({"handle": "E15"}, None, "GPU 1 does not answer (GPU is lost)"),
        ({"energy_mj": "E15"}, None, f"{UUIDS[1]} is lost"),
        ({"mig": 1}, None, f"{UUIDS[1]} is split by MIG"),
        ({"energy_mj": None}, None, f"gpu:{UUIDS[1]} reports neither energy nor power"),
        ({}, "MIG-1", "names a MIG slice"),
        ({"name": "Another GPU"}, "1", "cannot be told: of several models (Another GPU, Simulated GPU)"),
    ],
)
def test_a_visible_gpu_that_cannot_be_measured_is_never_left_out_silently(gpus, monkeypatch, state, value, reason):
    gpus.set(1, **state)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    about = probe()
    assert not about.is_available
    assert about.unmeasured == (Domain("gpu"),)
    assert reason in str(about.reason)
    assert about.remedy
    with pytest.raises(MeterError, match="meter 'nvml' is not available"):
        NvmlMeter().open(VISIBLE)


def test_a_lost_gpu_that_is_hidden_does_not_matter(gpus, monkeypatch):
    gpus.set(1, handle="E15")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1111")
    assert uuids() == UUIDS[:1]


@pytest.mark.parametrize(
    ("value", "hides"),
    [(None, False), ("0", False), (" 1,0", False), ("GPU-1", False), ("", True), ("-1", True), ("none", True)],
)
def test_what_hides_all_gpus_does_so_whichever_there_are(value, hides):
    assert hides_all({} if value is None else {"CUDA_VISIBLE_DEVICES": value}) is hides


def test_a_container_without_gpus_sees_none_of_the_machines(tmp_path, monkeypatch):
    """It sees the machine's /proc/driver, but no device files."""
    (tmp_path / "0000:01:00.0").mkdir()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("greensv.builtin.meters.visible_gpus.DRIVER_FOLDER", tmp_path)
    monkeypatch.setattr("greensv.builtin.meters.visible_gpus.CONTROL_FILE", tmp_path / "nvidiactl")
    assert not gpus_are_visible()
    (tmp_path / "nvidiactl").touch()
    assert gpus_are_visible()
