"""Names from outside lead nowhere else."""

from pathlib import Path

import pytest

from monai_medmerge.errors import SettingError
from monai_medmerge.files import below


def test_links_of_a_users_own_may_lead_out(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "test").symlink_to(tmp_path / "images")
    assert below(tmp_path / "dataset", "test/1.png", links=True) == tmp_path / "dataset" / "test" / "1.png"
    with pytest.raises(SettingError, match="a link that leaves it"):
        below(tmp_path / "dataset", "test/1.png")
    with pytest.raises(SettingError, match=r"`\.\.` in it"):
        below(tmp_path / "dataset", "test/../../1.png", links=True)
