"""Wait for the end of a pipe, and then run a command, unless told that it is not needed.

    python -m edgeseg.profiling.mode_guardian COMMAND...

The other end of the pipe is held by a process that changed the power mode. If it is killed, the
system closes the pipe, and the command puts the mode back.
"""

import signal
import subprocess
import sys

DONE = "done\n"


def main(command: list[str]) -> int:
    """Guard: return the exit code of the command; 0 if it was not needed.

    Parameters
    ----------
    command : the program that puts the mode back, and its arguments.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    print("ready", flush=True)
    if sys.stdin.read().endswith(DONE):
        return 0
    return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
