"""What a network's output depends on, for exact tiling; computed in `receptive_field`."""

from __future__ import annotations

import dataclasses
import math

from fcn_keras.errors import UserError


@dataclasses.dataclass(frozen=True)
class Field:
    """What element `i` of a map depends on: image rows `jump * i + low` to `jump * i + high`.

    Args:
        jump: Image rows from one element to the next.
        low: First row that element 0 depends on; negative before the image's edge.
        high: Last row.
        stride: The largest jump on the way: windows that start at its multiples
            are on the grid of the whole image.
    """

    jump: float = 1.0
    low: float = 0.0
    high: float = 0.0
    stride: int = 1

    @property
    def halo(self) -> int:
        """Rows around a window that its values may depend on, a multiple of `stride`."""
        return math.ceil(max(-self.low, self.high) / self.stride) * self.stride

    def after_convolution(self, kernel: int, stride: int, padding: tuple[int, int]) -> Field:
        """The field after a convolution or pooling, given its least and most padding in front."""
        jump = self.jump * stride
        return Field(
            jump,
            self.low - self.jump * padding[1],
            self.high + self.jump * (kernel - 1 - padding[0]),
            max(self.stride, math.ceil(jump)),
        )

    def after_transposed_convolution(self, kernel: int, stride: int, crop: int) -> Field:
        """The field after a transposed convolution that crops `crop` elements at the top."""
        # Output o sums inputs i with 0 <= o + crop - stride * i < kernel.
        jump = self.jump / stride
        return Field(
            jump, self.low + jump * (crop - kernel + 1), self.high + jump * crop, self.stride
        )

    def joined(self, other: Field) -> Field:
        """The field of the sum of two maps."""
        if self.jump != other.jump:
            strides = f"{self.jump} and {other.jump}"
            raise UserError(f"Maps of strides {strides} allow no exact tiles. Use --blend average.")
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Field(self.jump, low, high, max(self.stride, other.stride))
