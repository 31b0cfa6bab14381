"""The FCN in Keras under JAX, compared with PyTorch, on one GPU; TensorFlow is not needed.

    python benchmarks/gpu.py                                                  # 6 minutes
    python benchmarks/gpu.py --precision float32 --size 64 96 --batch 2 --side 512    # on a CPU

FCN-32s on ResNet-18 and 50, 21 classes. Needs Linux, JAX, PyTorch, Keras and KerasHub (which
imports without the TensorFlow Text it requires: `pip install --no-deps keras-hub`). Both
compile: JAX by XLA, PyTorch by `torch.compile`, channels last; the step is cross-entropy and SGD
with momentum, without metrics; the forward pass leaves the logits on the card. The two of a table
row are processes that prepare themselves at the same time and then take turns. Both multiply
float32 matrices in TensorFloat32; PyTorch's scores and upsampling are in bfloat16, ours in float32.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from contest import Contestant, compete
from kept_runs import row, table
from speed import machine
from speed_ours import photographs

CLASSES, LEARNING_RATE, MOMENTUM = 21, 1e-3, 0.9
CALLS = 10  # per round: the card need not wait for Python after each
# Per image of 320×480, two operations per multiply-add of forward pass and training step.
GFLOP = {(18, "forward"): 11.6, (18, "step"): 34.2, (50, "forward"): 25.6, (50, "step"): 76.0}


def jax_matmul(precision: str, side: int):
    import jax

    matrix = jax.random.normal(jax.random.key(0), (side, side), precision)
    product = jax.jit(lambda matrix: matrix @ matrix)
    return _jax_calls(lambda: product(matrix))


def jax_forward(precision: str, depth: int, batch: int, size):
    import jax

    from fcn_keras.inference.folding import fold_batchnorm
    from fcn_keras.models.block_upsampling import upsample_by_blocks

    model = upsample_by_blocks(fold_batchnorm(_keras_fcn(precision, depth)))
    state = _values(model.trainable_variables, model.non_trainable_variables)
    images = jax.device_put(photographs(batch, size, CLASSES)[0])
    network = jax.jit(lambda *given: model.stateless_call(*given, training=False)[0])
    return _jax_calls(lambda: network(*state, images))


def jax_step(precision: str, depth: int, batch: int, size):
    import jax
    import keras

    from fcn_keras.training.objectives import SegmentationCrossentropy

    model, loss = _keras_fcn(precision, depth), SegmentationCrossentropy()
    optimizer = keras.optimizers.SGD(LEARNING_RATE, MOMENTUM)
    optimizer.build(model.trainable_variables)
    batch = [jax.device_put(values) for values in photographs(batch, size, CLASSES)]
    state = _values(model.trainable_variables, model.non_trainable_variables, optimizer.variables)

    def loss_of(weights, rest, images, masks):
        logits, rest = model.stateless_call(weights, rest, images, training=True)
        return loss(masks, logits), rest

    def stepped(weights, rest, moments, *batch):
        (value, rest), slopes = jax.value_and_grad(loss_of, has_aux=True)(weights, rest, *batch)
        weights, moments = optimizer.stateless_apply(moments, slopes, weights)
        return value, [weights, rest, moments]

    compiled = jax.jit(stepped, donate_argnums=(0, 1, 2))

    def step():
        nonlocal state
        value, state = compiled(*state, *batch)
        return value

    return _jax_calls(step)


def _keras_fcn(precision: str, depth: int):
    from fcn_keras.models.fcn import build_fcn

    dtype = precision if precision == "float32" else f"mixed_{precision}"
    return build_fcn(f"resnet{depth}", CLASSES, weights=None, dtype=dtype)


def _values(*groups) -> list[list]:
    return [[variable.value for variable in group] for group in groups]


def _jax_calls(function):
    def run():
        for _ in range(CALLS):
            result = function()
        result.block_until_ready()

    return run


def torch_matmul(precision: str, side: int):
    import torch

    matrix = torch.randn(side, side).to(_torch_device(), getattr(torch, precision))
    return _torch_calls(lambda: matrix @ matrix)


def torch_forward(precision: str, depth: int, batch: int, size):
    import torch

    network, autocast, images, _ = _torch_fcn(precision, depth, batch, size)
    compiled = torch.compile(network.eval())

    def forward():
        with torch.no_grad(), autocast():
            return compiled(images).float()

    return _torch_calls(forward)


def torch_step(precision: str, depth: int, batch: int, size):
    import torch
    from torch.nn.functional import cross_entropy

    network, autocast, images, masks = _torch_fcn(precision, depth, batch, size)
    optimizer = torch.optim.SGD(network.parameters(), LEARNING_RATE, MOMENTUM, fused=True)

    @torch.compile
    def loss_of(images, masks):
        with autocast():
            logits = network(images)
        return cross_entropy(logits.float(), masks, ignore_index=255)

    def step():
        optimizer.zero_grad()
        loss_of(images, masks).backward()
        optimizer.step()

    return _torch_calls(step)


def _torch_device() -> str:
    import torch

    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    return "cuda" if torch.cuda.is_available() else "cpu"


def _torch_fcn(precision: str, depth: int, batch: int, size):
    import torch

    with contextlib.suppress(ImportError):
        import triton  # noqa: F401  # or `torch_network` would hide it
    from torch_network import FCN32s

    device = _torch_device()
    network = FCN32s(CLASSES, depth).to(device, memory_format=torch.channels_last)
    images, masks = (
        torch.from_numpy(values).to(device) for values in photographs(batch, size, CLASSES)
    )
    enabled = precision != "float32"
    autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled)
    return network, autocast, images.permute(0, 3, 1, 2), masks.long()


def _torch_calls(function):
    import torch

    def run():
        for _ in range(CALLS):
            function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return run


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--size", type=int, nargs=2, default=(320, 480), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, nargs="+", default=(64, 16))
    parser.add_argument("--depth", type=int, nargs="+", choices=(18, 50), default=(50, 18))
    parser.add_argument("--side", type=int, default=8192, help="of the matrices (8192)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=340, help="for everything (340)")
    given = parser.parse_args(argv)
    # For the processes: otherwise the first with JAX takes three quarters of the card's memory.
    os.environ |= {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    sys.path.insert(0, str(Path(__file__).parent))
    print(f"{card()}; {machine()}; {given.precision}, {given.size[0]}×{given.size[1]}\n")
    deadline, everyone = time.monotonic() + given.seconds, []

    def pair(task: str, amount: float, **options) -> list[Contestant]:
        options = {"precision": given.precision, **options}
        contestants = [
            Contestant(f"{name}, {task}", f"gpu:{name}_{task}", options, amount * CALLS)
            for name in ("jax", "torch")
        ]
        everyone.extend(contestants)
        compete(contestants, given.rounds, together=True, deadline=deadline)
        return contestants

    products = pair("matmul", 2 * given.side**3 / 1e9, side=given.side)
    peaks = [1 / contestant.median for contestant in products]
    rates = "JAX {:.0f}, PyTorch {:.0f}".format(*peaks)
    print(f"Matrix product of side {given.side}, GFLOP/s: {rates}\n", flush=True)
    lines = ["| | images/s: JAX | PyTorch | ratio | share of the peak: JAX | PyTorch |"]
    for depth, batch, task in itertools.product(given.depth, given.batch, ("step", "forward")):
        if time.monotonic() > deadline:
            print(f"No time left from ResNet-{depth}, batch {batch}, {task}, on.", file=sys.stderr)
            break
        contestants = pair(task, batch, depth=depth, batch=batch, size=tuple(given.size))
        rates = [1 / contestant.median for contestant in contestants]
        gflop = GFLOP[depth, task] * given.size[0] * given.size[1] / (320 * 480)
        shares = [rate * gflop / peak for rate, peak in zip(rates, peaks)]
        cells = [f"{rate:.1f}" for rate in rates] + [rates[0] / rates[1], *shares]
        lines.append(row(f"{task}, ResNet-{depth}, batch {batch}", *cells))
        print(lines[-1], flush=True)
    print("\n" + table(lines))
    return 1 if any(contestant.problem for contestant in everyone) else 0


def card() -> str:
    """The GPU's name; JAX and PyTorch use the processor where there is none."""
    if not shutil.which("nvidia-smi"):
        return "no GPU"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.strip() or "no GPU"


if __name__ == "__main__":
    sys.exit(main())
