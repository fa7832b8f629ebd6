"""Which of the processes that train together this is, whoever started them."""

import os

import torch.distributed as dist


def rank_and_world_size() -> tuple[int, int]:
    """(rank, how many) once they have met; (0, 1) for one alone."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_first() -> bool:
    """Whether this one speaks and writes for all; known before they have met, from what a launcher sets."""
    return os.environ.get("RANK", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0"
