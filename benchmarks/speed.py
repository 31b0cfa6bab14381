"""How fast the parts of fcn_keras are, compared with PyTorch and other runtimes; for Linux.

    pip install -e '.[dev]' && pip install torch==2.13.0
    python benchmarks/speed.py --json speed.json           # 17 minutes on two idle cores
    python benchmarks/speed.py --only step forward

ResNet-18 FCN-32s, 21 classes, 320×480. All contestants of a table are processes that take
turns, so that a slow minute of the machine hits each of them; figures are medians of the
rounds. The last table compares them with the targets. Photographs are synthetic unless
--dataset names a folder in VOC's layout, all its images at least as large as a crop.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import platform
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from contest import Contestant, compete
from speed_ours import epoch_and_bare_steps
from speed_tables import print_aims, print_epochs, print_table

from fcn_keras.cli.shared import import_tensorflow

SIZE, CLASSES, BATCH = (320, 480), 21, 8
PRECISIONS = ("float32", "bfloat16")
SHAPE = {"size": SIZE, "classes": CLASSES}


def matrix_products(_) -> list[Contestant]:
    gflop = 2 * 2048**3 / 1e9
    return [
        Contestant(f"{name}, {precision}", f"{module}:matmul", {"precision": precision}, gflop, 20)
        for precision in PRECISIONS
        for name, module in (("TensorFlow", "speed_ours"), ("PyTorch", "speed_peers"))
    ]


def steps(_) -> list[Contestant]:
    kinds = {
        "ours": ("speed_ours", {}),
        "ours without loss and metrics": ("speed_ours", {"kind": "bare"}),
        "plain Keras": ("speed_ours", {"kind": "plain"}),
        "PyTorch eager": ("speed_peers", {"compiled": False}),
        "PyTorch compiled": ("speed_peers", {"compiled": True}),
    }
    return [
        Contestant(
            f"{name}, {precision}",
            f"{module}:training_step",
            {"precision": precision, "batch": BATCH, **SHAPE, **options},
            amount=BATCH,
            calls=3,
        )
        for precision in PRECISIONS
        for name, (module, options) in kinds.items()
    ]


def forwards(data: Data) -> list[Contestant]:
    kinds = {
        "ours": ("speed_ours", {}, PRECISIONS),
        "ours, --runtime openvino": ("speed_ours", {"runtime": "openvino"}, PRECISIONS),
        "ours, --runtime onnx": ("speed_ours", {"runtime": "onnx"}, ("float32",)),
        "PyTorch eager": ("speed_peers", {"compiled": False}, PRECISIONS),
        "PyTorch compiled": ("speed_peers", {"compiled": True}, PRECISIONS),
    }
    onnx = str(data.plain_onnx)
    plain = [
        Contestant(
            f"plain model in {runtime}, {precision}",
            "speed_peers:onnx_file",
            {"path": onnx, "runtime": runtime, "precision": precision, "size": SIZE},
            calls=10,
            warm_up=5,
        )
        for runtime, precision in (
            ("OpenVINO", "float32"),
            ("OpenVINO", "bfloat16"),
            ("ONNX Runtime", "float32"),
        )
    ]
    return plain + [
        Contestant(
            f"{name}, {precision}",
            f"{module}:forward",
            {"precision": precision, **SHAPE, **options},
            calls=10,
            warm_up=5,
        )
        for name, (module, options, precisions) in kinds.items()
        for precision in precisions
    ]


def predictions(data: Data) -> list[Contestant]:
    photos = str(data.folder / "JPEGImages")
    count = len(os.listdir(photos))
    ours = {"model": str(data.model), "photos": photos}
    exported = {"model": str(data.onnx), "photos": photos}
    theirs = {"photos": photos, "classes": CLASSES, "precision": "float32"}
    kinds = {
        "ours": ("speed_ours", ours),
        "our network alone": ("speed_ours", {**ours, "masks": False}),
        "ours, --runtime openvino": ("speed_ours", {**ours, "runtime": "openvino"}),
        **{
            f"ours, model.onnx by {runtime}": ("speed_ours", {**exported, "runtime": runtime})
            for runtime in ("openvino", "onnx")
        },
        "PyTorch eager": ("speed_peers", theirs),
    }
    return [
        Contestant(name, f"{module}:prediction", options, amount=count, warm_up=1)
        for name, (module, options) in kinds.items()
    ]


def pipelines(data: Data) -> list[Contestant]:
    given = {"dataset": str(data.folder), "batch": BATCH, "batches": 30}
    ours = [
        Contestant(
            f"recipe {recipe}, {'from memory' if cache else 'from files'}",
            "speed_ours:pipeline",
            {**given, "recipe": recipe, "cache": cache},
            amount=30 * BATCH,
        )
        for recipe in ("voc2012", "camvid")
        for cache in (False, True)
    ]
    peer = {**given, "crop": SIZE, "workers": 2}
    return [
        *ours,
        Contestant(
            "DataLoader, 2 workers, from files, crops alone",
            "speed_peers:loader",
            peer,
            amount=30 * BATCH,
        ),
    ]


def start_ups(data: Data) -> list[Contestant]:
    photo = sorted((data.folder / "JPEGImages").iterdir())[0]
    predict = ["-m", "fcn_keras", "predict", str(photo), "--output", str(data.scratch / "one")]
    exported = [*predict, "--model", str(data.onnx)]
    words = {
        "fcn-keras --help": ["-m", "fcn_keras", "--help"],
        "python train.py --help": ["train.py", "--help"],
        "import tensorflow": ["-c", "import tensorflow"],
        "import torch": ["-c", "import torch"],
        "fcn-keras predict, one photograph": [*predict, "--model", str(data.model)],
        **{
            f"the same, model.onnx by {runtime}": [*exported, "--runtime", runtime]
            for runtime in ("openvino", "onnx")
        },
    }
    return [
        Contestant(name, "speed_ours:command", {"arguments": arguments}, warm_up=1)
        for name, arguments in words.items()
    ]


@dataclasses.dataclass(frozen=True)
class Data:
    folder: Path
    model: Path
    onnx: Path
    plain_onnx: Path
    scratch: Path


TASKS = {
    "peak": (matrix_products, "Matrix product of 2048×2048, GFLOP/s", True),
    "step": (steps, f"Training step, batch {BATCH}, seconds per image", False),
    "forward": (forwards, "Forward pass, batch 1, seconds", False),
    "predict": (predictions, "`predict` over a folder, images/s", True),
    "pipeline": (pipelines, "Training batches, images/s", True),
    "start": (start_ups, "Whole commands, seconds", False),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, help="photographs in VOC's layout (synthetic ones)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=[*TASKS, "epoch"], default=[*TASKS, "epoch"])
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    figures = {"machine": machine(), "rounds": arguments.rounds}
    print(f"{figures['machine']}, {arguments.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as scratch:
        data = prepare(arguments.dataset, Path(scratch))
        for name, (contestants_of, title, is_rate) in TASKS.items():
            if name in arguments.only:
                contestants = [
                    contestant
                    for contestant in contestants_of(data)
                    if contestant.options.get("precision", "float32") in arguments.precisions
                ]
                compete(contestants, arguments.rounds)
                figures[name] = {c.name: dataclasses.asdict(c) for c in contestants}
                print_table(title, contestants, is_rate)
        if "epoch" in arguments.only:
            figures["epoch"] = {p: epochs(data, p, arguments.rounds) for p in arguments.precisions}
            print_epochs(figures["epoch"])
    print_aims({name: figures.get(name, {}) for name in [*TASKS, "epoch"]}, arguments.precisions)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    contestants = [c for name in TASKS for c in figures.get(name, {}).values()]
    return 1 if any(contestant["problem"] for contestant in contestants) else 0


def prepare(dataset: Path | None, scratch: Path) -> Data:
    """The photographs and an untrained model."""
    files = [scratch / name for name in ("model.keras", "model.onnx", "plain.onnx")]
    data = Data(dataset or scratch / "drawn", *files, scratch)
    in_process(write_model, *map(str, files))
    if not dataset:
        in_process(draw_photographs, str(data.folder), 96, (360, 480))
    return data


def in_process(function, *arguments):
    """Calls a function in a process that then ends, with all its memory and threads."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def write_model(path: str, onnx: str | None = None, plain_onnx: str | None = None) -> None:
    import_tensorflow()
    from fcn_keras.export.single_file import export_file
    from fcn_keras.inference.conversion import write_onnx
    from fcn_keras.inference.segmenter import Segmenter
    from fcn_keras.models.fcn import build_fcn

    build_fcn("resnet18", CLASSES, weights=None).save(path)
    if onnx:
        segmenter = Segmenter.load(path)
        export_file(segmenter, onnx, "onnx")
        write_onnx(segmenter.model, {}, Path(plain_onnx))


def draw_photographs(folder: str, count: int, size) -> None:
    from fcn_keras.data.sample.dataset import write_sample

    write_sample(folder, train=count, val=8, size=size)


def epochs(data: Data, precision: str, rounds: int) -> list[tuple[float, float]]:
    """Seconds of `train.py`'s epochs, and of as many bare steps after each."""
    # The first compiles, the last validates.
    return in_process(epoch_and_bare_steps, str(data.folder), precision, rounds + 2, SIZE)


def machine() -> str:
    model = "unknown processor"
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return f"{model}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
