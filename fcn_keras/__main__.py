"""`python -m fcn_keras` and `fcn-keras`: the command line, even if Ctrl-C stops its imports."""

from __future__ import annotations

import atexit
import os
import signal
import sys

INFERENCE = ("predict", "evaluate", "serve", "demo")  # commands that never change weights


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    command = (sys.argv[1:] if argv is None else argv)[:1]
    if command and command[0] in INFERENCE:
        # oneDNN then packs convolution kernels once, not at each call. It would ignore training,
        # so it is set for the process of one command only, before TensorFlow reads it.
        os.environ.setdefault("TF_ONEDNN_ASSUME_FROZEN_WEIGHTS", "1")
    codes: list[int] = []
    atexit.register(_leave, codes)  # first, so it is called last
    try:
        from fcn_keras import cli

        codes.append(cli.main(argv))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        codes.append(128 + signal.SIGINT)
    return codes[0]


def _leave(codes: list[int]) -> None:
    """Ends the process before the interpreter's teardown.

    There, TensorFlow's threads that still read images would wait forever for Python, or abort.
    """
    if codes and "tensorflow" in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    sys.exit(main())
