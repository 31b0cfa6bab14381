"""Runs that are trained once and kept, and the tables of their figures."""

import json
import statistics
import time

from fcn_keras.errors import UserError
from fcn_keras.runs.config import TrainConfig


def finished_run(arguments, name: str, **settings):
    """Trains a run in --out, resumes it, or keeps it if it is finished."""
    from fcn_keras.runs.folder import RunFolder
    from fcn_keras.training.train import resume, train

    given = {
        key: getattr(arguments, key)
        for key in ("dataset", "epochs", "limit", "crop", "batch_size")
        if getattr(arguments, key) is not None
    }
    run = RunFolder(arguments.out / name)
    config = TrainConfig.from_recipe(
        arguments.recipe, **{**given, **settings, "run_dir": str(run.path)}
    )
    started, begun = time.time(), run.config.is_file()
    if begun:
        require_same_settings(run, config)
    if run.metrics.is_file():
        print(f"{run.path}: already finished, kept.", flush=True)
        return run
    resume(run.path) if begun else train(config)
    if not begun:
        (run.path / "seconds.json").write_text(json.dumps(time.time() - started))
    return run


def require_same_settings(run, config: TrainConfig) -> None:
    from fcn_keras.training.automatic import AUTOMATIC

    before, now = vars(run.read_config()), vars(config)
    for key in now:
        decided = key in AUTOMATIC and now[key] == AUTOMATIC[key]  # by the run
        if key not in ("run_dir", "init_from", "given") and not decided and before[key] != now[key]:
            raise UserError(
                f"{run.path}: was trained with {key} {before[key]}, not {now[key]}. "
                "Choose another --out."
            )


def seconds_of(run) -> float:
    """A run's seconds, NaN if it was interrupted."""
    path = run.path / "seconds.json"
    return json.loads(path.read_text()) if path.is_file() else float("nan")


def mean_and_spread(values) -> str:
    """The mean ± half the range."""
    half = (max(values) - min(values)) / 2
    spread = f" ± {half:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def row(*cells) -> str:
    texts = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
    return "| " + " | ".join(texts) + " |"


def table(lines: list[str]) -> str:
    return "\n".join([lines[0], "|---" * (lines[0].count("|") - 1) + "|", *lines[1:]])
