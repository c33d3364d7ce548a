"""A greensv plugin: the dataset `espeak`, a corpus of many random voices spoken by espeak-ng."""

from collections.abc import Iterable

from greensv.hookspecs import hookimpl
from greensv.speaker.dataset import Dataset
from greensv_espeak.dataset import EspeakDataset


@hookimpl
def greensv_datasets() -> Iterable[Dataset]:
    """Returns the dataset `espeak`."""
    return (EspeakDataset(),)
