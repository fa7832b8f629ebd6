"""Parse the values of options: sizes, numbers, durations, bytes, and one value per channel."""

import math
from collections.abc import Mapping, Sequence

from edgeseg.errors import InputError

MAX_SIDE = 16384  # pixels

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}

# Options with one value per channel. They take `0.485,0.456,0.406` as well as three words.
_PER_CHANNEL = ("--mean", "--std")


def joined_channels(words: Sequence[str]) -> list[str]:
    """Join the values of per-channel options: ``0.5 0.4 0.3`` becomes ``0.5,0.4,0.3``.

    Parameters
    ----------
    words : the command line, without the program's name.

    Examples
    --------
    >>> joined_channels(["segment", "n.onnx", "--mean", "0.5", "0.4", "0.3", "0"])
    ['segment', 'n.onnx', '--mean', '0.5,0.4,0.3', '0']
    """
    joined: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        joined.append(word)
        if word not in _PER_CHANNEL:
            continue

        values: list[str] = []
        while left and len(values) < 3 and _is_number(left[0]):
            values.append(left.pop(0))
        if values:
            joined.append(",".join(values))
    return joined


def _is_number(text: str) -> bool:
    """Return True if ``float`` can read the text."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse_channels(text: str, option: str) -> tuple[float, float, float]:
    """Parse one value per channel.

    Parameters
    ----------
    text : three numbers with commas or spaces between them.
    option : the option's name, for the error.

    Raises
    ------
    InputError : the text is not three finite numbers.

    Examples
    --------
    >>> parse_channels("0.5,0.4,0.3", "--mean")
    (0.5, 0.4, 0.3)
    """
    words = text.replace(",", " ").split()
    expected = "3 numbers, one per channel, such as 0.485,0.456,0.406"
    if len(words) != 3:
        raise InputError(
            f"{option}: wrong number of values", got=f"{len(words)} ({text!r})", expected=expected
        )

    values = [float(word) if _is_number(word) else math.nan for word in words]
    if not all(math.isfinite(value) for value in values):
        raise InputError(f"{option}: not 3 finite numbers", got=repr(text), expected=expected)
    return values[0], values[1], values[2]


def parse_size(text: str, option: str = "--size") -> tuple[int, int]:
    """Parse a size.

    Parameters
    ----------
    text : ``HEIGHTxWIDTH``.
    option : the option's name, for the error.

    Returns
    -------
    Height and width.

    Raises
    ------
    InputError : the text is not a size, or a side is longer than ``MAX_SIDE``.

    Examples
    --------
    >>> parse_size("360x480")
    (360, 480)
    """
    height, cross, width = text.lower().partition("x")
    sides = [whole_number(side) for side in (height, width)]
    if not cross or not all(1 <= side <= MAX_SIDE for side in sides):
        raise InputError(
            f"{option}: not a size",
            got=repr(text),
            expected=f"HEIGHTxWIDTH, such as 360x480, each side at most {MAX_SIDE}",
        )
    return sides[0], sides[1]


def whole_number(text: str) -> int:
    """Return the positive whole number that the text is; 0 if it is none.

    Parameters
    ----------
    text : the digits 0 to 9; signs, spaces and other characters are no number.

    Examples
    --------
    >>> whole_number("480"), whole_number("²"), whole_number("-3")
    (480, 0, 0)
    """
    return int(text) if text.isascii() and text.isdecimal() else 0


def parse_duration(text: str, option: str) -> float:
    """Parse a duration.

    Parameters
    ----------
    text : a number and a unit: ``s``, ``m``, ``h`` or ``d``.
    option : the option's name, for the error.

    Returns
    -------
    Seconds.

    Raises
    ------
    InputError : the text is not a positive duration.

    Examples
    --------
    >>> parse_duration("10m", "--split-every")
    600.0
    """
    seconds = _number_with_unit(text, _SECONDS)
    if seconds is None:
        raise InputError(
            f"{option}: not a duration", got=repr(text), expected="such as 90s, 10m, 2h or 1d"
        )
    return seconds


def parse_bytes(text: str, option: str) -> float:
    """Parse an amount of bytes.

    Parameters
    ----------
    text : a number and a unit: ``kB``, ``MB``, ``GB`` or ``TB``, in any case.
    option : the option's name, for the error.

    Returns
    -------
    Bytes.

    Raises
    ------
    InputError : the text is not a positive amount.

    Examples
    --------
    >>> parse_bytes("20GB", "--keep")
    20000000000.0
    """
    amount = _number_with_unit(text, _BYTES)
    if amount is None:
        raise InputError(
            f"{option}: not an amount of bytes", got=repr(text), expected="such as 500MB or 20GB"
        )
    return amount


def _number_with_unit(text: str, units: Mapping[str, int]) -> float | None:
    """Return the value of a positive number with a unit; None if the text is something else."""
    lower = text.strip().lower()
    number = lower.rstrip("".join(units))
    factor = units.get(lower[len(number) :])
    if factor is None or not _is_number(number):
        return None
    value = float(number) * factor
    return value if 0 < value < math.inf else None
