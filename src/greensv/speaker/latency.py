"""How long one utterance takes alone: what a device that waits for an answer sees."""

import time

import numpy as np
import torch
from torch import nn

from greensv.config import FeatureConfig
from greensv.speaker.device import Precision, autocast, place_network
from greensv.speaker.features import Fbank, subtract_mean

SPEECH_S = 3.0
"""Seconds of speech that latency is stated for."""
NUM_WARMUP = 3
MIN_RUNS = 10
MEASURED_S = 0.5
"""It is measured so often, and for so long, at least."""


def latency_s(
    network: nn.Module, *, features: FeatureConfig, device: torch.device, precision: Precision = "fp32"
) -> float:
    """Returns the median seconds from a waveform of 3 s in memory to its embedding on the host, features included.

    The network computes in evaluation mode and is left in the mode it was in.
    """
    waveform = 0.1 * torch.randn(1, round(SPEECH_S * features.sample_rate_hz), generator=torch.Generator())
    num_samples = torch.tensor([waveform.shape[1]])
    fbank = Fbank(features).to(device)
    was_training = network.training
    place_network(network, device).eval()
    durations_s: list[float] = []
    try:
        with torch.inference_mode():
            while len(durations_s) < NUM_WARMUP + MIN_RUNS or sum(durations_s[NUM_WARMUP:]) < MEASURED_S:
                began_s = time.perf_counter()
                frames, _ = fbank(waveform.to(device), num_samples.to(device))
                with autocast(device, precision):
                    network(subtract_mean(frames, None), None).float().cpu()  # the copy waits for a GPU
                durations_s.append(time.perf_counter() - began_s)
    finally:
        network.train(was_training)
    return float(np.median(durations_s[NUM_WARMUP:]))
