"""Memory that is given back: large blocks get pages of their own. Called once, by `run_process`.

Every TLS connection has a buffer of 256 KiB (asyncio's `SSLProtocol`), and connections come and go for as long as an
operator runs. glibc maps blocks that large by themselves at first, but raises the limit to the size of the first one
that is freed (mallopt(3), `M_MMAP_THRESHOLD`). From then on the buffers come from the heap: all of their pages are in
use, because reused memory has to be cleared, and whatever small is allocated behind them keeps the holes they leave
resident. Fixing the limit where it started ends both; docs/benchmarks.md (churn) has the figures.
"""

import ctypes
import os

LARGE_BYTES = 128 * 1024
"""Blocks from this size on are mapped, and unmapped when freed: glibc's limit before it adapts."""

_M_MMAP_THRESHOLD = -3  # malloc.h
_SAID_OTHERWISE = ("MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def give_large_blocks_back() -> bool:
    """Fix the limit for the process; whether that was done.

    Not where the environment tunes the allocator already, nor on a C library that has no such limit.
    """
    if any(name in os.environ for name in _SAID_OTHERWISE):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES) == 1)
