"""What counts as a volume in a folder."""

from __future__ import annotations

from pathlib import Path

from monai_medmerge.data.volumes import list_volumes

DICOM = bytes(128) + b"DICM"


def listed(folder: Path, files: dict[str, bytes]) -> list[str]:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [item["file"] for item in list_volumes(folder)]


def test_files_beside_volumes_make_no_series(tmp_path: Path) -> None:
    beside = {"dataset.json": b"{}", "README": b"text", "notes/readme.txt": b"text", "DICOMDIR": DICOM}
    assert listed(tmp_path, {"a.nii.gz": b"", "b.nii": b"", **beside}) == ["a.nii.gz", "b.nii"]


def test_series_are_known_by_content_by_suffix_and_by_names_without_one(tmp_path: Path) -> None:
    files = {
        "content/1.2.840.7": DICOM,
        "suffix/1.dcm": b"",
        "damaged/IM0001": b"",
        "mixed/a.nii": b"",
        "mixed/I1": DICOM,
    }
    assert listed(tmp_path, files) == ["content", "damaged", "mixed", "mixed/a.nii", "suffix"]
    assert [item["file"] for item in list_volumes(tmp_path / "content")] == ["content"]
