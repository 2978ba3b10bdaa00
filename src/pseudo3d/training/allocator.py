"""Memory that stays with the process, so that every step of training finds that of the step before."""

import ctypes
import platform

# Parameters of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_NEVER = -1


def keep_memory() -> bool:
    """Let glibc reuse large buffers, for the whole process and for good; call it before the first step.

    By default glibc takes every buffer over 32 MiB from the system and gives it back when it is freed, and the system
    clears each page again: on a processor that costs a step of training up to half its time. The price of keeping is
    that the process stays as large as it has ever been. Memory of GPUs is not concerned: PyTorch keeps it anyway.

    Returns:
        Whether it is so now; elsewhere than with glibc nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return mallopt(_M_MMAP_MAX, 0) == 1 and mallopt(_M_TRIM_THRESHOLD, _NEVER) == 1
