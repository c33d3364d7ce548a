import torch

from greensv.speaker.masking import padding_mask


def test_frames_behind_the_end_of_an_item_are_padding() -> None:
    mask = padding_mask(torch.tensor([3, 1, 0]), 3)
    assert mask.tolist() == [[False, False, False], [False, True, True], [True, True, True]]
