"""Tell which of the processes that train together this one is, whatever started them."""

import os

import torch.distributed as dist


def rank_and_world_size() -> tuple[int, int]:
    """Return (rank, number of processes); (0, 1) if training is not distributed.

    The numbers are right once the processes are connected.

    Examples
    --------
    >>> rank_and_world_size()
    (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Return True for the process that reports and writes files for all.

    It is read from the variables that a launcher such as ``torchrun`` sets, so it is known before
    the processes are connected.
    """
    return os.environ.get("RANK", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0"
