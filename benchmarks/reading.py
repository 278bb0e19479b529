"""What the readers make of every series below folders, judged by readers that share no code with them.

python -m benchmarks.reading FOLDER [FOLDER ...]     every series and every volume file below the folders
python -m benchmarks.reading --monai                 the test files in the packages pydicom and nibabel, each by itself

Every DICOM series and every volume file below the folders is read as it is; a series of several volumes, or without
positions, is read a second time as all of its volumes, or as pictures. A reading is right if each of its slices is a
frame of the files, as pydicom decodes it, at its place, and if dcm2niix, nibabel and ITK, where they read the grid,
give the same values; disputed if pydicom confirms every frame and dcm2niix alone has other values. With --monai the
readers of MONAI are judged as well, by the same rule.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import nibabel as nib
import numpy as np
import pydicom
from monai.data import ITKReader, PydicomReader

from benchmarks.reading_oracles import (
    compare_frames,
    compare_mosaic,
    compare_nifti,
    compare_other,
    compare_volumes,
    convert,
)
from monai_medmerge.errors import MedMergeError
from monai_medmerge.transforms import CheckedNiftiReader, CheckedVolumeReader, DicomSeriesReader
from monai_medmerge.transforms.foreign import quiet

_VOLUMES = (".nrrd", ".nhdr", ".mha", ".mhd", ".mgh", ".mgz", ".hdr", ".par")
# Words of an error, and the arguments under which the same files are read a second time.
_SECOND: dict[str, dict[str, Any]] = {
    "one volume,": {"volume": "all"},
    "of one acquisition": {"volume": 0},
    'geometry="none"': {"geometry": "none"},
    "one level": {"level": 0},
    "choose with stack": {"stack": 0},
    "a place and an orientation in the patient, found": {"policies": {"no_form": "warn"}},
}


@dataclass(frozen=True)
class Case:
    """What is read at once: the files of a DICOM series, or one file of another format, and its name in the list."""

    files: tuple[Path, ...]
    kind: Literal["dicom", "nifti", "volume"]
    name: str


def find_cases(folder: Path, each: bool) -> Iterator[Case]:
    """Yield the series and files below a folder; with `each`, and where they make up no series, files one by one."""
    for directory in sorted({folder, *(path for path in folder.rglob("*") if path.is_dir())}):
        files = sorted(path for path in directory.iterdir() if path.is_file())
        for path in files:
            if path.name.lower().endswith((".nii", ".nii.gz")):
                yield Case((path,), "nifti", path.name)
            elif path.name.lower().endswith(_VOLUMES):
                yield Case((path,), "volume", path.name)
        groups: dict[tuple[str, str], list[Path]] = {}
        for path in (path for path in files if path.suffix.lower() == ".dcm" or _is_dicom(path)):
            groups.setdefault((str(path), "") if each else _series_of(path), []).append(path)
        for group in groups.values():
            yield Case(tuple(group), "dicom", group[0].name)


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" and path.name != "DICOMDIR"


def _series_of(path: Path) -> tuple[str, str]:
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "Rows"])
    # What pydicom cannot read is a case of its own.
    except Exception:  # noqa: BLE001
        return str(path), ""
    uid = str(dataset.get("SeriesInstanceUID") or path)
    return (uid, "") if "Rows" in dataset else (uid, str(path))


def read(case: Case, **arguments: Any) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Read with this package's readers."""
    if case.kind != "dicom":
        reader: Any = (CheckedNiftiReader if case.kind == "nifti" else CheckedVolumeReader)(**arguments)
        found: tuple[np.ndarray, Mapping[str, Any]] = reader.get_data(reader.read(case.files[0]))
        return found
    dicom = DicomSeriesReader(**arguments)
    return dicom.get_data(dicom.read(case.files))


def judge(array: np.ndarray, meta: Mapping[str, Any], case: Case) -> str:
    """Return "right", "disputed", "not judged", or what is wrong."""
    if case.kind != "dicom":
        compare = compare_nifti if case.kind == "nifti" else compare_other
        return compare(array, meta, case.files[0])
    dataset = pydicom.dcmread(case.files[0], stop_before_pixels=True)
    if "MOSAIC" in (dataset.get("ImageType") or []):
        return compare_mosaic(array, meta, case.files)
    if "TotalPixelMatrixColumns" in dataset:
        return "not judged"
    found = compare_frames(array, meta, case.files)
    if found != "right" or array.ndim not in (3, 4) or meta["photometric_interpretation"] != "MONOCHROME2":
        return found
    others = [compare_volumes(array, np.asarray(meta["affine"]), image) for image in convert(case.files)]
    return "disputed" if "wrong values" in others and "right" not in others else "right"


