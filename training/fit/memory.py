"""Reuse of freed memory. By default glibc returns large blocks to the system after each use."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers in malloc.h."""


def keep_freed_memory() -> bool:
    """Make the process keep freed memory for the next step, and return whether that worked: it needs glibc.

    Without it, the shipped convolutional net spent an eighth of each step on a CPU requesting pages again.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
