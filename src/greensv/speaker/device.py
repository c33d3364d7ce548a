"""The device that computes: choosing it, naming it to a meter, and waiting for it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import nn

from greensv.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]
"""What a network computes in; its weights are in fp32 always."""

MIN_CHANNELS_LAST = 16
"""Channels from which on convolutions are laid out channels last: as many as a vector register has lanes.

With fewer they are slower, and torch 2.11 corrupts memory on a CPU: backwards, a convolution of kernel 1 and stride 2
with 8 to 15 channels in fp32 writes beyond its arrays.
"""


def resolve_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Returns the device of that name; `auto` is the current CUDA device where there is one, and the CPU elsewhere.

    Raises:
        ConfigError: `cuda` is asked for, and torch finds no GPU.
    """
    if name == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if name == "auto":
        return torch.device("cpu")
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    raise ConfigError(
        f"device 'cuda' was asked for, but torch {torch.__version__} ({build}) finds no GPU; "
        "use --device cpu or auto, or check the driver with nvidia-smi"
    )


def resolve_precision(precision: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """Returns the precision to compute in: `auto` is bf16 autocast where the hardware computes in it, fp32 elsewhere.

    On a CPU with bf16 instructions (AVX-512 BF16 or AMX) a training step of a narrow ResNet takes a third to two thirds
    of its time in fp32; without them bf16 is emulated, and slower. fp16, which only some CPUs compute in, is never
    chosen by itself: it needs the loss scaled.

    Raises:
        ConfigError: bf16 is asked for on a GPU without it.
    """
    if precision == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    if precision == "bf16" and device.type != "cpu" and not _has_bf16(device):
        raise ConfigError(
            f"precision 'bf16' was asked for, but {device_name(device)} has no bf16; use 'auto', 'fp16' or 'fp32'"
        )
    return precision


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    instructions = torch.cpu.get_capabilities()
    return bool(instructions.get("avx512_bf16") or instructions.get("amx_bf16"))


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Returns the context in which a network computes at that precision."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def place_network(network: nn.Module, device: torch.device) -> nn.Module:
    """Moves the network to the device, its convolutions in the order of memory they run fastest in; returns it.

    Channels last saves 20 to 30 % of a training step on CPUs and is what tensor cores compute in, but costs up to 60 %
    where a convolution has fewer channels than a vector register has lanes (measured on resnet, AVX-512).
    """
    widths = [weight.shape[0] for weight in network.parameters() if weight.dim() == 4]
    if widths and min(widths) >= MIN_CHANNELS_LAST:
        return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    return network.to(device)


def gpu_uuids(device: torch.device) -> tuple[str, ...]:
    """Returns the UUIDs (`GPU-…`) of the GPUs that `device` stands for: one for a CUDA device, none for the CPU."""
    if device.type != "cuda":
        return ()
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return (uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}",)


def synchronise(device: torch.device) -> None:
    """Waits until the device has done all it was given; the CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def wake(device: torch.device) -> None:
    """Makes this process's context on a GPU, without which it rests at another power; does nothing elsewhere."""
    if device.type == "cuda":
        torch.zeros(1, device=device)
        synchronise(device)


def processor_name(device: torch.device) -> str:
    """Returns the product name of the GPU, or of the processor where the system tells it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU {torch.cpu.get_capabilities().get('cpu_name') or 'of unknown make'}"


def device_name(device: torch.device) -> str:
    """Returns the GPU's product name, or `CPU, <n> threads`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def forked_generators(device: torch.device) -> AbstractContextManager[None]:
    """Lets torch's generators be seeded inside, and puts them back."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


@contextmanager
def torch_settings(device: torch.device) -> Iterator[None]:
    """Leaves torch's generators as they were, and lets cuDNN choose its algorithms by trying: all crops are alike."""
    benchmark = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with forked_generators(device):
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
