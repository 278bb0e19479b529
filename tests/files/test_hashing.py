"""One hash for one network."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

from monai_medmerge import Source
from monai_medmerge.files import file_sha256, save_weights, weights_sha256


def test_a_network_and_its_files_have_one_hash(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    save_weights(tmp_path / "model.pt", network)
    sources = [Source.from_network(network, "a"), Source.from_file(tmp_path / "model.pt")]
    assert {weights_sha256(network), *(source.sha256 for source in sources)} == {sources[0].sha256}
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] += 1
    assert weights_sha256(network) != sources[0].sha256


def test_a_file_is_hashed_whole(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
