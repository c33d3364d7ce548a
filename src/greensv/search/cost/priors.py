"""What a second of training speech costs by its work, found elsewhere: where a machine's own figures start from."""

from typing import TYPE_CHECKING

from greensv.search.cost.work import Prior

if TYPE_CHECKING:
    import torch

_TABLE_1_SPEECH_S = 42 * 1_092_009 * 3.5
"""Of one training of the paper's Table 1: 42 epochs, VoxCeleb2's utterances, crops of 3.5 s."""
_JOULES = 3.6e6 / _TABLE_1_SPEECH_S
_CROP_S = 3.5

CUDA = Prior(
    # kWh per GMAC, million activations and layer of a crop, by least squares on the relative error of the paper's 15
    # systems as counted by `describe_network`. The 15 rows cannot tell activations from layers: the weight of
    # activations is that of a fit with blocks instead of layers. `benchmarks/cost_model.py` repeats the fit.
    per_gmac=0.487 * _CROP_S * _JOULES,
    per_mega_activation=0.0047 * _CROP_S * _JOULES,
    per_layer=0.508 * _JOULES,
    per_second=1.0 * _JOULES,
    level_log_std=1.1,
)
"""Tesla V100 with its share of a node, measured by the node's meters. Other GPUs: a factor of 3 either way, or 9."""

CPU = Prior(
    per_gmac=0.12,
    per_mega_activation=0.02,
    per_layer=1e-4,
    per_second=3e-3,
    level_log_std=1.5,
)
"""One core of a server processor at the 3.5 W of the meter `estimate`, fp32: 32 narrow networks of four backbones."""


def of_device(device: "torch.device") -> Prior:
    """Returns the prior for a kind of device."""
    return CUDA if device.type == "cuda" else CPU
