import torch

from greensv.speaker.masking import hide, padding_mask


def test_frames_behind_the_end_of_an_item_are_padding() -> None:
    mask = padding_mask(torch.tensor([3, 1, 0]), 3)
    assert mask.tolist() == [[False, False, False], [False, True, True], [True, True, True]]


def test_what_is_hidden_is_zero_even_where_it_was_no_number() -> None:
    values = torch.tensor([[[1.0, 2.0], [3.0, torch.nan]]])
    padding = padding_mask(torch.tensor([1]), 2)[:, None, :]
    assert hide(values, padding).tolist() == [[[1.0, 0.0], [3.0, 0.0]]]
    assert hide(values, None) is values
