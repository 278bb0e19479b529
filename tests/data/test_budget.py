"""The draw of a label budget: its size, its proportions, its seed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_medmerge import DatasetError
from monai_medmerge.data.budget import label_budget


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.data())
def test_size_proportions_and_seed(counts: list[int], data: st.DataObject) -> None:
    items = [{"label": c, "number": n} for c, count in enumerate(counts) for n in range(count)]
    labels = data.draw(st.integers(len(counts), len(items)))
    seed = data.draw(st.integers(0, 1000))
    drawn = label_budget(items, labels, seed)
    assert drawn == label_budget(items, labels, seed)
    assert len(drawn) == labels
    assert drawn == [item for item in items if item in drawn]
    shares = [sum(item["label"] == c for item in drawn) for c in range(len(counts))]
    assert min(shares) >= 1
    if min(labels * count / len(items) for count in counts) >= 1:
        assert all(abs(share - labels * count / len(items)) < 1 for share, count in zip(shares, counts, strict=True))


def test_seeds_differ_and_impossible_budgets_are_refused() -> None:
    items = [{"label": n % 2, "number": n} for n in range(40)]
    assert label_budget(items, 10, 0) != label_budget(items, 10, 1)
    for labels in (1, 41):
        with pytest.raises(DatasetError, match="from 2 to 40"):
            label_budget(items, labels, 0)
