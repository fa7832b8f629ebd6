"""Show numbers of the report's facts; each knows the place in the JSON that it comes from.

A number of the page has ``data-path`` (a JSON Pointer, RFC 6901) and ``data-as`` (how it is shown).
A test reads page and JSON, and compares all of them.
"""

from html import escape
from typing import Any

MINUS = "\N{MINUS SIGN}"
DASH = "-"


def pointer(*keys: str | int) -> str:
    """Return the JSON Pointer of a place.

    Parameters
    ----------
    keys : keys and indices, from the top.

    Examples
    --------
    >>> pointer("engines", 0, "a/b")
    '/engines/0/a~1b'
    """
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def look_up(facts: Any, path: str) -> Any:
    """Return the value at a JSON Pointer.

    Parameters
    ----------
    facts : plain values.
    path : the pointer.

    Examples
    --------
    >>> look_up({"a": [1, 2]}, "/a/1")
    2
    """
    for part in path.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        facts = facts[int(key)] if isinstance(facts, list) else facts[key]
    return facts


def shown(value: float | None, how: str) -> str:
    """Return a number as the page shows it.

    Parameters
    ----------
    value : the number; ``None`` is a dash.
    how : ``percent`` of a share; ``points``, a change of a share, with its sign; ``fixed``, two
        decimals; ``short``, three digits; ``whole``; ``megabytes`` of bytes.

    Raises
    ------
    KeyError : there is no such form.

    Examples
    --------
    >>> shown(0.6763, "percent"), shown(0.0031, "points"), shown(None, "fixed")
    ('67.63', '+0.31', '-')
    """
    if value is None:
        return DASH
    if how == "points":
        text = f"{100 * value:+.2f}"
        return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", MINUS)
    forms = {
        "percent": lambda: f"{100 * value:.2f}",
        "fixed": lambda: f"{value:.2f}",
        "short": lambda: f"{value:.3g}",
        "whole": lambda: f"{value:,.0f}",
        "megabytes": lambda: f"{value / 1e6:.1f}",
    }
    return forms[how]()


def marked(facts: Any, path: str, how: str, tag: str = "span", attributes: str = "") -> str:
    """Return a number as an element that names its place.

    Parameters
    ----------
    facts : plain values.
    path : JSON Pointer of the number.
    how : as in ``shown``.
    tag : ``span``, or ``text`` in a plot.
    attributes : further attributes, escaped.
    """
    text = escape(shown(look_up(facts, path), how))
    more = f" {attributes}" if attributes else ""
    return f'<{tag} data-path="{escape(path)}" data-as="{how}"{more}>{text}</{tag}>'
