"""Become the command that follows, as a process that the kernel kills when its parent dies.

Run as a script: `python -I -S child.py PARENT_PID COMMAND ARGUMENT…`. Where there is no prctl (only
Linux has it) the command runs all the same, and is stopped by the parent alone.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it died before prctl was called
            return
    os.execvp(command[0], command)


main()
