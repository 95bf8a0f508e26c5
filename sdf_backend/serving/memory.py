"""How much memory this process holds, and giving back what it no longer uses."""

import ctypes
import os
import sys
from pathlib import Path


def resident_bytes() -> int:
    """Bytes of physical memory that this process holds; its most so far where only that is known, else 0."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return _most_so_far()


def give_back() -> None:
    """Hand what was freed back to the system, which glibc does by itself only for what lies last on its heap.

    Without it a process goes on holding what its largest job needed. It takes milliseconds; elsewhere it does nothing.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)


def _most_so_far() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
