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


def hide(values: Tensor, padding: Bool[Tensor, "..."] | None) -> Tensor:
    """Returns the values with 0 on the padding, whatever was there; the values themselves where there is none.

    What looks at several frames, such as a convolution over time, then sees behind an item's end what it sees behind
    that of an unpadded one.

    Args:
        values: of any shape.
        padding: True on the padding, of a shape that broadcasts to that of the values; None when nothing is padded.
    """
    return values if padding is None else values.masked_fill(padding, 0.0)
