"""A mask -> the outlines of its regions, for programs that draw labels as polygons.

Where two regions meet, both outlines are simplified in the same way, so that no gap opens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np

SMALLEST = 16  # pixels; smaller regions take the class of their largest neighbour
MOST = 2000  # regions; if there are more, the smallest do so, too
# How far an outline may move, in pixels. By a third of that on average, so that up to a third of P
# pixels change in a region of A pixels with P around it: here at most a share of A.
FARTHEST, SHARE = 1.0, 0.02
NEAREST = 0.4  # less would remove hardly any point
# Headings along the cracks between pixels, with the region on the right: east, south, west, north.
STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])


@dataclasses.dataclass(frozen=True)
class Ring:
    """A closed outline, with its region on the right.

    Args:
        points: On the cracks between pixels, `(x, y)` in float `(N, 2)`: the corners of outlines
            that are exact, and middles of the sides of pixels. The pixel at `(x, y)` is between
            `(x, y)` and `(x + 1, y + 1)`.
        pixels: The pixels beside it, int `(M, 2)`: the region's own, or where an outline is
            simplified and the region on the other side is painted later, that one's.
    """

    points: np.ndarray
    pixels: np.ndarray


@dataclasses.dataclass
class Region:
    """Pixels of one class that are connected by their sides.

    Args:
        class_id: The class.
        filled: How many pixels its outer outline encloses.
        parent: The number of the region that is around it, or -1.
        painted: Whether it must be painted; regions of the background and such are only if
            another one is below.
        rings: Its outer outline, then those of what it encloses.
    """

    class_id: int
    filled: int
    parent: int
    painted: bool
    rings: list[Ring]


def regions_of(mask: np.ndarray, unpainted: Collection[int | None] = ()) -> list[Region]:
    """The regions of a mask, in the order of their first pixels, row by row.

    Those that are `painted`, filled without their holes by decreasing `filled`, give the mask.

    Args:
        mask: Class ids, uint8 `(H, W)`.
        unpainted: The ids of pixels that nothing is painted on.
    """
    mask, numbers = _without_small_regions(mask)
    edges = _Edges(numbers)
    loops = edges.loops()
    loop_of_edge = np.empty(len(edges.start), np.int32)
    found: list[Region] = []
    outer: list[int] = []  # the loop of each region
    for index, loop in enumerate(loops):
        loop_of_edge[loop] = index
    for index, loop in enumerate(loops):
        first = loop[0]
        if edges.region[first] == len(found):
            x, y = edges.places(loop[:1])[0]
            class_id, parent = int(mask[y, x]), int(edges.other[first])
            # Above its first pixel is the region around it, or one with the same around.
            if parent >= 0 and loop_of_edge[edges.opposite(first)] == outer[parent]:
                parent = found[parent].parent
            painted = class_id not in unpainted or (parent >= 0 and found[parent].painted)
            outer.append(index)
            found.append(Region(class_id, edges.enclosed(loop), parent, painted, []))
    edges.prepare(numbers, [region.filled if region.painted else numbers.size for region in found])
    for loop in loops:
        found[edges.region[loop[0]]].rings.append(edges.ring(loop))
    return found


def _without_small_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mask whose small regions have got their neighbours' classes, and its regions' numbers."""
    while True:
        numbers = _numbered(mask)
        areas = np.bincount(numbers.ravel())
        smallest = SMALLEST
        if len(areas) > MOST:
            smallest = max(smallest, int(np.partition(areas, -MOST - 1)[-MOST - 1]) + 1)
        small = areas < smallest
        if len(areas) == 1 or not small.any():
            return mask, numbers
        order = np.argsort(areas, kind="stable")
        ranks = np.empty_like(order)
        ranks[order] = np.arange(len(order))
        largest = np.zeros_like(ranks)  # rank of the largest neighbour
        for one, other in ((numbers[:, 1:], numbers[:, :-1]), (numbers[1:], numbers[:-1])):
            apart = one != other
            for a, b in ((one[apart], other[apart]), (other[apart], one[apart])):
                np.maximum.at(largest, a, ranks[b])
        own = np.arange(len(areas))
        target = np.where(small, order[largest], own)
        mutual = (target[target] == own) & (ranks > ranks[target])
        target = _roots(np.where(mutual, own, target))
        classes = np.empty(len(areas), mask.dtype)
        classes[numbers] = mask
        mask = classes[target][numbers]


