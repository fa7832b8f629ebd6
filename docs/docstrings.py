"""Read edgeseg's docstrings for the site.

They say ``name : what it is``, while numpydoc's form is ``name : type`` with the description in the
next line. Types are in the signatures, so the words behind the colon become the description.
mkdocstrings loads this extension (``extensions`` in ``mkdocs.yml``).
"""

import re
from typing import Any

import griffe

_HEADING = re.compile(r"^(Parameters|Attributes|Raises|Returns|Yields)\n-{3,}\n", re.M)
_END = re.compile(r"\n\n(?=[^\n]+\n-{3,}(\n|$))|\Z")
_ENTRY = re.compile(r"^(\S[^\n]*?) : (.*)$", re.M)


class Descriptions(griffe.Extension):
    """Turn the docstring of every function and class into numpydoc's form."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is None:
            return
        returns = str(getattr(obj, "returns", None) or "value")
        obj.docstring.value = numpydoc(obj.docstring.value, returns)


def _named(raises: str) -> str:
    """Return the errors of a docstring, where a sentence that names no error has a name, too."""
    lines: list[str] = []
    in_sentence = False
    for line in raises.splitlines():
        if line.startswith(" ") or _ENTRY.match(line):
            in_sentence = False
            lines.append(line)
        elif in_sentence:
            lines.append(f"    {line}")
        else:
            in_sentence = True
            lines.append(f"Exception : {line}")
    return "\n".join(lines)


def numpydoc(text: str, returns: str = "value") -> str:
    """Return a docstring in numpydoc's form.

    Parameters
    ----------
    text : the docstring, without indentation.
    returns : the type of the returned value.
    """
    parts: list[str] = []
    end = 0
    for heading in _HEADING.finditer(text):
        close = _END.search(text, heading.end())
        assert close is not None
        body = text[heading.end() : close.start()]
        if heading[1] in ("Returns", "Yields"):
            lines = [f"    {line.strip()}" if line.strip() else "" for line in body.splitlines()]
            body = "\n".join([returns, *lines])
        else:
            body = _ENTRY.sub(r"\1\n    \2", body if heading[1] != "Raises" else _named(body))
        parts += [text[end : heading.end()], body]
        end = close.start()
    return "".join([*parts, text[end:]])
