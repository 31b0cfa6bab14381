"""Whether two computations of a model agree; no more than NumPy is needed."""

from __future__ import annotations

import numpy as np

# How much a probability may differ, and the share of the pixels that must stay within that.
TOLERANCES = {
    "float32": (1e-3, 1.0),
    # Photographs that Pillow and TensorFlow resized differ by up to one of 255 levels.
    "resized": (0.02, 0.99),
    # 11-bit weights moved probabilities by 0.0015 for ResNet-18 (other conversions by
    # 0.000002); differences may add up in deeper networks.
    "float16 weights": (0.02, 0.99),
    # 8 bits: classes change where two are almost equally probable.
    "bfloat16": (0.1, 0.98),
}


def deviation(precision: str, actual: np.ndarray, expected: np.ndarray) -> str:
    """Describes how one computation of a model deviates from another.

    Args:
        precision: A key of `TOLERANCES`: the lower precision of the two.
        actual: Logits `(B, H, W, C)` or masks `(B, H, W)` of a converted model.
        expected: Logits of the original. A mask agrees with them where its class is the most
            probable, within the tolerance.

    Returns:
        A description of the difference if it is too large, else `""`.
    """
    allowed, needed = TOLERANCES[precision]
    shape = expected.shape[: actual.ndim]
    if actual.shape != shape:
        return f"its output has the shape {actual.shape}, not {shape}"
    probabilities = _softmax(expected)
    if actual.ndim == expected.ndim:
        differences = np.abs(_softmax(actual) - probabilities).max(axis=-1)
    else:  # two classes swap places if each of them moves by half the difference between them
        of_mask = np.take_along_axis(probabilities, actual[..., None].astype(int), axis=-1)[..., 0]
        differences = (probabilities.max(axis=-1) - of_mask) / 2
    same = (differences <= allowed).mean()  # NaN is no agreement either
    if same >= needed:
        return ""
    return (
        f"{1 - same:.4%} of the pixels differ in probability by more than {allowed} "
        f"(allowed: {1 - needed:.0%}), by up to {differences.max():.2g}"
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
