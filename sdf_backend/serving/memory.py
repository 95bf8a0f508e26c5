"""The resident memory of this process, and returning freed memory to the system."""

import ctypes
import sys

import psutil


def resident_bytes() -> int:
    """Bytes of physical memory of this process."""
    return psutil.Process().memory_info().rss


def limit_memory(most: int) -> None:
    """Let this process allocate no more than `most` bytes: what asks for more gets a `MemoryError`.

    Where the system has no such limit nothing happens.
    """
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def release_free_memory() -> None:
    """Return freed memory to the system; glibc itself returns only the end of its heap.

    Without it a process keeps the memory that its largest job needed. It takes milliseconds on Linux, and does nothing
    elsewhere.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
