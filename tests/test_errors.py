"""The errors users see, and the suggestion in them."""

import inspect

import pytest

from greensv import errors
from greensv.errors import GreensvError, did_you_mean


def test_every_error_is_a_greensv_error_so_that_the_command_line_prints_it_without_a_traceback():
    classes = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]
    assert len(classes) >= 8
    assert all(issubclass(c, GreensvError) for c in classes)


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("ecapa", ["resnet", "ecapa-tdnn"], "; did you mean 'ecapa-tdnn'?"),
        ("kaldii", ["espeak", "kaldi"], "; did you mean 'kaldi'?"),
        ("x", ["resnet"], ""),
        ("resnet", [], ""),
    ],
)
def test_the_closest_known_name_is_suggested_when_one_is_close(name: str, known: list[str], text: str):
    assert did_you_mean(name, known) == text


def test_any_iterable_of_names_will_do():
    assert did_you_mean("rapll", iter({"rapl": 1})) == "; did you mean 'rapl'?"
