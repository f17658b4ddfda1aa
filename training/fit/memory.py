"""Keep freed memory: the C library gives large blocks back to the system, and fetches them anew for every tensor."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""glibc's numbers in malloc.h."""


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, for the next step to use; whether the C library could be told so.

    Fetching pages anew took an eighth of a step of the shipped convolutional net on a CPU. Only glibc knows how.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 2**30) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
