"""Standard streams that are closed, full or no longer read: a command line meets all three."""

import contextlib
import errno
import os
import signal
import sys
from pathlib import Path

from trtforge.interrupts import Stopped

_OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

EXIT_PIPE = 141
"""128 + SIGPIPE: what the shell reports of a program whose reader went away."""


def open_closed_streams() -> None:
    """Open what the caller closed (`>&-`) on the null device.

    Otherwise the next file that is opened would get that descriptor, and be written to by whoever
    prints.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free descriptor is this stream's own: those below it are open by now.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def is_output_error(error: OSError) -> bool:
    """Whether writing to a stream failed: such an error names no file."""
    return error.filename is None and error.errno in _OUTPUT_ERRORS


def drop_output() -> None:
    """Let nothing more be written: the interpreter flushes both streams when it ends."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(null, stream.fileno())
    os.close(null)


def say_stopped(error: KeyboardInterrupt) -> int:
    """Say in one line what ended the command; return its exit status."""
    number = error.number if isinstance(error, Stopped) else signal.SIGINT
    with contextlib.suppress(OSError):  # a terminal that closed takes no line
        behind_live_line = "\n" if sys.stderr.isatty() else ""
        name = "" if number is signal.SIGINT else f" ({number.name})"
        sys.stderr.write(f"{behind_live_line}interrupted{name}\n")
    return 128 + number
