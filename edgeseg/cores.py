"""Say how many processor cores this process may use."""

import os


def usable_cores() -> int:
    """Return the number of cores that this process may use; all of them where nobody can tell.

    Linux can keep a process to some of the cores, as ``taskset`` and containers do.

    Examples
    --------
    >>> usable_cores() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
