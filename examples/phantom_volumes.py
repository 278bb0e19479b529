"""Generated MR-like volumes with a curved body in two parts, as NIfTI with labels and as DICOM series.

    python examples/phantom_volumes.py --output volumes --training 8 --validation 4 --test 8

The body is a bent tube, thicker at its front, that ends in a tail: label 1 is its front, label 2 the rest. It lies in
textured tissue beside a bright and a dark distractor. The volumes make the demo run without a download; they are no
substitute for patient data.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import nibabel
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.ndimage import gaussian_filter

from monai_medmerge.files import whole_folder

CLASS_NAMES = ("background", "front", "tail")
CODES = {
    name: {
        "SegmentedPropertyCategoryCodeSequence": {
            "CodeValue": "260787004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Physical object"
        },
        "SegmentedPropertyTypeCodeSequence": {
            "CodeValue": name, "CodingSchemeDesignator": "99MEDMERGE", "CodeMeaning": f"{name} of a phantom"
        },
    }
    for name in CLASS_NAMES[1:]
}  # fmt: skip
"""What the parts are in a DICOM SEG: nothing of a body."""
SIZE = (34, 48, 34)
SERIES_TILT = np.deg2rad(12)
"""The DICOM series lie oblique, as brain MR does."""


def volume(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One volume, float (x, y, z), and its label map, uint8."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in SIZE), indexing="ij"), -1).astype(np.float64)
    along = np.linspace(0, 1, 60)[:, None]
    start = np.array([17, 40, 14]) + rng.normal(0, 0.8, 3)
    bend = np.array([rng.normal(0, 1.5), -rng.uniform(26, 30), rng.uniform(4, 9)])
    line = start + along * bend + np.sin(np.pi * along) * np.array([rng.uniform(2, 5), 0, -rng.uniform(2, 5)])
    radius = rng.uniform(5.0, 6.5) * (1 - 0.55 * along[:, 0])
    reach = np.full(SIZE, np.inf)
    nearest = np.zeros(SIZE)
    for point, size, position in zip(line, radius, along[:, 0], strict=True):
        depth = np.linalg.norm(grid - point, axis=-1) / size
        nearest = np.where(depth < reach, position, nearest)
        reach = np.minimum(reach, depth)
    inside = reach < 1 + 0.08 * _texture(rng, 2)
    labels = np.where(inside, np.where(nearest < rng.uniform(0.3, 0.4), 1, 2), 0).astype(np.uint8)
    image = 100 + 7 * _texture(rng, 3)
    image += inside * rng.uniform(40, 55) + (labels == 1) * rng.uniform(15, 25)
    for level in (rng.uniform(50, 80), -rng.uniform(40, 60)):
        centre = np.array(SIZE) * rng.uniform(0.15, 0.85, 3)
        far = np.linalg.norm((grid - centre) / rng.uniform(3, 5, 3), axis=-1)
        image += level * (far < 1) * ~inside
    return gaussian_filter(image, 0.6) + rng.normal(0, 6, SIZE), labels


def _texture(rng: np.random.Generator, width: float) -> np.ndarray:
    """Smooth noise of unit deviation."""
    smooth = gaussian_filter(rng.normal(size=SIZE), width)
    return np.asarray(smooth / smooth.std())


def write_series(image: np.ndarray, affine: np.ndarray, folder: Path) -> None:
    """Write a volume as a DICOM MR series.

    Args:
        image: (x, y, z).
        affine: 4 x 4, from voxels to RAS millimetres.
        folder: where the slices go.
    """
    folder.mkdir(parents=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for z in range(image.shape[2]):
        slice_ = Dataset()
        slice_.file_meta = FileMetaDataset()
        slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        slice_.SOPClassUID, slice_.SOPInstanceUID = MRImageStorage, generate_uid()
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID, slice_.FrameOfReferenceUID = study, series, frame
        slice_.Modality, slice_.InstanceNumber, slice_.SeriesNumber = "MR", z + 1, 1
        slice_.PatientName = slice_.PatientID = "PHANTOM"
        slice_.PatientBirthDate = slice_.PatientSex = slice_.StudyDate = slice_.StudyTime = ""
        slice_.StudyID = slice_.AccessionNumber = slice_.ReferringPhysicianName = ""
        slice_.ImageType = ["DERIVED", "SECONDARY"]
        slice_.ImagePositionPatient = [float(f"{v:.6f}") for v in (lps @ [0, 0, z, 1])[:3]]
        directions = np.concatenate([lps[:3, 0] / spacing[0], lps[:3, 1] / spacing[1]])
        slice_.ImageOrientationPatient = [float(f"{v:.8f}") for v in directions]
        slice_.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        slice_.SliceThickness = slice_.SpacingBetweenSlices = float(spacing[2])
        slice_.Rows, slice_.Columns = image.shape[1], image.shape[0]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 0
        slice_.PixelData = image[:, :, z].T.clip(0).round().astype(np.uint16).tobytes()
        slice_.save_as(folder / f"{z:03}.dcm", enforce_file_format=True)


def write_volumes(folder: Path, training: int, validation: int, test: int, seed: int) -> Path:
    """Write a dataset folder; beside its sections, `series` holds two of the test volumes as oblique DICOM series."""
    rng = np.random.default_rng(seed)
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(SERIES_TILT), -np.sin(SERIES_TILT)], [np.sin(SERIES_TILT), np.cos(SERIES_TILT)]]
    with whole_folder(folder) as part:
        entries: dict[str, list[dict[str, str]]] = {}
        for section, count in (("training", training), ("validation", validation), ("test", test)):
            (part / section).mkdir()
            entries[section] = []
            for n in range(count):
                image, labels = volume(rng)
                names = {"image": f"{section}/{n:03}.nii.gz", "label": f"{section}/{n:03}_label.nii.gz"}
                nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.eye(4)), part / names["image"])
                nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), part / names["label"])
                entries[section].append(names)
                if section == "test" and n < 2:
                    write_series(image, tilt, part / "series" / f"{n:03}")
        content = {"class_names": CLASS_NAMES, "codes": CODES, **entries}
        (part / "dataset.json").write_text(json.dumps(content, indent=1))
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    for name, count in (("training", 8), ("validation", 4), ("test", 8), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=count)
    given = parser.parse_args()
    print(write_volumes(given.output, given.training, given.validation, given.test, given.seed))
