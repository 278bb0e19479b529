"""What a merge draws of data that streams once is given back to the training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import pytest
from bundle.overlay.overlay_runs import Bundle
from monai.data import IterableDataset, ShuffleBuffer
from torch.utils.data import DataLoader

from monai_medmerge.bundle.overlay.stream import given_back


@pytest.mark.parametrize("bundle", ["stream"], indirect=True)
def test_the_training_is_given_every_sample_once(bundle: Bundle) -> None:
    bundle.merge(bundle.sources, coefficient_epochs=2)
    assert json.loads((bundle.root / "seen.json").read_text()) == list(range(8))
    record = json.loads((bundle.root / "medmerge" / "merge.json").read_text())
    assert all(0 < loss < 10 for loss in record["coefficient_losses"])


def test_a_stream_without_end_goes_on_where_it_was() -> None:
    def numbers() -> Iterator[int]:
        yield from range(10**9)

    loader = DataLoader(IterableDataset(map(float, numbers())), batch_size=2)
    first = next(iter(loader)).tolist()
    with given_back(loader):
        for length in (1, 3, 2):
            drawn = [batch.tolist() for batch in islice(loader, length)]
            assert drawn == [[2.0 * n, 2.0 * n + 1] for n in range(1, 1 + length)]
    after = [value for batch in islice(loader, 5) for value in batch.tolist()]
    assert first + after == list(range(12))


def test_an_iterator_behind_other_datasets_is_found() -> None:
    inner = IterableDataset(iter(range(6)))
    loader = DataLoader(IterableDataset(ShuffleBuffer(inner, buffer_size=3)), batch_size=1)
    with given_back(loader):
        assert sorted(int(batch) for batch in loader) == list(range(6))
        assert sorted(int(batch) for batch in loader) == list(range(6))
    assert sorted(int(batch) for batch in loader) == list(range(6))
    assert list(inner.data) == []


def test_an_error_inside_gives_back_too() -> None:
    loader = DataLoader(IterableDataset(iter(range(4))), batch_size=1)

    def fail() -> None:
        with given_back(loader):
            next(iter(loader))
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [int(batch) for batch in loader] == list(range(4))
