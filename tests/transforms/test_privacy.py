from __future__ import annotations

import pytest
from monai.data import ITKReader
from monai.transforms import LoadImaged
from transforms.phantoms import SECRETS, voxels, write_series

from monai_medmerge.errors import SettingError
from monai_medmerge.transforms import StripIdentityd


@pytest.mark.parametrize("reader", [ITKReader(), "monai_medmerge.transforms.DicomSeriesReader"])
def test_nothing_planted_is_left_whatever_reader_was_used(tmp_path, reader):
    folder = tmp_path / "Zyxwvut-Planted"
    path = write_series(folder, voxels())[0]
    data = LoadImaged("image", reader=reader)({"image": str(path), "image_path": str(path)})
    before = repr(data["image"].meta)
    data = StripIdentityd("image", salt="secret", paths=("image_path",))(data)
    text = repr(data["image"].meta) + repr({key: value for key, value in data.items() if key != "image"})
    assert any(secret in before for secret in SECRETS)
    assert not any(secret in text for secret in SECRETS)
    assert {"affine", "spatial_shape", "spacing", "filename_or_obj"} <= data["image"].meta.keys()
    assert data["image"].shape == (10, 8, 1)


def test_hashes_depend_on_the_salt_and_the_file(tmp_path):
    paths = write_series(tmp_path, voxels())
    load = LoadImaged("image", reader="monai_medmerge.transforms.DicomSeriesReader")
    names = {
        StripIdentityd("image", salt=salt)(load({"image": str(path)}))["image"].meta["filename_or_obj"]
        for salt in "ab"
        for path in paths[:2]
    }
    assert len(names) == 4
    with pytest.raises(SettingError, match="salt"):
        StripIdentityd("image", salt="")
