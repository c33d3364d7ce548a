"""Memory of a training on a CPU: kept by the process from step to step, not handed back to the system."""

import ctypes
import logging
from functools import cache

logger = logging.getLogger(__name__)

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_LARGEST = 2**31 - 1
_TOP_PAD_BYTES = 64 << 20


@cache
def keep_freed_memory() -> bool:
    """Lets this process keep what torch frees, once and for all; returns whether the system's allocator does.

    glibc maps every large tensor anew and unmaps it when it is freed, so each step of a training touches its
    activations' pages for the first time again, and the kernel zeroes them: a third of a step of a narrow ResNet
    (two cores of a virtual machine). Afterwards the process holds its peak of memory until it ends, and that peak is
    higher: by 16 % in fp32, by 75 % in bf16, where pieces do not fit into the gaps of freed ones. Other allocators than
    glibc's are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        logger.info("the allocator is not glibc's; it is left as it is")
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, _TOP_PAD_BYTES))
    return all(bool(mallopt(name, value)) for name, value in settings)
