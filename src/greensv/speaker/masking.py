"""Which frames of a padded batch are padding."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def padding_mask(lengths: Int[Tensor, " batch"], num_frames: int) -> Bool[Tensor, "batch frames"]:
    """Returns True where a frame lies behind the end of its item.

    Args:
        lengths: valid frames of each item.
        num_frames: frames of the padded batch.
    """
    return torch.arange(num_frames, device=lengths.device) >= lengths[:, None]
