import numpy as np

from greensv.speaker.training.streams import Stream, sequence, torch_seed


def test_streams_and_their_keys_are_independent() -> None:
    keys = [(stream, *key) for stream in Stream for key in ((), (0,), (1,), (0, 1))]
    seeds = {torch_seed(seed, *key) for seed in (0, 1) for key in keys}
    assert len(seeds) == 2 * len(keys)


def test_torchs_seed_is_the_first_64_bits_of_the_sequence() -> None:
    expected = np.random.SeedSequence(3, spawn_key=(2, 7)).generate_state(1, np.uint64)[0]
    assert torch_seed(3, Stream.NETWORK, 7) == expected
    assert sequence(3, Stream.NETWORK, 7).generate_state(1, np.uint64)[0] == expected


def test_numbers_of_the_streams_never_change() -> None:
    # Another number would give another training for the same seed.
    assert {stream.name: int(stream) for stream in Stream} == {
        "CROPS": 0, "HEAD": 1, "NETWORK": 2, "MASKS": 3, "SPEEDS": 4, "DISTURBANCES": 5, "REPLACEMENTS": 6, "DITHER": 7,
    }  # fmt: skip
