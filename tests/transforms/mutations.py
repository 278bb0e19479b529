"""Damaged copies of files: flipped bytes, overwritten lengths, cuts, repetitions and transplants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

# Values that length and size fields break on.
_EXTREMES = [bytes(4), b"\xff" * 4, b"\xff\xff\x00\x00", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00"]


def mutate(originals: Sequence[bytes], count: int, seed: int, head: int = 2048) -> Iterator[bytes]:
    """Yield damaged copies of the originals in turn.

    Args:
        originals: intact files.
        count: how many copies.
        seed: for the random choices, so that a failure can be repeated.
        head: half of the damage falls into this many first bytes, where the header is.
    """
    rng = np.random.default_rng(seed)
    for i in range(count):
        data = bytearray(originals[i % len(originals)])
        for _ in range(rng.integers(1, 6)):
            reach = min(head, len(data)) if rng.random() < 0.5 else len(data)
            at = int(rng.integers(0, max(reach, 1)))
            _damage(data, at, int(rng.integers(0, 6)), originals, rng)
        yield bytes(data)


def _damage(data: bytearray, at: int, kind: int, originals: Sequence[bytes], rng: np.random.Generator) -> None:
    length = int(rng.integers(1, 65))
    if kind == 0:
        data[at : at + 1] = rng.bytes(1)
    elif kind == 1:
        data[at : at + 4] = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
    elif kind == 2:
        data[at : at + length] = rng.bytes(length)
    elif kind == 3 and rng.random() < 0.3:
        del data[at:]
    elif kind == 4:
        data[at:at] = data[at : at + length]
    else:
        other = originals[int(rng.integers(len(originals)))]
        start = int(rng.integers(0, len(other)))
        data[at : at + length] = other[start : start + length]