def _numbered(mask: np.ndarray) -> np.ndarray:
    """The number of each pixel's region, int32 `(H, W)`, in the order of their first pixels."""
    starts = np.ones(mask.shape, bool)  # of runs of a class in a row
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    runs = np.cumsum(starts, dtype=np.int32).reshape(mask.shape) - 1
    touch = (mask[1:] == mask[:-1]) & (starts[1:] | starts[:-1])
    upper, lower = runs[:-1][touch], runs[1:][touch]
    roots = np.arange(runs[-1, -1] + 1, dtype=np.int32)
    while upper.size:
        upper, lower = roots[upper], roots[lower]
        apart = upper != lower
        upper, lower = upper[apart], lower[apart]
        roots[np.maximum(upper, lower)] = np.minimum(upper, lower)
        roots = _roots(roots)
    numbers = np.cumsum(roots == np.arange(len(roots)), dtype=np.int32) - 1
    return numbers[roots][runs]


def _roots(parents: np.ndarray) -> np.ndarray:
    """Where one gets by following the parents of a forest."""
    while not np.array_equal(parents, above := parents[parents]):
        parents = above
    return parents


class _Edges:
    """The sides of pixels that separate regions, once for each of the two.

    At a point, the four pixels around are in the order of the headings that have them
    on their right: south-east, south-west, north-west, north-east.
    """

    def __init__(self, numbers: np.ndarray):
        padded = np.pad(numbers, 1, constant_values=-1)
        self._width = padded.shape[1]
        around = (padded[1:, 1:], padded[1:, :-1], padded[:-1, :-1], padded[:-1, 1:])
        self._around = np.array([self._width + 1, self._width, 0, 1])
        self._steps = STEPS @ (1, self._width)
        starts = []
        for heading in range(4):
            right, left = around[heading], around[heading - 1]
            y, x = np.nonzero((right != left) & (right >= 0))
            starts.append(y * self._width + x)
        self._size = padded.size
        self.heading = np.repeat(np.arange(4), [len(start) for start in starts])
        self.start = np.concatenate(starts)
        self._keys = self.heading * self._size + self.start  # ascending
        self._flat = padded.ravel()
        self.region = self._flat[self.start + self._around[self.heading]]
        self.other = self._flat[self.start + self._around[self.heading - 1]]

    def loops(self) -> list[np.ndarray]:
        """The edges of each closed outline, in order, from its topmost, leftmost one on.

        A region's outer outline comes before those of its holes, since it starts above them.
        """
        end = self.start + self._steps[self.heading]
        right = self._flat[end + self._around[self.heading]] == self.region
        left = self._flat[end + self._around[self.heading - 1]] == self.region
        turned = (self.heading + np.where(right, np.where(left, -1, 0), 1)) % 4
        following = np.searchsorted(self._keys, turned * self._size + end).tolist()
        seen, loops = bytearray(len(following)), []
        for first in range(int(np.searchsorted(self.heading, 1))):  # those that head east
            if not seen[first]:
                loop, edge = [], first
                while not seen[edge]:
                    seen[edge] = 1
                    loop.append(edge)
                    edge = following[edge]
                loops.append(np.array(loop))
        return loops

    def opposite(self, edge: int) -> int:
        """The same edge of the region on the other side; for one that heads east."""
        return int(np.searchsorted(self._keys, 2 * self._size + self.start[edge] + 1))

    def places(self, edges) -> np.ndarray:
        """Where edges start, int `(N, 2)`."""
        return np.stack((self.start[edges] % self._width, self.start[edges] // self._width), 1)

    def enclosed(self, loop: np.ndarray) -> int:
        """How many pixels a loop encloses; negative for a hole's."""
        return int(-(STEPS[self.heading[loop], 0] * self.places(loop)[:, 1]).sum())

    def prepare(self, numbers: np.ndarray, order: list[int]) -> None:
        """Must come before `ring`; regions are painted by decreasing `order`."""
        limits = 3 * SHARE * np.bincount(numbers.ravel()) / np.bincount(self.region)
        limits = np.append(np.minimum(FARTHEST, limits), 0)  # of the frame, number -1
        limits[limits < NEAREST] = 0
        self._limits = np.minimum(limits[self.region], limits[self.other])
        ranks = np.append(np.argsort(np.argsort(-np.array(order), kind="stable")), -1)
        self._below = ranks[self.region] < ranks[self.other]

    def ring(self, loop: np.ndarray) -> Ring:
        """A loop's corners or, where it may move, fewer points."""
        heading = self.heading[loop]
        before, after = np.roll(heading, 1), np.roll(heading, -1)
        limits, places = self._limits[loop], self.places(loop)
        pixels = self._flat[self.start[loop] + self._around[:, None]]
        meet = (pixels != np.roll(pixels, 1, axis=0)).sum(axis=0) > 2  # more than two edges
        corner = meet | ((before != heading) & (limits == 0))
        middle = ((before != heading) | (after != heading)) & (limits > 0)
        chosen = np.flatnonzero(np.stack((corner, middle), 1))
        edge, is_middle = chosen // 2, chosen % 2
        points = 2 * places[edge] + is_middle[:, None] * STEPS[heading[edge]]  # in half pixels
        kept = _kept(points, meet[edge] & (is_middle == 0), 2 * limits[edge])
        points, edge, is_middle = points[kept], edge[kept], is_middle[kept, None]
        into, out = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
        bends = into[:, 0] * out[:, 1] != into[:, 1] * out[:, 0]
        arriving, leaving = self._pixels(loop, edge, is_middle)
        bends |= (arriving != leaving).any(axis=1)
        pixels = np.stack((arriving[bends], leaving[bends]), 1).reshape(-1, 2)
        differ = (pixels != np.roll(pixels, 1, axis=0)).any(axis=1)
        return Ring(points[bends] / 2, pixels[differ] if differ.any() else pixels[:1])

    def _pixels(self, loop, edge, is_middle) -> tuple[np.ndarray, np.ndarray]:
        """The pixels for points at edges of a loop, for the line that ends there and the next."""
        before, after = loop[edge - 1], loop[edge]
        came, goes = self.heading[before], self.heading[after]
        came_right, right = STEPS[(came + 1) % 4], STEPS[(goes + 1) % 4]
        came, goes = STEPS[came], STEPS[goes]
        place = self.places(after)
        turns = (came != goes).any(axis=1)[:, None] & (is_middle == 0)
        own = place + (right + np.where(turns, came_right, goes) - 1) // 2
        # Up to half a pixel is lost along slanting lines, so what is below reaches farther.
        across = self._below & (self._limits > 0)
        leaving = np.where(across[after, None], place + (goes - right - 1) // 2, own)
        arriving = np.where(across[before, None], place + (-came - came_right - 1) // 2, own)
        return np.where(is_middle, leaving, arriving), leaving


def _kept(points: np.ndarray, fixed: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Which points of a closed line remain, by Douglas and Peucker's rule; bool `(N,)`.

    From one fixed point to the next the result does not depend on the direction, so that it is
    the same for the regions on both sides.
    """
    if not limits.any():
        return np.ones(len(points), bool)
    ends = np.flatnonzero(fixed).tolist()
    if len(ends) < 2:
        one = ends[0] if ends else int(np.lexsort(points.T)[0])
        ends = sorted([one, _farthest(points, points[one], points[one])[0]])
    kept = np.zeros(2 * len(points), bool)
    kept[ends] = True
    points = np.append(points, points, axis=0)
    for start, end in zip(ends, [*ends[1:], ends[0] + len(fixed)]):
        limit, pieces = limits[start], [(start, end)]
        if not limit:
            kept[start:end] = True
            continue
        while pieces:
            start, end = pieces.pop()
            if end - start > 1:
                far, distance = _farthest(points[start + 1 : end], points[start], points[end])
                if distance > limit:
                    far += start + 1
                    kept[far] = True
                    pieces += (start, far), (far, end)
    return kept[: len(fixed)] | kept[len(fixed) :]


def _farthest(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[int, float]:
    """The point that is farthest from a line between two others, and its distance."""
    line, away = end - start, points - start
    length = line @ line
    along = (away @ line / length).clip(0, 1) if length else np.zeros(len(points))
    beside = away - along[:, None] * line
    # Rounded, as equal distances must be equal for either direction of the line.
    squares = np.einsum("ij,ij->i", beside, beside).round(6)
    index = squares.argmax()
    equal = np.flatnonzero(squares == squares[index])
    if len(equal) > 1:
        index = equal[np.lexsort(points[equal].T)[0]]
    return int(index), float(squares[index] ** 0.5)
