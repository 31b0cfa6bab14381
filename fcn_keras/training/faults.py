"""Full disks, missing permissions, lack of memory during a run -> a `UserError` with a remedy."""

from __future__ import annotations

import contextlib

import tensorflow as tf

from fcn_keras.errors import UserError, reason_of
from fcn_keras.runs.folder import RunFolder

_OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)


@contextlib.contextmanager
def faults_as_user_errors(run: RunFolder | None):
    """Turns a full disk, a folder that cannot be written and a lack of memory into `UserError`.

    A `KeyboardInterrupt` gets the remedy as its message.

    Args:
        run: The run's folder; `None` for a worker that writes nothing.

    Raises:
        UserError: In place of `OSError`, `MemoryError` and TensorFlow's errors for these.
    """
    resume = f"continue with --resume {run.path}" if run else "start all workers again"
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.args = (resume,)
        raise
    except UserError:
        raise
    except Exception as raised:
        error = _lack_behind(raised)
        reason = reason_of(error)
        if isinstance(error, OSError) or "space left" in reason:
            where = getattr(error, "filename", None) or (run.path if run else "A file")
            remedy = f"Free space or allow writing, then {resume}."
        elif isinstance(error, _OUT_OF_MEMORY):
            where = "Out of memory"
            remedy = (
                f"Free some, then {resume}; if one step needs too much, start a new run with a "
                "smaller --batch-size or --crop."
            )
        else:
            raise
        raise UserError(f"{where}: {reason}. {remedy}") from error


def _lack_behind(error: BaseException) -> BaseException:
    """The lack of memory behind an error: closing a file after one often fails, too."""
    chain: BaseException | None = error
    while chain and not isinstance(chain, _OUT_OF_MEMORY):
        chain = chain.__cause__ or chain.__context__
    return chain or error
