"""Say in one line what is wrong with a call of the command line.

The expressions read messages of click. If a new version of click words one differently, its error
loses the suggestion: ``tests/cli/test_usage.py`` compares them with real messages.
"""

import re

from edgeseg.cli.app import command_names
from edgeseg.errors import did_you_mean

# The text is "no such command 'segmen'." Newer versions suggest a command themselves: "no such
# command 'segmen'. Did you mean 'segment'?" does not match, and stays as it is.
_UNKNOWN_COMMAND = re.compile(r"no such command '([^']*)'\.$")

# The text is "invalid value for '--colour': 'rbg' is not one of 'rgb', 'bgr'."
_NOT_A_CHOICE = re.compile(r"'([^']*)' is not one of (.*)\.$")

# One of the choices in it, such as "'rgb', 'bgr'".
_CHOICE = re.compile(r"'([^']*)'")


def usage_error(problem: str, command: str) -> str:
    """Return one line: what is wrong with a call, a suggestion, and where the help is.

    Parameters
    ----------
    problem : click's message.
    command : the command whose help tells more, such as ``edgeseg segment``.

    Examples
    --------
    >>> usage_error("No such command 'segmen'.", "edgeseg")
    "no such command 'segmen'. Did you mean 'segment'? See: edgeseg --help"
    """
    text = " ".join(problem.split()).replace("Value error, ", "")
    text = text[0].lower() + text[1:]
    if text[-1] not in ".?":
        text += "."

    unknown = _UNKNOWN_COMMAND.match(text)
    choice = _NOT_A_CHOICE.search(text)
    if unknown:
        text += did_you_mean(unknown[1], command_names())
    elif choice:
        text += did_you_mean(choice[1], _CHOICE.findall(choice[2]))
    return f"{text} See: {command} --help"
