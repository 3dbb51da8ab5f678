"""The command `emu-asm`, and `python -m asm`: what comes before its first import.

Until that is done nothing waits to be put in order, so Ctrl-C ends the process as it does one that is not Python's:
without a traceback.
"""

import signal
import sys

__all__ = ["main"]


def main() -> int:
    """Runs the command; returns its exit status."""
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored, as by nohup
    if handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from asm.command.cli import main as command

    try:
        if handled:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
