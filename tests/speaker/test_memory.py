import resource
import sys

import pytest
import torch

from greensv.speaker.memory import keep_freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts Linux's page faults")
def test_freed_tensors_are_used_again_without_new_pages() -> None:
    if not keep_freed_memory():
        pytest.skip("the allocator is not glibc's")

    def num_faults(num_bytes: int) -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensor = torch.ones(num_bytes, dtype=torch.uint8)
        del tensor
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    num_faults(256 << 20)
    pages = (64 << 20) // resource.getpagesize()
    # What is a quarter as large finds its place in what was freed, whatever else was put there in between.
    assert num_faults(64 << 20) < pages / 2
