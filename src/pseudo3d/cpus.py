"""How many processor cores there are to work with."""

import os


def available_cpus() -> int:
    """The cores that this process may use: all of the machine, or those that taskset, Slurm or a container leave it.

    Example:
        >>> available_cpus() >= 1
        True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
