"""`python -m fcn_keras` and `fcn-keras`: the command line, including Ctrl-C during its imports."""

from __future__ import annotations

import signal
import sys


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    try:
        from fcn_keras import cli

        return cli.main(argv)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
