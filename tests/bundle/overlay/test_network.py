"""The network to merge may sit inside of what the trainer holds, such as a detector."""

from __future__ import annotations

import json

import pytest
import torch
from bundle.overlay.overlay_runs import Bundle, load
from torch import nn

from monai_medmerge.bundle.overlay.network import exchanged, holds, plain_network
from monai_medmerge.bundle.overlay.starting import OVERLAY_FILE
from monai_medmerge.errors import MedMergeError

detection = pytest.mark.parametrize("bundle", ["detection"], indirect=True)


def rename(bundle: Bundle, new: str) -> None:
    """Give the network of a bundle an id that is not usual."""
    text = bundle.config.read_text().replace('"network": "$@network_def', f'"{new}": "$@network_def')
    bundle.config.write_text(text.replace('"@network"', f'"@{new}"'))


@detection
def test_an_unusual_id_must_be_named(bundle: Bundle) -> None:
    rename(bundle, "point_finder")
    # `network_def` is usual too, and here the very object; without it only the setting tells.
    text = bundle.config.read_text().replace("network_def", "definition")
    bundle.config.write_text(text)
    with pytest.raises(MedMergeError) as caught:
        bundle.merge(bundle.sources, coefficient_epochs=0)
    assert "--medmerge::network_id" in str(caught.value)
    assert "point_finder" in str(caught.value)
    final = bundle.merge(bundle.sources, coefficient_epochs=1, **{"medmerge::network_id": "point_finder"})
    start = load(bundle.root / "medmerge" / "initialization.pt")
    assert start.keys() == final.keys() == load(bundle.sources[0]).keys()
    record = json.loads((bundle.root / "medmerge" / "merge.json").read_text())
    assert record["own_tensors"] == []
    assert len(record["coefficient_losses"]) == 1


@detection
@pytest.mark.parametrize("wanted", ["absent", "optimizer"])
def test_an_id_that_is_no_network_of_the_trainer_is_named(bundle: Bundle, wanted: str) -> None:
    with pytest.raises(MedMergeError) as caught:
        bundle.run(OVERLAY_FILE, sources=bundle.sources, **{"medmerge::network_id": wanted})
    assert f"medmerge::network_id {wanted}" in str(caught.value)
    assert not (bundle.root / "medmerge").exists()


@detection
def test_batch_norm_that_never_runs_keeps_its_statistics(bundle: Bundle) -> None:
    """Its two sources have seen other data; what is used is measured anew, what is not stays the merge's own."""
    for path, mean in zip(bundle.sources, (1.0, 3.0), strict=True):
        state = load(path)
        for name in state:
            if name.endswith("running_mean"):
                state[name].fill_(mean)
        torch.save(state, path)
    bundle.merge(bundle.sources, coefficient_epochs=0)
    start = load(bundle.root / "medmerge" / "initialization.pt")
    torch.testing.assert_close(start["classes.running_mean"], torch.full((8,), 2.0))
    assert not torch.isclose(start["norm.running_mean"], torch.tensor(2.0)).any()
    network = bundle.network()
    network.load_state_dict(start)
    from scripts.points import Points  # type: ignore[import-not-found]

    points = Points(8)
    images = torch.stack([points[case]["image"] for case in range(8)])
    with torch.no_grad():
        raw = network.body[0](images)
    torch.testing.assert_close(start["body.1.running_mean"], raw.mean((0, 2, 3)))
    torch.testing.assert_close(start["body.1.running_var"], raw.var((0, 2, 3)))


def test_an_exchange_leaves_the_holder_as_it_is() -> None:
    old, new = nn.Linear(2, 2), nn.Linear(2, 2)
    holder = nn.Sequential(nn.ReLU(), nn.ModuleDict({"wrapped": nn.DataParallel(old)}))
    twin = exchanged(holder, old, new)
    assert holds(twin, new)
    assert not holds(twin, old)
    assert holds(holder, old)
    assert not holds(holder, new)
    assert twin[0] is holder[0]
    assert plain_network(nn.DataParallel(old)) is old
