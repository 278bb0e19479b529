"""Data that can be gone through once: what a merge draws of it is given back to the training."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import DataLoader, IterableDataset


@contextmanager
def given_back(loader: Any) -> Generator[None, None, None]:
    """Let a loader be gone through inside, again and again, and afterwards begin where it was.

    MONAI's `IterableDataset` may have an iterator for its data, say `map(function, zip(*others))`. What is drawn inside
    is kept, begun anew by every pass, and comes first in the passes afterwards; memory holds it in the meantime.

    Args:
        loader: of the training; one whose data can be gone through anyway is left alone.

    Example:
        >>> from monai.data import IterableDataset
        >>> loader = DataLoader(IterableDataset(iter([1, 2, 3, 4])), batch_size=2)
        >>> with given_back(loader):
        ...     next(iter(loader)), next(iter(loader))
        (tensor([1, 2]), tensor([1, 2]))
        >>> list(loader)
        [tensor([1, 2]), tensor([3, 4])]
    """
    owner = _owner(loader)
    if owner is None:
        yield
        return
    stream: Iterator[Any] = owner.data
    kept = _Kept(stream)
    owner.data = kept
    try:
        yield
    finally:
        owner.data = _first_then(kept.drawn, stream)


class _Kept:
    """Every pass begins with what has been drawn already."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self.stream = stream
        self.drawn: deque[Any] = deque()

    def __iter__(self) -> Iterator[Any]:
        position = 0
        while True:
            if position == len(self.drawn):
                try:
                    self.drawn.append(next(self.stream))
                except StopIteration:
                    return
            yield self.drawn[position]
            position += 1


def _first_then(drawn: deque[Any], stream: Iterator[Any]) -> Iterator[Any]:
    while drawn:
        yield drawn.popleft()
    yield from stream


def _owner(loader: Any) -> Any:
    """The dataset whose data is an iterator, if there is one behind a loader."""
    dataset = loader.dataset if isinstance(loader, DataLoader) else None
    # A worker is given a copy of the iterator, and the training's workers are other ones.
    if dataset is None or loader.num_workers > 0:
        return None
    while isinstance(dataset, IterableDataset):
        data = getattr(dataset, "data", None)
        if isinstance(data, Iterator):
            return dataset
        dataset = data
    return None
