import types

import pytest
import torch
from torch import nn

from greensv.errors import ConfigError
from greensv.speaker.device import (
    autocast,
    device_name,
    forked_generators,
    gpu_uuids,
    place_network,
    resolve_device,
    resolve_precision,
    synchronise,
    wake,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error() -> None:
    assert resolve_device("auto") == resolve_device("cpu") == CPU
    with pytest.raises(ConfigError, match=r"'cuda' was asked for, but torch .* finds no GPU; use --device cpu or auto"):
        resolve_device("cuda")


def test_with_a_gpu_auto_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 2)
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("uuid", ["5c1b5a8e-0000-1111-2222-333344445555", "GPU-5c1b5a8e-0000-1111-2222-333344445555"])
def test_uuid_of_a_gpu_has_its_prefix_and_the_cpu_has_none(uuid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: types.SimpleNamespace(uuid=uuid))
    assert gpu_uuids(GPU) == ("GPU-5c1b5a8e-0000-1111-2222-333344445555",)
    assert gpu_uuids(CPU) == ()


def test_precision_auto_is_bf16_where_the_gpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    for has_bf16, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bf16: has)
        assert resolve_precision("auto", GPU) == expected
    with pytest.raises(ConfigError, match="Tesla T4 has no bf16"):
        resolve_precision("bf16", GPU)
    assert resolve_precision("fp32", GPU) == "fp32"


@pytest.mark.parametrize(
    ("instructions", "expected"), [({}, "fp32"), ({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16")]
)
def test_precision_auto_is_bf16_on_a_cpu_with_its_instructions(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("fp32", CPU) == "fp32"
    assert resolve_precision("bf16", CPU) == "bf16"


def test_autocast_computes_in_bf16_only_where_asked() -> None:
    a = torch.ones(2, 2)
    with autocast(CPU, "bf16"):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(CPU, "fp32"):
        assert (a @ a).dtype == torch.float32
    with autocast(CPU, "fp16"):
        assert (a @ a).dtype == torch.float16


@pytest.mark.parametrize("device", [CPU, GPU])
def test_fp16_is_what_it_is_asked_to_be_everywhere(device: torch.device) -> None:
    assert resolve_precision("fp16", device) == "fp16"


def test_generators_seeded_in_a_fork_are_put_back() -> None:
    before = torch.get_rng_state()
    with forked_generators(CPU):
        torch.manual_seed(5)
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("channels", "is_channels_last"), [(16, True), (12, False)])
def test_only_wide_convolutions_are_laid_out_channels_last(channels: int, is_channels_last: bool) -> None:
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, channels, 3), nn.Conv1d(5, 2, 3))
    weights = [weight.clone() for weight in network.parameters()]
    placed = place_network(network, CPU)
    assert placed is network
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last) is is_channels_last
    assert all(torch.equal(before, after) for before, after in zip(weights, network.parameters(), strict=True))


def test_the_cpu_has_a_name_and_nothing_to_wait_for() -> None:
    synchronise(CPU)
    assert device_name(CPU) == f"CPU, {torch.get_num_threads()} threads"


def test_a_gpu_is_woken_by_a_tensor_that_it_has_finished_with(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(torch, "zeros", lambda size, device: told.append(device))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: told.append("waited"))
    wake(CPU)
    assert told == []
    wake(GPU)
    assert told == [GPU, "waited"]
