"""thi.ng's rle-pack, in which Label Studio writes what is painted.

The bits, most significant first, are a header and blocks. The header has 32 bits for the number
of values, 5 for the bits of a value and 4 for those of each of four lengths, all but the first
less one. A block has 1 bit (1: a value that is repeated, 0: values one after another), 2 bits
for which of the lengths follows, the length less one, and the values.
"""

from __future__ import annotations

import numpy as np


def decode_rle(data: bytes, size: int) -> np.ndarray:
    """Decodes bytes of rle-pack to uint8 `(size,)`; the last block may be longer.

    Raises:
        ValueError: If the bits end early, values are not bytes or there are not `size` of them.
    """
    if not isinstance(data, bytes):
        raise ValueError("its 'rle' is not a list of bytes")
    place = 0

    def take(bits: int) -> int:
        nonlocal place
        place += bits
        end = (place + 7) // 8
        if end > len(data):
            raise ValueError("its 'rle' ends early")
        number = int.from_bytes(data[(place - bits) // 8 : end], "big")
        return number >> (end * 8 - place) & ((1 << bits) - 1)

    count, word, lengths = take(32), take(5) + 1, [take(4) + 1 for _ in range(4)]
    if count != size or word != 8:
        raise ValueError(f"its 'rle' has {count} values of {word} bits, but needs {size} of 8")
    values, start = np.empty(size, np.uint8), 0
    while start < size:
        repeated = take(1)
        length = min(take(lengths[take(2)]) + 1, size - start)
        if repeated:
            values[start : start + length] = take(8)
        else:
            first = place // 8
            take(8 * length)
            bits = np.unpackbits(np.frombuffer(data[first : (place + 7) // 8], np.uint8))
            shift = (place - 8 * length) % 8
            values[start : start + length] = np.packbits(bits[shift : shift + 8 * length])
        start += length
    return values
