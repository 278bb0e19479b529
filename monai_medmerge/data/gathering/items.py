"""What a dataset is made of: images, each with its label, patient and part, in the forms in which people have them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monai_medmerge.errors import DatasetError, SettingError
from monai_medmerge.files import shown

PARTS = ("training", "validation", "test", "unlabelled")
_WORDS = {
    "training": ("training", "train", "tr"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "ts", "holdout"),
    "unlabelled": ("unlabelled", "unlabeled", "nolabel"),
}
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii.gz", ".nii")
SLICES = (".dcm", ".dicom", ".ima")
_LABEL = re.compile(r"(.+?)[_-](?:label|labels|seg|segmentation|mask)$", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One image.

    Args:
        image: a file, or a folder with a DICOM series.
        label: a class's name, the file of a label map, or None.
        patient: whatever tells patients apart; written nowhere.
        part: where the user put it; None where that is to be decided.
    """

    image: Path
    label: str | Path | None = None
    patient: str | None = None
    part: str | None = None


def part_named(word: str) -> str | None:
    """The part that a folder's name or a table's entry means.

    Example:
        >>> part_named("Val"), part_named("cat")
        ('validation', None)
    """
    return next((part for part, words in _WORDS.items() if word.strip().lower() in words), None)


def suffix_of(path: Path) -> str:
    """The suffix that says what an image is, lower case; "" where it is none, "series" for a folder.

    Example:
        >>> suffix_of(Path("a.NII.GZ")), suffix_of(Path("notes.txt"))
        ('.nii.gz', '')
    """
    if path.is_dir():
        return "series"
    name = path.name.lower()
    return next((end for end in (*VOLUMES, *PICTURES, *SLICES) if name.endswith(end)), "")


def find_items(folder: Path, patient_pattern: str | None = None) -> list[Item]:
    """The images of a folder: pairs of volume and label map, or one subfolder a class, with or without parts above.

    Args:
        folder: `imagesTr` and `labelsTr`, or `a.nii.gz` beside `a_label.nii.gz`; `CLASS/...`, `PART/CLASS/...`; a part
            is `train`, `val`, `test` or `unlabelled`. Other files are passed over.
        patient_pattern: regular expression with one group, which finds the patient in a file's name.

    Raises:
        DatasetError: there is no image, or some lie where no class is told.
        SettingError: the pattern is none, or does not find a patient in some name.
    """
    if not folder.is_dir():
        raise DatasetError("a folder of images", "none of that name", shown(folder.name))
    found = _pairs(folder) or _classes(folder)
    if not found:
        raise DatasetError("images in one folder a class, or volumes with label maps", "no image", shown(folder.name))
    return found if patient_pattern is None else _with_patients(found, patient_pattern)


def images_below(folder: Path) -> list[Path]:
    """Image files below a folder, and folders with DICOM slices as one image where there are several."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    slices: dict[Path, list[Path]] = {}
    found = []
    for path in files:
        if path.name.lower().endswith(SLICES):
            slices.setdefault(path.parent, []).append(path)
        elif suffix_of(path):
            found.append(path)
    for parent, there in slices.items():
        found += [parent] if len(there) > 1 and parent != folder else there
    return sorted(found)


def _classes(folder: Path) -> list[Item]:
    found = []
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        part = part_named(child.name)
        if part is None:
            found += [Item(image, child.name) for image in images_below(child)]
        elif part == "unlabelled":
            found += [Item(image, None, None, part) for image in images_below(child)]
        else:
            found += [replace(item, part=part) for item in _classes(child)]
    if strange := [path for path in folder.iterdir() if path.is_file() and suffix_of(path)]:
        expected = "one folder a class (or `unlabelled`)"
        raise DatasetError(expected, f"{len(strange)} images beside them", shown(folder.name))
    return found


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(suffix_of(path))]


def _pairs(folder: Path) -> list[Item]:
    """Volumes with label maps; the parts of the Decathlon and of nnU-Net have folders of their own."""
    if (folder / "imagesTr").is_dir() and (folder / "labelsTr").is_dir():
        return [
            *_matched(folder / "imagesTr", folder / "labelsTr", None),
            *(_matched(folder / "imagesTs", folder / "labelsTs", "test") if (folder / "imagesTs").is_dir() else []),
        ]
    volumes = [path for path in sorted(folder.rglob("*")) if suffix_of(path) in VOLUMES]
    maps = {(path.parent, match[1]): path for path in volumes if (match := _LABEL.match(_stem(path)))}
    named = {(path.parent, _stem(path)): path for path in volumes if not _LABEL.match(_stem(path))}
    if not maps:
        return []
    if lost := sorted(set(maps) - set(named)):
        raise DatasetError("a volume for every label map", f"{len(lost)} without one", shown(folder.name))
    found = []
    for key, image in named.items():
        above = [part_named(parent) for parent in image.relative_to(folder).parts[:-1]]
        part = next((name for name in above if name), None)
        found.append(Item(image, maps.get(key), None, part if key in maps else "unlabelled"))
    return found


def _matched(images: Path, labels: Path, part: str | None) -> list[Item]:
    maps = {_stem(path): path for path in sorted(labels.glob("*")) if suffix_of(path) in VOLUMES}
    found = []
    for path in sorted(images.glob("*")):
        if suffix_of(path) not in VOLUMES or path.name.startswith("."):
            continue
        stem = _stem(path)
        channel = re.fullmatch(r"(.+)_(\d{4})", stem)
        if channel and channel[1] in maps:
            if channel[2] != "0000":
                raise DatasetError("volumes of one channel", "several files a case", shown(images.name))
            stem = channel[1]
        label = maps.pop(stem, None)
        found.append(Item(path, label, None, part if label else "unlabelled"))
    if maps:
        raise DatasetError("a volume for every label map", f"{len(maps)} without one", shown(labels.name))
    return found


def _with_patients(items: Sequence[Item], pattern: str) -> list[Item]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise SettingError("a regular expression", str(error), "--patient-pattern") from error
    if compiled.groups != 1:
        raise SettingError("one group, which is the patient", f"{compiled.groups}", "--patient-pattern")
    matches = [compiled.search(item.image.name) for item in items]
    # What has no label goes nowhere but among the unlabelled.
    labelled = [match for match, item in zip(matches, items, strict=True) if item.part != "unlabelled"]
    if without := sum(match is None for match in labelled):
        raise SettingError("a patient in every file's name", f"{without} names without", "--patient-pattern")
    return [replace(item, patient=match[1] if match else None) for item, match in zip(items, matches, strict=True)]
