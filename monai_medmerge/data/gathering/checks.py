"""What is wrong with a dataset, or worth knowing: one line each, before anything is written."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_medmerge.data.gathering.items import PARTS, PICTURES, VOLUMES, Item, suffix_of
from monai_medmerge.errors import DicomSeriesError, MedMergeError
from monai_medmerge.files import file_sha256, shown
from monai_medmerge.transforms.dicom.headers import numbers, read_header
from monai_medmerge.transforms.images import read_picture
from monai_medmerge.transforms.nifti import load_nifti

IMBALANCE = 10
"""From this ratio of the largest class to the smallest on, a warning."""
MOST_BYTES = 2**32


@dataclass
class Findings:
    """Faults forbid the dataset, warnings do not.

    Args:
        faults: one line each.
        warnings: one line each.
        counts: part to class to number; label maps count as `volumes`, images without a label as `no label`.
    """

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, Counter[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Look:
    """Content and form of one image."""

    digest: str
    size: tuple[int, ...]
    kind: str


def check_items(items: Sequence[Item], progress: Callable[[Iterable[Item]], Iterable[Item]] = iter) -> Findings:
    """Look at every image once, and at how classes, patients and parts go together.

    Args:
        items: each with a part.
        progress: wraps the items that are read, to show how far it is.

    Returns:
        Faults: damaged files, the same picture in two parts or with two labels, a patient in two parts, a class without
        or with one image, a class that the training part lacks. Warnings: the same picture twice in one part, classes
        that another part lacks, imbalance, several sizes, several kinds of files. Nothing names a patient.
    """
    found = Findings(counts={part: Counter() for part in PARTS})
    looks: dict[int, _Look] = {}
    damaged: list[str] = []
    for n, item in enumerate(progress(items)):
        counts = found.counts[str(item.part)]
        counts[_class(item)] += 1
        try:
            looks[n] = _look(item.image)
        except (MedMergeError, OSError):
            damaged.append(f"number {counts[_class(item)]} of {shown(_class(item), 40)} in {item.part}")
    if damaged:
        found.faults.append(f"{len(damaged)} damaged or unreadable images, the first is {damaged[0]}")
    _check_content(items, looks, found)
    _check_patients(items, found)
    _check_classes(items, found)
    _check_forms(list(looks.values()), found)
    return found


def _class(item: Item) -> str:
    return "no label" if item.label is None else item.label if isinstance(item.label, str) else "volumes"


def _look(path: Path) -> _Look:
    suffix = suffix_of(path)
    if suffix in PICTURES:
        array, _ = read_picture(path)
        digest = hashlib.sha256(array.tobytes() + str((array.shape, array.dtype.name)).encode()).hexdigest()
        return _Look(digest, tuple(array.shape), "pictures")
    if suffix in VOLUMES:
        image = load_nifti(path, MOST_BYTES)
        return _Look(file_sha256(path), tuple(int(length) for length in image.shape), "NIfTI")
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    whole = hashlib.sha256("".join(sorted(file_sha256(file) for file in files if file.is_file())).encode()).hexdigest()
    return _Look(whole, _dicom_size(files), "DICOM")


def _dicom_size(files: Sequence[Path]) -> tuple[int, ...]:
    found = [numbers(read_header(files[0]).dataset, word, files[0].name, 1) for word in ("Rows", "Columns")]
    if None in found:
        raise DicomSeriesError("an image", "no pixels", files[0].name)
    return (*(int(values[0]) for values in found if values), len(files))


def _check_content(items: Sequence[Item], looks: dict[int, _Look], found: Findings) -> None:
    same: dict[str, list[int]] = defaultdict(list)
    for n, look in looks.items():
        same[look.digest].append(n)
    twice = [numbers for numbers in same.values() if len(numbers) > 1]
    parts = [numbers for numbers in twice if len({items[n].part for n in numbers}) > 1]
    labels = [numbers for numbers in twice if len({items[n].label for n in numbers if items[n].label is not None}) > 1]
    if parts:
        between = sorted({str(items[n].part) for numbers in parts for n in numbers})
        found.faults.append(f"{len(parts)} images with the same content in two parts ({', '.join(between)})")
    if labels:
        found.faults.append(f"{len(labels)} images with the same content and two labels")
    if left := len([numbers for numbers in twice if numbers not in parts and numbers not in labels]):
        found.warnings.append(f"{left} images stand twice or more in one part")


def _check_patients(items: Sequence[Item], found: Findings) -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for item in items:
        if item.patient is not None:
            where[item.patient].add(str(item.part))
    if torn := [parts for parts in where.values() if len(parts) > 1]:
        between = ", ".join(sorted(set().union(*torn)))
        found.faults.append(f"{len(torn)} patients with images in two parts ({between})")
    without = sum(item.patient is None for item in items)
    if where and without:
        found.warnings.append(f"{without} images without a patient, each taken for one of its own")
    if not where:
        found.warnings.append("patients are not known, so images of one may stand in two parts (--patient-pattern)")


def _check_classes(items: Sequence[Item], found: Findings) -> None:
    total = Counter(item.label for item in items if isinstance(item.label, str))
    for name in sorted(name for name, count in total.items() if count < 2):
        found.faults.append(f"class {shown(name)!r} has one image")
    if len(total) == 1:
        found.faults.append(f"one class only, {shown(next(iter(total)))!r}")
    for part in PARTS[:3]:
        there = found.counts[part]
        if not sum(there.values()):
            (found.faults if part == "training" else found.warnings).append(f"the part {part} is empty")
            continue
        if absent := sorted(name for name in total if name not in there):
            line = f"the part {part} lacks the classes {', '.join(map(shown, absent))}"
            (found.faults if part == "training" else found.warnings).append(line)
    if len(total) > 1 and max(total.values()) >= IMBALANCE * min(total.values()):
        found.warnings.append(f"the largest class has {max(total.values())} images, the smallest {min(total.values())}")


def _check_forms(looks: Sequence[_Look], found: Findings) -> None:
    kinds = Counter(look.kind for look in looks)
    if len(kinds) > 1:
        found.warnings.append("several kinds of files: " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common()))
    if len(channels := Counter(len(look.size) for look in looks if look.kind == "pictures")) > 1:
        found.warnings.append(f"{channels[2]} grey pictures and {channels[3]} in colour")
    sizes = Counter(look.size for look in looks)
    if len(sizes) > 1:
        most = " x ".join(map(str, sizes.most_common(1)[0][0]))
        found.warnings.append(f"{len(sizes)} sizes, from {min(sizes)} to {max(sizes)}; {most} is the most common")
