"""Runs a command that ends when its parent does: ``python -I tether.py PARENT_PID COMMAND...``.

A file of its own, and nothing of Headwater imported: it becomes the command by exec, so it must start fast.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel to be killed with the parent (prctl(2), kept over exec), then become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)  # it went before we asked
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
