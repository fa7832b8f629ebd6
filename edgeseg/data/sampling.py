"""Choose a few of many frames: one rule, so that every command scores the same ones."""


def spread(total: int, wanted: int) -> list[int]:
    """Return evenly spread numbers below ``total``: the middles of ``wanted`` equal parts.

    Parameters
    ----------
    total : how many there are.
    wanted : how many to choose; all of them if there are no more.

    Examples
    --------
    >>> spread(100, 4)
    [12, 37, 62, 87]
    >>> spread(3, 5)
    [0, 1, 2]
    """
    if wanted >= total:
        return list(range(total))
    return [(2 * part + 1) * total // (2 * wanted) for part in range(wanted)]
