"""What a run has from Python beyond its settings: an augmentation and callbacks, by their names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from fcn_keras.errors import UserError
from fcn_keras.runs.folder import RunFolder


def additions_of(augment: Callable | None, callbacks: Iterable) -> dict:
    """The names of an augmentation and of callbacks, as in `config.json`; empty for none.

    Functions and methods have their own name, other objects that of their type.
    """
    names = [_name(callback) for callback in callbacks]
    if augment is None and not names:
        return {}
    return {"augment": None if augment is None else _name(augment), "callbacks": names}


def shown_additions(additions: dict) -> str:
    """Additions as the arguments of `train`, such as `augment=mine.rain, callbacks=[mine.Log]`."""
    parts = [f"augment={additions['augment']}"] if additions.get("augment") else []
    if additions.get("callbacks"):
        parts.append(f"callbacks=[{', '.join(additions['callbacks'])}]")
    return ", ".join(parts)


def require_additions(run: RunFolder, given: dict) -> None:
    """Checks that a run is resumed with as many additions as it has; a note says if others.

    Raises:
        UserError: If an augmentation or callbacks are missing, or `config.json` is damaged.
    """
    own = run.read_additions()
    if given == own:
        return
    lost = own.get("augment") and not given.get("augment")
    if lost or len(own.get("callbacks", ())) > len(given.get("callbacks", ())):
        raise UserError(
            f"{run.path} was trained from Python with {shown_additions(own)}. Resume it with them: "
            f"fcn_keras.resume({str(run.path)!r}, ...)."
        )
    print(
        f"Note: {run.path} was trained with {shown_additions(own) or 'no additions'}, and is "
        f"resumed with {shown_additions(given)}.",
        file=sys.stderr,
    )


def _name(addition) -> str:
    named = addition if hasattr(addition, "__qualname__") else type(addition)
    return f"{named.__module__}.{named.__qualname__}"