def verdicts(case: Case) -> list[tuple[str, str]]:
    """Return (verdict, detail) of reading a case, and of reading it a second time where the first says how."""
    try:
        return [_settled(judge(*read(case), case))]
    except MedMergeError as error:
        said = str(error)
    kind = _kind(said)
    found = [("no image" if kind.startswith("an image object") else "refused", kind)]
    for words, arguments in _SECOND.items():
        if words in said:
            name = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
            try:
                verdict, detail = _settled(judge(*read(case, **arguments), case))
                found.append((f"{verdict} with {name}" if verdict == "right" else verdict, detail))
            except MedMergeError as error:
                found.append((f"refused with {name}", _kind(str(error))))
    return found


def _settled(found: str) -> tuple[str, str]:
    return (found, "") if found in ("right", "disputed", "not judged") else ("wrong", found)


def _kind(said: str) -> str:
    """Return what was expected, without the numbers and names of the one file."""
    expected = said.split(": expected ", 1)[-1].split(", found ")[0]
    return re.sub(r"-?\d+(\.\d+)?(x\d+)*", "n", expected)[:100]


def monai_verdict(reader_class: Any, case: Case) -> str:
    """Return "right", "wrong" or "fails" for one of MONAI's readers."""
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(case.files):
            shutil.copy(path, Path(folder) / f"{number:05d}.dcm")
        source = folder if len(case.files) > 1 else str(Path(folder) / "00000.dcm")
        try:
            reader = reader_class()
            array, meta = reader.get_data(reader.read(source))
            array = np.asarray(array)
            color = pydicom.dcmread(case.files[0], stop_before_pixels=True).get("SamplesPerPixel") == 3
            said = {"affine": meta["affine"], "photometric_interpretation": "RGB" if color else "MONOCHROME2"}
            return "right" if judge(array, said, case) in ("right", "disputed") else "wrong"
        # Any exception of a reader under comparison counts as a failure.
        except Exception:  # noqa: BLE001
            return "fails"


def unpacked(folder: Path) -> list[Path]:
    """Return folders of test files in pydicom and nibabel, whose zipped DICOM files are unpacked into `folder`."""
    for path in (Path(nib.__file__).parent / "nicom/tests/data").glob("*.dcm.gz"):
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    tests = Path(nib.__file__).parent / "tests/data"
    return [Path(pydicom.__file__).parent / "data/test_files", folder, tests, tests.parents[1] / "nicom/tests/data"]


def report(cases: Sequence[Case], monai: bool, listed: bool) -> None:
    """Print the counts as Markdown, and before them the verdicts of single cases: all of them if `listed`."""
    counts: Counter[str] = Counter({"wrong": 0})
    kinds: Counter[str] = Counter()
    others: dict[str, Counter[str]] = {reader.__name__: Counter() for reader in (ITKReader, PydicomReader)}
    for case in cases:
        found = verdicts(case)
        for verdict, detail in found:
            counts[verdict] += 1
            if detail and verdict != "no image":
                kinds[f"{verdict}: {detail}"] += 1
            if listed or verdict in ("wrong", "disputed"):
                print(f"{case.name}: {verdict} {detail}".rstrip())
        if monai and case.kind == "dicom" and found[0][0] != "no image":
            for reader in (ITKReader, PydicomReader):
                others[reader.__name__][monai_verdict(reader, case)] += 1
    print(f"\n{len(cases)} series and files\n\n| verdict | number |\n|---|---|")
    for verdict, number in sorted(counts.items()):
        print(f"| {verdict} | {number} |")
    print("\n| what was expected and not found | number |\n|---|---|")
    for kind, number in sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0])):
        print(f"| {kind} | {number} |")
    if monai:
        print("\n| MONAI's reader, DICOM images alone | right | wrong | fails |\n|---|---|---|---|")
        for name, seen in others.items():
            print(f"| {name} | {seen['right']} | {seen['wrong']} | {seen['fails']} |")


def main() -> None:
    """Print what the readers make of folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--each", action="store_true", help="each DICOM file by itself, rather than by series")
    parser.add_argument("--monai", action="store_true", help="judge MONAI's readers too")
    parser.add_argument("--list", action="store_true", help="print the verdict of each case")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, quiet():
        folders = arguments.folders or unpacked(Path(folder))
        each = arguments.each or not arguments.folders
        report([case for root in folders for case in find_cases(root, each)], arguments.monai, arguments.list)


if __name__ == "__main__":
    main()
