"""What d2l's chapter computes, written from its formulas."""

import numpy as np


def d2l_kernel(in_channels, out_channels, size):
    """d2l's formula by loops, in PyTorch's order (in, out, height, width)."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    kernel = np.zeros((in_channels, out_channels, size, size))
    for channel in range(min(in_channels, out_channels)):
        for row in range(size):
            for column in range(size):
                kernel[channel, channel, row, column] = (1 - abs(row - center) / factor) * (
                    1 - abs(column - center) / factor
                )
    return kernel
