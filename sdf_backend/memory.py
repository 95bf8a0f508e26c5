"""How much memory this process holds."""

import os
import sys
from pathlib import Path


def resident_bytes() -> int:
    """Bytes of physical memory that this process holds; its most so far where only that is known, else 0."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return _most_so_far()


def _most_so_far() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
