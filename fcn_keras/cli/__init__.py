"""The command line: flags in, exit codes and short error messages out.

Each command has a module with `add`, which defines its flags, and the function that it
runs; flags are defined nowhere else. TensorFlow is imported after they are parsed, so that
`--help` and mistakes are answered at once.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys

import fcn_keras
from fcn_keras import signals
from fcn_keras.cli import (
    data,
    demo,
    evaluate,
    export,
    predict,
    report,
    request,
    serve,
    train,
    tune,
    weights,
)
from fcn_keras.errors import UserError, missing_package, printable
from fcn_keras.training import cluster

# How to continue after a stop, by the argument of a command that has the flag.
REMEDIES = {
    "resume": "continue the run with --resume FOLDER",
    "skip_existing": "continue with --skip-existing",
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 only on success."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal cannot encode must not end the command.
            stream.reconfigure(errors="backslashreplace")
    code = _run(argv)
    if cluster.joined:
        # At interpreter exit, TensorFlow's threads may wait forever for a lost worker.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(argv: list[str] | None) -> int:
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    remedy = "".join(text for flag, text in REMEDIES.items() if hasattr(arguments, flag))
    try:
        with signals.raised(remedy):
            return arguments.command(arguments)
    except UserError as error:
        print("error: " + "\n".join(map(printable, error.args)), file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fcn_keras"):
            raise
        missing = missing_package("this command", error.name or "?", error)
        print(f"error: {missing}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of the output is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, MemoryError) as error:
        where, reason = getattr(error, "filename", None), getattr(error, "strerror", None)
        what = ": ".join(
            str(part) for part in (where, reason or str(error) or "out of memory") if part
        )
        print(f"error: {printable(what)}. Fix this and run again.", file=sys.stderr)
        return 1
    except KeyboardInterrupt as interrupt:
        number = getattr(interrupt, "number", signal.SIGINT)
        signals.report(number, printable(str(interrupt)) or remedy)
        return 128 + number


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line; argparse would print all flags first."""

    def error(self, message):
        self.exit(2, f"error: {message}. See {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fcn-keras", description="Fully convolutional networks for semantic segmentation."
    )
    parser.add_argument("--version", action="version", version=fcn_keras.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rooms = (train, tune, evaluate, report, predict, export, serve, request, demo, data, weights)
    for room in rooms:
        room.add(commands)
    return parser
