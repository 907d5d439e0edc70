"""The console command `timm-attn` from its first instruction on: Ctrl-C is one line and exit status 130.

It lies outside of the package: importing that imports torch and timm, which takes seconds. This module imports almost
nothing.
"""

import os
import signal


def main() -> int:
    """Runs timm_attn.cli.main; its exit status.

    Ctrl-C raises KeyboardInterrupt only while a command runs, which may have to clean up. During the imports the
    exception could be caught or replaced, and at the exit of Python nothing would catch it: there Ctrl-C ends the
    process at once.
    """
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler:  # such as ignored, under nohup
        from timm_attn.cli import main as run

        return run()
    signal.signal(signal.SIGINT, _leave)
    from timm_attn.cli import main as run

    try:
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return run()
        finally:
            signal.signal(signal.SIGINT, _leave)
    except KeyboardInterrupt:  # between two lines of this function
        return _interrupted()


def _leave(*_: object) -> None:
    os._exit(_interrupted())


def _interrupted() -> int:
    os.write(2, b'timm-attn: interrupted.\n')
    return 130
